"""The folder in which files lie: what is what there, whose it is, and what a crash has left.

A file's name there is its id; what the client called it is never part of a path. While it is being
written it has the suffix ``.part``. Where files are meant to stay, a description of each lies beside it,
under its id with the suffix ``.json``, and is written first: a file without one is none. Whatever else
has such a name is removed at the start; nothing of another name is ever touched.

One store at a time uses a folder: it holds the lock on a file in it, which ends with its process.

Everything here takes as long as the disk does: it is for threads.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

import msgspec

from unbroken.server.files.base import FileId, StoredFile

__all__ = ["Folder"]

_OWN: Final = re.compile(r"file-[0-9a-f]{32}(\.part|\.json)?")
_LOCK: Final = "lock"
_PREFIX: Final = "unbroken-files-"
_ABANDONED_AFTER: Final = 60.0
"""Seconds. A folder is made a moment before it is locked."""
_TRIES: Final = 5


class Folder:
    """One folder, from :meth:`open` to :meth:`close`.

    Args:
        wanted: Where, made if need be. None: a new one among the system's temporary files.
        is_kept: Whether files are described, found again, and left there at the end.

    """

    def __init__(self, wanted: Path | None, *, is_kept: bool) -> None:
        self.place = "among the temporary files" if wanted is None else f"in {wanted}"
        """Where it is, for people."""
        self._wanted = wanted
        self._is_kept = is_kept and wanted is not None
        self._path = Path()  # from opening on
        self._lock: FileIO | None = None

    def open(self, now: float) -> list[StoredFile]:
        """Begin, and return the files that are there from before.

        Raises:
            OSError: It can't be used.

        """
        if self._wanted is None:
            _remove_abandoned(Path(tempfile.gettempdir()), now - _ABANDONED_AFTER)
            self._path, self._lock = _new()
        else:
            self._path = self._wanted.absolute()
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if all(path.name == _LOCK or _OWN.fullmatch(path.name) for path in self._path.iterdir()):
                self._path.chmod(0o700)  # else it is others' too, and may well be /tmp
            self._lock = _locked(self._path)
        if self._lock is None:
            raise OSError("another server uses the folder; give each its own")
        return list(self._found())

    def close(self) -> None:
        """Remove what isn't meant to stay. Harmless where it was never opened."""
        if self._lock is None:
            return
        try:
            if self._wanted is None:
                shutil.rmtree(self._path, ignore_errors=True)
            elif not self._is_kept:
                for name in self._names():
                    (self._path / name).unlink(missing_ok=True)
        finally:
            self._lock.close()

    def path(self, file_id: FileId) -> Path:
        """Return where a file is."""
        return self._path / file_id

    def part(self, file_id: FileId) -> Path:
        """Return where a file is while it is being written."""
        return self._path / f"{file_id}.part"

    def settle(self, file: StoredFile) -> None:
        """Make what was written a file."""
        if self._is_kept:
            description = self._description(file.id)
            description.touch(0o600)
            description.write_bytes(msgspec.json.encode(file))
        self.part(file.id).rename(self.path(file.id))

    def remove(self, file_ids: Iterable[FileId]) -> None:
        """Remove files, whole or not. Harmless where they are gone."""
        for file_id in file_ids:
            for path in (self._description(file_id), self.path(file_id), self.part(file_id)):
                path.unlink(missing_ok=True)

    def _description(self, file_id: FileId) -> Path:
        return self._path / f"{file_id}.json"

    def _names(self) -> list[str]:
        return [path.name for path in self._path.iterdir() if _OWN.fullmatch(path.name)]

    def _found(self) -> Iterator[StoredFile]:
        """Yield the files that are there from before, and remove what is left of others."""
        for file_id in sorted({FileId(name.partition(".")[0]) for name in self._names()}):
            file = self._described(file_id) if self._is_kept else None
            if file is None:
                self.remove([file_id])
            else:
                self.part(file_id).unlink(missing_ok=True)
                yield file

    def _described(self, file_id: FileId) -> StoredFile | None:
        try:
            file = msgspec.json.decode(self._description(file_id).read_bytes(), type=StoredFile)
            is_whole = file.id == file_id and file.bytes == self.path(file_id).stat().st_size
        except (OSError, msgspec.DecodeError):
            return None
        return file if is_whole else None


def _new() -> tuple[Path, FileIO | None]:
    """Make a temporary folder and lock it. One that a server with another clock took for abandoned in between
    is left to it.
    """
    path = Path()
    for _ in range(_TRIES):
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with suppress(FileNotFoundError):
            if (lock := _locked(path)) is not None:
                return path, lock
    return path, None


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
