"""The accounts of a file store: what there is, whose it is, how much more there may be. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
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
bounds on bytes bound the number of files, too."""


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
        if holding.bytes + size > self.limits.principal_bytes:
            raise TooManyFiles
        if self.size + size > self.limits.node_bytes:
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
        holding.files[file.id] = file
        self._files[file.id] = file

    def restore(self, file: StoredFile) -> None:
        """Take in a file from before. It is there, so it counts, whatever the bounds are by now."""
        holding = self._holdings.setdefault(file.principal, _Holding())
        holding.files[file.id] = file
        holding.bytes += OVERHEAD + file.bytes
        self._files[file.id] = file
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

    def expired(self, now: float) -> list[StoredFile]:
        """Return the files that have expired by *now*, and are still here."""
        return [file for file in self._files.values() if file.expires_at <= now]

    @property
    def next_expiry(self) -> float | None:
        """When the next file expires; None: there is none."""
        return min((file.expires_at for file in self._files.values()), default=None)

    def _give_back(self, principal: PrincipalId, size: int) -> None:
        holding = self._holdings[principal]
        holding.bytes -= size
        self.size -= size
        if not (holding.files or holding.uploads):
            del self._holdings[principal]
