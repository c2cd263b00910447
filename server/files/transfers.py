"""How many files may be on their way at once, and how slowly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from unbroken.sessions.ids import PrincipalId

__all__ = ["Transfer", "TransferLimits", "Transfers", "TransfersBusy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLimits:
    """Bounds on uploads and downloads. Times are in seconds."""

    at_once: int = 32
    """Of all principals."""
    of_one: int = 8
    """Of one principal."""
    stall_timeout: float = 20.0
    """For the next piece of an upload."""
    patience: float = 30.0
    """For an upload of whatever speed. After it, one must have been faster than ``least_rate`` all in all."""
    least_rate: float = 8192.0
    """Bytes a second."""

    def deadline(self, now: float, began: float, received: int) -> float:
        """Return until when the next piece of an upload must have come."""
        return min(now + self.stall_timeout, began + self.patience + received / self.least_rate)


class TransfersBusy(Exception):
    """As many files are on their way as may be."""

    def __str__(self) -> str:
        return "Too many files are being sent at once. Try again in a moment."


class Transfer:
    """One file on its way."""

    def __init__(self, transfers: Transfers, principal: PrincipalId) -> None:
        self._transfers = transfers
        self._principal: PrincipalId | None = principal

    def end(self) -> None:
        """It has arrived, or never will. Harmless the second time."""
        principal, self._principal = self._principal, None
        if principal is not None:
            self._transfers._end(principal)


class Transfers:
    """Counts what is on its way."""

    def __init__(self, limits: TransferLimits) -> None:
        self.limits = limits
        self._running: Counter[PrincipalId] = Counter()

    @property
    def count(self) -> int:
        """How many there are."""
        return self._running.total()

    def begin(self, principal: PrincipalId) -> Transfer:
        """Begin one; it must be ended.

        Raises:
            TransfersBusy: There are as many as may be.

        """
        if self.count >= self.limits.at_once or self._running[principal] >= self.limits.of_one:
            raise TransfersBusy
        self._running[principal] += 1
        return Transfer(self, principal)

    @contextmanager
    def one(self, principal: PrincipalId) -> Iterator[None]:
        """Have one while inside. Raises as :meth:`begin`."""
        transfer = self.begin(principal)
        try:
            yield
        finally:
            transfer.end()

    def _end(self, principal: PrincipalId) -> None:
        self._running[principal] -= 1
        if not self._running[principal]:
            del self._running[principal]
