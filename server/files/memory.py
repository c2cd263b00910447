"""Files in this process's memory: for tests, and where there is no disk to write to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

from unbroken.server.fair_names import FairName
from unbroken.server.files.base import (
    FileDetails,
    FileId,
    FileLimits,
    FilesUnavailable,
    StoredFile,
    Upload,
    new_file_id,
)
from unbroken.server.files.expiry import Expiry
from unbroken.server.files.ledger import Ledger, Reservation
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import PrincipalId

__all__ = ["MemoryFiles"]

_PIECE: Final = 65536


class MemoryFiles:
    """A :class:`~unbroken.server.files.base.FileStore` that is gone when the process is."""

    def __init__(self, limits: FileLimits, clock: Clock, fair_name: FairName = str) -> None:
        self.limits = limits
        self._clock = clock
        self._fair_name = fair_name
        self._ledger = Ledger(limits, fair_name)
        self._contents: dict[FileId, bytes] = {}
        self._expiry = Expiry(self._ledger, clock, self._remove_expired)

    @property
    def count(self) -> int:
        """See :attr:`FileStore.count`."""
        return len(self._ledger)

    @property
    def size(self) -> int:
        """See :attr:`FileStore.size`."""
        return self._ledger.size

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._expiry.stop()
        self._contents.clear()
        self._ledger = Ledger(self.limits, self._fair_name)

    @asynccontextmanager
    async def upload(self, principal: PrincipalId) -> AsyncIterator[Upload]:
        """See :meth:`FileStore.upload`."""
        reservation = self._ledger.reserve(principal)
        try:
            yield _MemoryUpload(self, reservation)
        finally:
            reservation.release()

    async def stat(self, file_id: str, principal: PrincipalId) -> StoredFile:
        """See :meth:`FileStore.stat`."""
        return self._ledger.find(file_id, principal, self._clock.time())

    async def read(self, file_id: str, principal: PrincipalId) -> AsyncGenerator[bytes, None]:
        """See :meth:`FileStore.read`."""
        file = self._ledger.find(file_id, principal, self._clock.time())
        content = memoryview(self._contents[file.id])
        for start in range(0, len(content), _PIECE):
            yield bytes(content[start : start + _PIECE])

    async def of(self, principal: PrincipalId) -> list[StoredFile]:
        """See :meth:`FileStore.of`."""
        return self._ledger.of(principal, self._clock.time())

    async def delete(self, file_id: str, principal: PrincipalId) -> None:
        """See :meth:`FileStore.delete`."""
        self._forget(self._ledger.find(file_id, principal, self._clock.time()))

    def _keep(self, reservation: Reservation, content: bytes, details: FileDetails) -> StoredFile:
        file = reservation.file(details, new_file_id(), self._clock.time())
        self._contents[file.id] = content
        self._ledger.add(file, reservation)
        self._expiry.note(file.expires_at)
        return file

    def _remove_expired(self) -> None:
        for file in self._ledger.expire(self._clock.time()):
            del self._contents[file.id]

    def _forget(self, file: StoredFile) -> None:
        self._ledger.remove(file)
        del self._contents[file.id]


class _MemoryUpload:
    def __init__(self, files: MemoryFiles, reservation: Reservation) -> None:
        self._files = files
        self._reservation = reservation
        self._content: bytearray | None = bytearray()

    async def write(self, data: bytes) -> None:
        if self._content is None:
            raise FilesUnavailable
        self._reservation.grow(len(data))
        self._content += data

    async def commit(self, details: FileDetails) -> StoredFile:
        content, self._content = self._content, None
        if content is None:
            raise FilesUnavailable
        return self._files._keep(self._reservation, bytes(content), details)
