"""The interface of what keeps files, and what it guarantees.

- **Whole or not at all.** A file is there once :meth:`Upload.commit` has returned. Whatever ends an
  upload before that (an error, cancellation, the end of the process), nothing is left of it, and
  what it took is free again.
- **Bounds while writing.** Bytes count against the file's, the principal's and the node's bound when
  they are written, not when the file is whole: uploads that run at once can't go beyond together.
  Strangers, each of whom is a principal, count as one where they are of one address, and all of them
  together have a bound below the node's: there is room left for the others.
- **Ids are random**, 128 bits: one says nothing about another, and none can be guessed.
- **A file belongs to a principal.** To all others it is exactly as one that never was.
- **Expiry.** From its ``expires_at`` on a file is unknown. What it takes is freed soon after.
  A reader that has begun reads to the end.
- Content never changes.

A store is an asynchronous context manager; it is used inside only. One that several
nodes share keeps the same guarantees, its bounds being those of all of them.

::

    FileError
    +-- FileNotFound       there is no such file (any more) for this principal
    +-- FileTooLarge       it is larger than one may be
    +-- TooManyFiles       the principal holds as many files, or bytes, as it may
    +-- FilesFull          the node holds as many bytes as it may, or as strangers may
    +-- FilesUnavailable   the place where they are kept can't be used
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NewType, Protocol, Self

from unbroken.sessions.ids import PrincipalId

__all__ = [
    "FileDetails",
    "FileError",
    "FileId",
    "FileLimits",
    "FileNotFound",
    "FileStore",
    "FileTooLarge",
    "FilesFull",
    "FilesUnavailable",
    "StoredFile",
    "TooManyFiles",
    "Upload",
    "is_file_id",
    "new_file_id",
]

FileId = NewType("FileId", str)
"""One file. 128 random bits; yet it is no credential."""

_ID: Final = re.compile(r"file-[0-9a-f]{32}")


def new_file_id() -> FileId:
    """Return a fresh id."""
    return FileId("file-" + secrets.token_hex(16))


def is_file_id(text: str) -> bool:
    """Return whether *text* looks like an id of ours."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """What a store holds."""

    file_bytes: int = 16 << 20
    principal_bytes: int = 256 << 20
    node_bytes: int = 2 << 30
    strangers_bytes: int = 1 << 30
    """Of these, what all strangers together may have."""
    principal_files: int = 1000
    """Files of one principal, those being uploaded included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDetails:
    """What is said of a file when it is whole."""

    name: str
    """For people. No path is ever made of it."""
    media_type: str
    """Of the content, as somebody has seen."""
    purpose: str
    lifetime: float
    """Seconds until it expires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that is there. Times are in seconds since the epoch."""

    id: FileId
    principal: PrincipalId
    name: str
    media_type: str
    bytes: int
    purpose: str
    created_at: float
    expires_at: float
    holder: str = ""
    """Whom it counts for, where that isn't the principal: all strangers of one address."""


class FileError(Exception):
    """What was asked of a store can't be done."""


class FileNotFound(FileError):
    """There is no such file: there never was, it has expired, or it is another's. Nobody can tell which."""

    def __str__(self) -> str:
        return "There is no such file. It may have expired: upload it again."


class FileTooLarge(FileError):
    """It is larger than a file may be."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return f"A file may have up to {self.most} bytes."


class TooManyFiles(FileError):
    """The principal holds as much as it may."""

    def __str__(self) -> str:
        return "You hold as many files as you may. Delete some, or wait until they expire."


class FilesFull(FileError):
    """The node holds as much as it may; or as strangers may, of whom this is one."""

    def __str__(self) -> str:
        return "The server has no room for files. Try again later."


class FilesUnavailable(FileError):
    """The place where files are kept can't be used: a full disk, a folder without rights.

    A store that can't start says to the operator what is wrong. Otherwise the text is for clients.
    """

    def __init__(self, message: str = "Files can't be kept at the moment. Try again later.") -> None:
        super().__init__(message)


class Upload(Protocol):
    """A file that is being written. Use it inside :meth:`FileStore.upload` only."""

    async def write(self, data: bytes) -> None:
        """Add *data*.

        Raises:
            FileTooLarge, TooManyFiles, FilesFull, FilesUnavailable: The upload is over.

        """

    async def commit(self, details: FileDetails) -> StoredFile:
        """Make it a file, and return it. Called once, as the last.

        Raises:
            FilesUnavailable: It isn't one.

        """


class FileStore(Protocol):
    """Keeps files. The module's text says what is guaranteed."""

    @property
    def limits(self) -> FileLimits:
        """What it holds."""

    @property
    def count(self) -> int:
        """How many files there are."""

    @property
    def size(self) -> int:
        """Bytes of all files, and of those being uploaded, with 4 KiB for each on top."""

    async def __aenter__(self) -> Self:
        """Start.

        Raises:
            FilesUnavailable: It can't, for the reason that the text tells the operator.

        """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and free what isn't meant to stay."""

    def upload(self, principal: PrincipalId) -> AbstractAsyncContextManager[Upload]:
        """Begin a file of *principal*.

        Entering raises:
            TooManyFiles: It has as many as it may.
            FilesFull: The node has no room for another one.
            FilesUnavailable: It can't be begun.

        """

    async def stat(self, file_id: str, principal: PrincipalId) -> StoredFile:
        """Return what is known of a file.

        Raises:
            FileNotFound: There is none for *principal*.

        """

    def read(self, file_id: str, principal: PrincipalId) -> AsyncGenerator[bytes, None]:
        """Yield a file's content, in pieces of 64 KiB at most.

        Raises:
            FileNotFound: At the first piece: there is none for *principal*.
            FilesUnavailable: It can't be read.

        """

    async def of(self, principal: PrincipalId) -> list[StoredFile]:
        """Return the files of *principal*, in the order in which they became whole."""

    async def delete(self, file_id: str, principal: PrincipalId) -> None:
        """Remove a file.

        Raises:
            FileNotFound: There is none for *principal*.

        """
