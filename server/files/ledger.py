"""The accounts of a file store: what there is, whose it is, how much more there may be. No I/O, no clock."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count
from typing import Final

from unbroken.server.fair_names import FairName, is_strangers
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
    """What counts for one, a principal or the strangers of one address, with what is being uploaded."""

    bytes: int = 0
    uploads: int = 0
    files: int = 0


class Reservation:
    """What one upload takes, from its beginning to its end."""

    def __init__(self, ledger: Ledger, principal: PrincipalId, holder: str) -> None:
        self.principal = principal
        self.holder = holder
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
            holder="" if self.holder == self.principal else self.holder,
        )

    def release(self) -> None:
        """Give back what was taken: the upload has come to nothing. Harmless after :meth:`Ledger.add`."""
        self._ledger._release(self)


class Ledger:
    """Says what may be written, and finds what was.

    Args:
        limits: How much.
        fair_name: For whom a principal's files count.

    """

    def __init__(self, limits: FileLimits, fair_name: FairName = str) -> None:
        self.limits = limits
        self.size = 0
        """Bytes of all files, and of those being uploaded, with :data:`OVERHEAD` for each."""
        self._files: dict[FileId, StoredFile] = {}
        self._fair_name = fair_name
        self._holdings: dict[str, _Holding] = {}
        self._owned: dict[PrincipalId, dict[FileId, StoredFile]] = {}
        self._strangers_bytes = 0  # of all of them
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
        holder = self._fair_name(principal)
        holding = self._holdings.get(holder) or _Holding()
        if holding.files + holding.uploads >= self.limits.principal_files:
            raise TooManyFiles
        self._check(holder, holding, OVERHEAD)
        self._holdings[holder] = holding
        holding.uploads += 1
        self._count(holder, OVERHEAD)
        reservation = Reservation(self, principal, holder)
        self._open.add(reservation)
        return reservation

    def _grow(self, reservation: Reservation, size: int) -> None:
        holder = reservation.holder
        if reservation.bytes + size > self.limits.file_bytes:
            raise FileTooLarge(self.limits.file_bytes)
        self._check(holder, self._holdings[holder], size)
        reservation.bytes += size
        self._count(holder, size)

    def _check(self, holder: str, holding: _Holding, size: int) -> None:
        if holding.bytes + size > self._principal_bytes:
            raise TooManyFiles
        if self.size + size > self._node_bytes:
            raise FilesFull
        if is_strangers(holder) and self._strangers_bytes + size > self.limits.strangers_bytes:
            raise FilesFull

    def _count(self, holder: str, size: int) -> None:
        self._holdings[holder].bytes += size
        self.size += size
        self._strangers_bytes += size if is_strangers(holder) else 0

    def _release(self, reservation: Reservation) -> None:
        if reservation in self._open:
            self._open.remove(reservation)
            self._holdings[reservation.holder].uploads -= 1
            self._give_back(reservation.holder, OVERHEAD + reservation.bytes)

    def add(self, file: StoredFile, reservation: Reservation) -> None:
        """Make an upload a file: what was reserved is the file's from now on."""
        self._open.remove(reservation)
        holding = self._holdings[reservation.holder]
        holding.uploads -= 1
        self._put(file, holding)

    def restore(self, file: StoredFile) -> None:
        """Take in a file from before. It is there, so it counts, whatever the bounds are by now."""
        holder = _holder(file)
        self._put(file, self._holdings.setdefault(holder, _Holding()))
        self._count(holder, OVERHEAD + file.bytes)

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
        owned = self._owned.get(principal)
        return [file for file in owned.values() if file.expires_at > now] if owned else []

    def remove(self, file: StoredFile) -> None:
        """Forget a file. Harmless if it is forgotten already."""
        if self._files.pop(file.id, None) is not None:
            holder = _holder(file)
            owned = self._owned[file.principal]
            del owned[file.id]
            if not owned:
                del self._owned[file.principal]
            self._holdings[holder].files -= 1
            self._give_back(holder, OVERHEAD + file.bytes)

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
        holding.files += 1
        self._owned.setdefault(file.principal, {})[file.id] = file
        self._files[file.id] = file
        if len(self._dates) >= 2 * len(self._files) + _STALE:
            # Who uploads and deletes again and again must not fill it.
            self._dates = [date for date in self._dates if date[2].id in self._files]
            heapq.heapify(self._dates)
        heapq.heappush(self._dates, (file.expires_at, next(self._number), file))

    def _give_back(self, holder: str, size: int) -> None:
        self._count(holder, -size)
        holding = self._holdings[holder]
        if not (holding.files or holding.uploads):
            del self._holdings[holder]


def _holder(file: StoredFile) -> str:
    return file.holder or file.principal
