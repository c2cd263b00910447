"""Files on a disk, in a folder of their own (:mod:`unbroken.server.files.folder`).

All disk work is done by a few threads of its own: a slow disk holds up uploads, not the event loop,
nor what else the process does in threads. Nothing is forced onto the medium: a machine that loses its
power may lose files.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from io import BufferedWriter, FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.fair_names import FairName
from unbroken.server.files.base import (
    FileDetails,
    FileLimits,
    FileNotFound,
    FilesUnavailable,
    StoredFile,
    Upload,
    new_file_id,
)
from unbroken.server.files.expiry import Expiry
from unbroken.server.files.folder import Folder
from unbroken.server.files.ledger import Ledger, Reservation
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import PrincipalId

__all__ = ["DiskFiles"]

_PIECE: Final = 65536
_THREADS: Final = 4

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
        fair_name: For whom a principal's files count.

    """

    def __init__(
        self,
        limits: FileLimits,
        clock: Clock,
        folder: Path | None = None,
        *,
        is_kept: bool = False,
        fair_name: FairName = str,
    ) -> None:
        self.limits = limits
        self._clock = clock
        self._folder = Folder(folder, is_kept=is_kept)
        self._ledger = Ledger(limits, fair_name)
        self._expiry = Expiry(self._ledger, clock, self._remove_expired)
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
        now = self._clock.time()
        try:
            kept = await self._in_thread(lambda: self._folder.open(now))
        except BaseException as error:
            await self._stop_threads()
            if not isinstance(error, OSError):
                raise
            raise FilesUnavailable(
                f"Files can't be kept {self._folder.place}: {error.strerror or error}. "
                "Set UNBROKEN_FILES_DIR to a folder that can be written."
            ) from None
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
        await asyncio.shield(self._clear(self._folder.close))
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
        reader = _DiskReader(self._folder.path(file.id))
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
        await asyncio.shield(self._clear(lambda: self._folder.remove([file.id])))

    # What uploads need.

    def keep(self, file: StoredFile, reservation: Reservation) -> None:
        """Take in a file that is on the disk."""
        self._ledger.add(file, reservation)
        self._expiry.note(file.expires_at)

    def now(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self._clock.time()

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
        files = self._ledger.expire(self._clock.time())
        if files:
            self._clear(lambda: self._folder.remove([file.id for file in files]))

    async def _stop_threads(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)


class _DiskUpload:
    """One file while it is being written. One call at a time."""

    def __init__(self, files: DiskFiles, reservation: Reservation, folder: Folder) -> None:
        self.is_committed = False
        self._files = files
        self._reservation = reservation
        self._id = new_file_id()
        self._folder = folder
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
        file = self._reservation.file(details, self._id, self._files.now())
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
            self._folder.settle(file)

    def _opened(self) -> BufferedWriter:
        if self._is_discarded:
            raise OSError("can't happen to anybody who waits for it")
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._file = BufferedWriter(FileIO(os.open(self._folder.part(self._id), flags, 0o600), "w"))
        return self._file

    def discard(self) -> None:
        """Leave nothing."""
        with self._guard:
            self._is_discarded = True
            if self._file is not None:
                with suppress(OSError):  # what is in its buffer may not fit onto the disk
                    self._file.close()
            self._folder.remove([self._id])


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
