"""The accounts of a file store: what there is, whose it is, how much more there may be. No I/O, no clock."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from unbroken.server.files.base import (
    FileDetails,
    FileId,
    FileLimits,
    FileNotFound,
    FilesFull,
    FileTooLarge,
    StoredFile,
    TooManyFiles,
)
from unbroken.sessions.ids import PrincipalId

__all__ = ["OVERHEAD", "Ledger", "Reservation"]

OVERHEAD: Final = 4096
"""Bytes that each file counts for beside its content: a block on a disk, and what is known of it. So
bounds on bytes bound the number of files, too. They never keep out a file as large as one may be."""

_STALE: Final = 64
"""Dates of files that are gone which are kept at the least, whatever the number of files."""


@dataclass(slots=True)
class _Holding:
    """What one principal has, with what is being uploaded."""

    bytes: int = 0
    uploads: int = 0
    files: dict[FileId, StoredFile] = field(default_factory=dict)


class Reservation:
    """What one upload takes, from its beginning to its end."""

    def __init__(self, ledger: Ledger, principal: PrincipalId) -> None:
        self.principal = principal
        self.bytes = 0
        self._ledger = ledger

    def grow(self, size: int) -> None:
        """Take *size* bytes more.

        Raises:
            FileTooLarge, TooManyFiles, FilesFull: They can't be had; none was taken.

        """
        self._ledger._grow(self, size)

    def file(self, details: FileDetails, file_id: FileId, now: float) -> StoredFile:
        """Return what is known of it as a file that is whole at *now*."""
        return StoredFile(
            id=file_id,
            principal=self.principal,
            name=details.name,
            media_type=details.media_type,
            bytes=self.bytes,
            purpose=details.purpose,
            created_at=now,
            expires_at=now + details.lifetime,
        )

    def release(self) -> None:
        """Give back what was taken: the upload has come to nothing. Harmless after :meth:`Ledger.add`."""
        self._ledger._release(self)


class Ledger:
    """Says what may be written, and finds what was."""

    def __init__(self, limits: FileLimits) -> None:
        self.limits = limits
        self.size = 0
        """Bytes of all files, and of those being uploaded, with :data:`OVERHEAD` for each."""
        self._files: dict[FileId, StoredFile] = {}
        self._holdings: dict[PrincipalId, _Holding] = {}
        self._open: set[Reservation] = set()
        largest = limits.file_bytes + OVERHEAD
        self._principal_bytes = max(limits.principal_bytes, largest)
        self._node_bytes = max(limits.node_bytes, largest)
        # When files expire, the next one first: with those that were removed before, until they come up,
        # or there are more of them than of others. The number is for dates that are the same.
        self._dates: list[tuple[float, int, StoredFile]] = []
        self._number = count()

    def __len__(self) -> int:
        return len(self._files)

    def reserve(self, principal: PrincipalId) -> Reservation:
        """Begin an upload.

        Raises:
            TooManyFiles: *principal* has as many files as it may.
            FilesFull: The node has no room for another one.

        """
        holding = self._holdings.get(principal) or _Holding()
        if len(holding.files) + holding.uploads >= self.limits.principal_files:
            raise TooManyFiles
        self._check(holding, OVERHEAD)
        self._holdings[principal] = holding
        holding.uploads += 1
        holding.bytes += OVERHEAD
        self.size += OVERHEAD
        reservation = Reservation(self, principal)
        self._open.add(reservation)
        return reservation

    def _grow(self, reservation: Reservation, size: int) -> None:
        holding = self._holdings[reservation.principal]
        if reservation.bytes + size > self.limits.file_bytes:
            raise FileTooLarge(self.limits.file_bytes)
        self._check(holding, size)
        reservation.bytes += size
        holding.bytes += size
        self.size += size

    def _check(self, holding: _Holding, size: int) -> None:
        if holding.bytes + size > self._principal_bytes:
            raise TooManyFiles
        if self.size + size > self._node_bytes:
            raise FilesFull

    def _release(self, reservation: Reservation) -> None:
        if reservation in self._open:
            self._open.remove(reservation)
            self._holdings[reservation.principal].uploads -= 1
            self._give_back(reservation.principal, OVERHEAD + reservation.bytes)

    def add(self, file: StoredFile, reservation: Reservation) -> None:
        """Make an upload a file: what was reserved is the file's from now on."""
        self._open.remove(reservation)
        holding = self._holdings[file.principal]
        holding.uploads -= 1
        self._put(file, holding)

    def restore(self, file: StoredFile) -> None:
        """Take in a file from before. It is there, so it counts, whatever the bounds are by now."""
        holding = self._holdings.setdefault(file.principal, _Holding())
        self._put(file, holding)
        holding.bytes += OVERHEAD + file.bytes
        self.size += OVERHEAD + file.bytes

    def find(self, file_id: str, principal: PrincipalId, now: float) -> StoredFile:
        """Return a file.

        Raises:
            FileNotFound: There is none for *principal* at *now*.

        """
        file = self._files.get(FileId(file_id))
        if file is None or file.principal != principal or file.expires_at <= now:
            raise FileNotFound
        return file

    def of(self, principal: PrincipalId, now: float) -> list[StoredFile]:
        """Return the files of *principal* at *now*, in the order in which they became whole."""
        holding = self._holdings.get(principal)
        return [file for file in holding.files.values() if file.expires_at > now] if holding else []

    def remove(self, file: StoredFile) -> None:
        """Forget a file. Harmless if it is forgotten already."""
        if self._files.pop(file.id, None) is not None:
            del self._holdings[file.principal].files[file.id]
            self._give_back(file.principal, OVERHEAD + file.bytes)

    def expire(self, now: float) -> list[StoredFile]:
        """Forget the files that have expired by *now*, and return them. The others cost nothing."""
        gone: list[StoredFile] = []
        while (due := self.next_expiry) is not None and due <= now:
            file = heapq.heappop(self._dates)[2]
            self.remove(file)
            gone.append(file)
        return gone

    @property
    def next_expiry(self) -> float | None:
        """When the next file expires; None: there is none."""
        while self._dates and self._dates[0][2].id not in self._files:
            heapq.heappop(self._dates)
        return self._dates[0][0] if self._dates else None

    def _put(self, file: StoredFile, holding: _Holding) -> None:
        holding.files[file.id] = file
        self._files[file.id] = file
        if len(self._dates) >= 2 * len(self._files) + _STALE:
            # Who uploads and deletes again and again must not fill it.
            self._dates = [date for date in self._dates if date[2].id in self._files]
            heapq.heapify(self._dates)
        heapq.heappush(self._dates, (file.expires_at, next(self._number), file))

    def _give_back(self, principal: PrincipalId, size: int) -> None:
        holding = self._holdings[principal]
        holding.bytes -= size
        self.size -= size
        if not (holding.files or holding.uploads):
            del self._holdings[principal]
