"""How the agent of a turn reads what its messages refer to: bounded for it, and for all turns together."""

from __future__ import annotations

from contextlib import aclosing
from typing import Protocol

from unbroken.server.files.base import FileNotFound, FileStore
from unbroken.sessions.ids import PrincipalId
from unbroken.sessions.items import Reference

__all__ = ["FileReader", "FileReading", "NoFiles", "ReadingBusy", "TooMuchToRead", "TurnFiles"]


class TooMuchToRead(Exception):
    """The turn has read as much as one may."""


class ReadingBusy(Exception):
    """All turns together hold as much as they may."""


class FileReader(Protocol):
    """Reads the files of one turn."""

    async def read(self, part: Reference) -> bytes:
        """Return the content that *part* refers to, whole. It counts until the turn's end, and only once.

        Raises:
            FileNotFound: It has expired, or was deleted.
            FilesUnavailable: It can't be read at the moment.
            TooMuchToRead: It would be more than a turn may read.
            ReadingBusy: The server's turns hold as much as they may.

        """


class NoFiles:
    """A reader where there are no files."""

    async def read(self, part: Reference) -> bytes:  # noqa: ARG002 - the signature is the interface's
        """See :meth:`FileReader.read`: there is none."""
        raise FileNotFound


class FileReading:
    """The bounds on what turns read.

    Args:
        store: Where files are. None: nowhere.
        turn_bytes: What one turn may read.
        node_bytes: What all turns that run may have read.

    """

    def __init__(self, store: FileStore | None, *, turn_bytes: int, node_bytes: int) -> None:
        self.turn_bytes = turn_bytes
        self.held = 0
        """Bytes that running turns have read."""
        self._store = store
        self._node_bytes = node_bytes

    def for_turn(self, principal: PrincipalId) -> TurnFiles:
        """Return a reader for a turn of *principal*. It must be closed."""
        return TurnFiles(self, self._store, principal)

    def take(self, size: int) -> None:
        """Count *size* bytes more.

        Raises:
            ReadingBusy: They would be too many.

        """
        if self.held + size > self._node_bytes:
            raise ReadingBusy
        self.held += size

    def give_back(self, size: int) -> None:
        """Count *size* bytes less."""
        self.held -= size


class TurnFiles:
    """A :class:`FileReader` for one turn, until it is closed."""

    def __init__(self, reading: FileReading, store: FileStore | None, principal: PrincipalId) -> None:
        self._reading = reading
        self._store = store
        self._principal = principal
        self._held = 0
        self._counted: set[str] = set()  # files: each round of a turn reads them anew
        self._is_closed = False

    async def read(self, part: Reference) -> bytes:
        """See :meth:`FileReader.read`."""
        if self._store is None or self._is_closed:
            raise FileNotFound
        file = await self._store.stat(part.file_id, self._principal)
        if file.id not in self._counted:
            if self._held + file.bytes > self._reading.turn_bytes:
                raise TooMuchToRead
            self._reading.take(file.bytes)
            self._held += file.bytes
            self._counted.add(file.id)
        async with aclosing(self._store.read(file.id, self._principal)) as pieces:
            return b"".join([piece async for piece in pieces])

    def close(self) -> None:
        """The turn is over: what it read doesn't count any more."""
        self._reading.give_back(self._held)
        self._held, self._is_closed = 0, True
