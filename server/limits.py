"""What one connection may do, and how rates are counted. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ConnectionBounds", "ConnectionLimits", "Rate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Bounds on one connection. The size of a frame is the transport's to check, before it is whole."""

    frame_depth: int = 32
    """How deeply an event may be nested."""
    input_queue: int = 64
    """Events that may wait to be taken; what comes beyond is refused."""
    close_timeout: float = 5.0
    """Seconds that a client which doesn't read is given to take the last frames."""
    idle_timeout: float = 0.0
    """Seconds without a message either way, and a response that runs, after which it is closed; 0: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionBounds:
    """How many connections somebody's plan allows at once. None: it doesn't say."""

    user: int | None = None
    tenant: int | None = None
    """Of all its users."""
    counts_tenant: bool = False
    """Whether a tenant's are counted, bound or not: another plan bounds them, and it may have both."""
    address: int | None = None
    is_shadow: bool = False
    """Whether these refuse nobody, and who would be is counted."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So much per second, and so much at once: the generic cell rate algorithm (ITU-T I.371, annex A).

    An account is a single number, kept by whoever has it: the time at which
    all that was spent will have been earned. It begins as 0.0, and one that
    lies in the past is as good as new.
    """

    per_second: float
    burst: float

    def spent(self, account: float, now: float, amount: float) -> float:
        """Return *account* after *amount* more."""
        return max(account, now) + amount / self.per_second

    def debt(self, account: float, now: float) -> float:
        """Return the seconds until *account* is within the rate; 0 or less: it is."""
        return account - now - self.burst / self.per_second
