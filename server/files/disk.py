"""Files in a folder of their own, which nobody else may read.

A file's name there is its id; what the client called it is never part of a path. While it is being
written it has the suffix ``.part``. Where files are meant to stay, a description of each lies beside it,
under its id with the suffix ``.json``, and is written first: a file without one is none. Whatever else
has such a name is removed at the start: it is what a crash has left.

All disk work is done by a few threads of its own: a slow disk holds up uploads, not the event loop,
nor what else the process does in threads. Nothing is forced onto the medium: a machine that loses its
power may lose files.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from io import BufferedWriter, FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.files.base import (
    FileDetails,
    FileId,
    FileLimits,
    FileNotFound,
    FilesUnavailable,
    StoredFile,
    Upload,
    new_file_id,
)
from unbroken.server.files.expiry import Expiry
from unbroken.server.files.ledger import Ledger, Reservation
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import PrincipalId

__all__ = ["DiskFiles"]

_PIECE: Final = 65536
_THREADS: Final = 4
_OWN: Final = re.compile(r"file-[0-9a-f]{32}(\.part|\.json)?")
"""What this module calls its files. Nothing else in the folder is ever touched."""
_LOCK: Final = "lock"
_PREFIX: Final = "unbroken-files-"
_ABANDONED_AFTER: Final = 60.0
"""Seconds. A folder is made a moment before it is locked."""

_log: FilteringBoundLogger = structlog.get_logger(__name__)

_T = TypeVar("_T")


class DiskFiles:
    """A :class:`~unbroken.server.files.base.FileStore` in a folder.

    Args:
        limits: What it holds.
        clock: Where time comes from.
        folder: Where, made if need be, and used by one store at a time. None: in a new one among
            the system's temporary files, which is removed at the end.
        is_kept: Whether files outlive :meth:`__aexit__`, to be found by the next store in the folder.

    """

    def __init__(
        self, limits: FileLimits, clock: Clock, folder: Path | None = None, *, is_kept: bool = False
    ) -> None:
        self.limits = limits
        self._clock = clock
        self._wanted = folder
        self._is_kept = is_kept and folder is not None
        self._ledger = Ledger(limits)
        self._expiry = Expiry(self._ledger, clock, self._remove_expired)
        self._folder: Path = Path()  # from entering on
        self._lock: FileIO | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._clearing: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """See :attr:`FileStore.count`."""
        return len(self._ledger)

    @property
    def size(self) -> int:
        """See :attr:`FileStore.size`."""
        return self._ledger.size

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="files")
        kept: list[StoredFile] = []
        failure: FilesUnavailable | None = None
        try:
            kept = await self._in_thread(self._open_folder)
        except OSError as error:
            await self._stop_threads()
            where = "among the temporary files" if self._wanted is None else f"in {self._wanted}"
            reason = error.strerror or str(error)
            failure = FilesUnavailable(
                f"Files can't be kept {where}: {reason}. "
                "Set UNBROKEN_FILES_DIR to a folder that can be written."
            )
        if failure is not None:
            raise failure
        for file in kept:
            self._ledger.restore(file)
            self._expiry.note(file.expires_at)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._expiry.stop()
        if self._clearing:
            await asyncio.wait(self._clearing)
        with suppress(FilesUnavailable):
            await self._in_thread(self._close_folder)
        await self._stop_threads()

    @asynccontextmanager
    async def upload(self, principal: PrincipalId) -> AsyncIterator[Upload]:
        """See :meth:`FileStore.upload`."""
        reservation = self._ledger.reserve(principal)
        upload = _DiskUpload(self, reservation, self._folder)
        try:
            yield upload
        finally:
            if upload.is_committed:
                reservation.release()
            else:
                # Also when it was cancelled, and as often as that may be: its thread may still be writing.
                await asyncio.shield(self._clear(upload.discard, reservation.release))

    async def stat(self, file_id: str, principal: PrincipalId) -> StoredFile:
        """See :meth:`FileStore.stat`."""
        return self._ledger.find(file_id, principal, self._clock.time())

    async def read(self, file_id: str, principal: PrincipalId) -> AsyncGenerator[bytes, None]:
        """See :meth:`FileStore.read`."""
        file = self._ledger.find(file_id, principal, self._clock.time())
        reader = _DiskReader(self._folder / file.id)
        try:
            while piece := await self._attempt(reader.read):
                yield piece
        finally:
            await asyncio.shield(self._clear(reader.close))

    async def of(self, principal: PrincipalId) -> list[StoredFile]:
        """See :meth:`FileStore.of`."""
        return self._ledger.of(principal, self._clock.time())

    async def delete(self, file_id: str, principal: PrincipalId) -> None:
        """See :meth:`FileStore.delete`."""
        file = self._ledger.find(file_id, principal, self._clock.time())
        self._ledger.remove(file)
        await asyncio.shield(self._clear(lambda: self._unlink(file.id)))

    # What uploads need.

    def keep(self, file: StoredFile, reservation: Reservation) -> None:
        """Take in a file that is on the disk."""
        self._ledger.add(file, reservation)
        self._expiry.note(file.expires_at)

    def describe(self, details: FileDetails, reservation: Reservation, file_id: FileId) -> StoredFile:
        """Return what is to be known of an upload from now on."""
        now = self._clock.time()
        return StoredFile(
            id=file_id,
            principal=reservation.principal,
            name=details.name,
            media_type=details.media_type,
            bytes=reservation.bytes,
            purpose=details.purpose,
            created_at=now,
            expires_at=now + details.lifetime,
        )

    def settle(self, part: Path, file: StoredFile) -> None:
        """Give a whole file its name. In a thread."""
        path = self._folder / file.id
        if self._is_kept:
            path.with_suffix(".json").write_bytes(msgspec.json.encode(file))
        part.rename(path)

    async def _attempt(self, work: Callable[[], _T]) -> _T:
        """Do *work* in a thread.

        Raises:
            FileNotFound: The file is gone.
            FilesUnavailable: The disk doesn't have it.

        """
        try:
            return await self._in_thread(work)
        except FileNotFoundError:  # it was deleted between two steps
            raise FileNotFound from None
        except OSError as error:
            _log.error("file could not be read or written", error=type(error).__name__, errno=error.errno)
        raise FilesUnavailable

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        if self._threads is None:
            raise FilesUnavailable
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _clear(self, work: Callable[[], None], then: Callable[[], None] | None = None) -> asyncio.Task[None]:
        """Do what has to be done, whoever waits for it or doesn't any more. The store's end does."""

        async def clear() -> None:
            try:
                await self._in_thread(work)
            except (OSError, FilesUnavailable) as error:
                _log.error("file could not be removed", error=type(error).__name__)
            finally:
                if then is not None:
                    then()

        task = asyncio.create_task(clear())
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)
        return task

    def _remove_expired(self) -> None:
        files = self._ledger.expired(self._clock.time())
        for file in files:
            self._ledger.remove(file)
        if files:
            self._clear(lambda: self._unlink_all(files))

    async def _stop_threads(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)

    # In a thread.

    def _unlink(self, file_id: FileId) -> None:
        path = self._folder / file_id
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def _unlink_all(self, files: list[StoredFile]) -> None:
        for file in files:
            self._unlink(file.id)

    def _open_folder(self) -> list[StoredFile]:
        if self._wanted is None:
            _remove_abandoned(Path(tempfile.gettempdir()), self._clock.time() - _ABANDONED_AFTER)
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        else:
            self._folder = self._wanted.absolute()
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
        self._lock = _locked(self._folder)
        if self._lock is None:
            raise OSError("another server uses the folder; give each its own")
        return list(self._found())

    def _found(self) -> Iterator[StoredFile]:
        """Yield the files that are there from before, and remove what is left of others."""
        names = {path.name for path in self._folder.iterdir() if _OWN.fullmatch(path.name)}
        for name in sorted(names):
            if Path(name).suffix or (file := self._described(FileId(name))) is None:
                is_description = name.endswith(".json") and name.removesuffix(".json") in names
                if not (is_description and self._is_kept):
                    (self._folder / name).unlink(missing_ok=True)
                if not Path(name).suffix:
                    self._unlink(FileId(name))
            else:
                yield file

    def _described(self, file_id: FileId) -> StoredFile | None:
        if not self._is_kept:
            return None
        path = self._folder / file_id
        try:
            file = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=StoredFile)
            is_whole = file.id == file_id and file.bytes == path.stat().st_size
        except (OSError, msgspec.DecodeError):
            return None
        return file if is_whole else None

    def _close_folder(self) -> None:
        if not self._is_kept:
            if self._wanted is None:
                shutil.rmtree(self._folder, ignore_errors=True)
            else:
                for path in self._folder.iterdir():
                    if _OWN.fullmatch(path.name):
                        path.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()


def _locked(folder: Path) -> FileIO | None:
    """Take the folder's lock, which is held by the open file. None: another process has it."""
    lock = FileIO(os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+")
    try:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _remove_abandoned(place: Path, before: float) -> None:
    """Remove the temporary folders of servers that were killed, if they were made *before* that time."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it has gone meanwhile, or isn't ours after all
            status = folder.lstat()
            if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode) or status.st_mtime > before:
                continue
            lock = _locked(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                lock.close()


class _DiskUpload:
    """One file while it is being written. One call at a time."""

    def __init__(self, files: DiskFiles, reservation: Reservation, folder: Path) -> None:
        self.is_committed = False
        self._files = files
        self._reservation = reservation
        self._id = new_file_id()
        self._path = folder / f"{self._id}.part"
        self._is_over = False
        self._guard = threading.Lock()  # a write that nobody waits for any more may still be going on
        self._file: BufferedWriter | None = None  # from the first write on
        self._is_discarded = False

    async def write(self, data: bytes) -> None:
        """See :meth:`Upload.write`."""
        if self._is_over:
            raise FilesUnavailable
        self._reservation.grow(len(data))
        await self._files._attempt(lambda: self._write(data))

    async def commit(self, details: FileDetails) -> StoredFile:
        """See :meth:`Upload.commit`."""
        if self._is_over:
            raise FilesUnavailable
        self._is_over = True
        file = self._files.describe(details, self._reservation, self._id)
        await self._files._attempt(lambda: self._finish(file))
        self._files.keep(file, self._reservation)
        self.is_committed = True
        return file

    # In a thread.

    def _write(self, data: bytes) -> None:
        with self._guard:
            self._opened().write(data)

    def _finish(self, file: StoredFile) -> None:
        with self._guard:
            self._opened().close()
            self._files.settle(self._path, file)

    def _opened(self) -> BufferedWriter:
        if self._is_discarded:
            raise OSError("can't happen to anybody who waits for it")
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._file = BufferedWriter(FileIO(os.open(self._path, flags, 0o600), "w"))
        return self._file

    def discard(self) -> None:
        """Leave nothing."""
        with self._guard:
            self._is_discarded = True
            if self._file is not None:
                with suppress(OSError):  # what is in its buffer may not fit onto the disk
                    self._file.close()
            self._path.unlink(missing_ok=True)
            self._files._unlink(self._id)


class _DiskReader:
    """One file while it is being read, in threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()  # as above
        self._file: FileIO | None = None
        self._is_closed = False

    def read(self) -> bytes:
        """Return the next piece; empty: that was all."""
        with self._guard:
            if self._is_closed:
                return b""
            if self._file is None:
                self._file = FileIO(os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW), "r")
            return self._file.read(_PIECE)

    def close(self) -> None:
        """Close the file, if it was opened."""
        with self._guard:
            self._is_closed = True
            if self._file is not None:
                self._file.close()
