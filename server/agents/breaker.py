"""A circuit breaker: it keeps turns from waiting for an upstream that is known to fail.

::

    closed     turns go through; failures are counted
    open       nothing goes through until the cool-down is over
    half open  one turn, the probe, goes through; how it ends decides

No task and no timer: what time it is matters only when somebody asks. This
module does no I/O.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from unbroken.sessions.clock import Clock

__all__ = ["Admission", "Breaker", "BreakerLimits", "BreakerState"]


class BreakerState(enum.Enum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class _Signal(enum.Enum):
    TRIPPED = enum.auto()  # enough failures within the window, or one that is enough
    PROBED = enum.auto()  # somebody came after the cool-down
    PASSED = enum.auto()  # the probe succeeded
    FAILED = enum.auto()  # the probe failed
    ABANDONED = enum.auto()  # the probe was stopped before it showed anything


_TRANSITIONS: Final[Mapping[tuple[BreakerState, _Signal], BreakerState]] = MappingProxyType(
    {
        (BreakerState.CLOSED, _Signal.TRIPPED): BreakerState.OPEN,
        (BreakerState.OPEN, _Signal.PROBED): BreakerState.HALF_OPEN,
        (BreakerState.HALF_OPEN, _Signal.PASSED): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, _Signal.FAILED): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, _Signal.ABANDONED): BreakerState.OPEN,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerLimits:
    """When a breaker opens, and for how long. Times are in seconds."""

    failures: int = 5
    """So many within *window* open it."""
    window: float = 60.0
    cooldown: float = 30.0
    """How long it stays open; longer where the upstream asks for it."""
    longest_cooldown: float = 300.0
    """However long the upstream asks for."""


class Admission:
    """Leave to try once."""

    def __init__(self, breaker: Breaker, is_probe: bool) -> None:
        self._breaker: Breaker | None = breaker  # None: it has failed
        self._is_probe = is_probe  # and the verdict is still out

    def succeed(self) -> None:
        """Say that it works. It may still fail later."""
        if self._breaker is not None and self._is_probe:
            self._is_probe = False
            self._breaker._move(_Signal.PASSED)

    def fail(self, *, is_final: bool = False, retry_after: float | None = None) -> None:
        """Say that it doesn't. The first time counts.

        Args:
            is_final: Trying again is known to be vain: the breaker opens at once.
            retry_after: Seconds that the upstream asks to be left alone.

        """
        breaker, self._breaker = self._breaker, None
        if breaker is None:
            return
        if self._is_probe:
            breaker._open(_Signal.FAILED, retry_after)
        else:
            breaker._count(is_final, retry_after)

    def release(self) -> None:
        """Say nothing: it was stopped. Harmless after the others."""
        if self._breaker is not None and self._is_probe:
            self._is_probe = False
            self._breaker._move(_Signal.ABANDONED)


class Breaker:
    """One upstream's breaker.

    Args:
        limits: When it opens, and for how long.
        clock: What time it is.
        on_change: Called with each new state, after it was entered.

    """

    def __init__(
        self, limits: BreakerLimits, clock: Clock, on_change: Callable[[BreakerState], None]
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._on_change = on_change
        self._state = BreakerState.CLOSED
        self._failures: deque[float] = deque(
            maxlen=limits.failures
        )  # when, oldest first; empty unless closed
        self._open_until = 0.0

    @property
    def state(self) -> BreakerState:
        """Where it stands. It stays open until somebody comes after the cool-down."""
        return self._state

    @property
    def seconds_left(self) -> float:
        """How long nothing will go through; 0 if something could."""
        if self._state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._open_until - self._clock.monotonic())

    def admit(self) -> Admission | None:
        """Return leave to try; None: not now. Whoever gets it must tell how it went, or release it."""
        if self._state is BreakerState.CLOSED:
            return Admission(self, is_probe=False)
        if self._state is BreakerState.OPEN and not self.seconds_left:
            self._move(_Signal.PROBED)
            return Admission(self, is_probe=True)
        return None

    def _count(self, is_final: bool, retry_after: float | None) -> None:
        if self._state is not BreakerState.CLOSED:
            return  # it was let in before the breaker opened, and tells nothing new
        now = self._clock.monotonic()
        self._failures.append(now)
        is_full = len(self._failures) == self._limits.failures
        if is_final or (is_full and now - self._failures[0] <= self._limits.window):
            self._open(_Signal.TRIPPED, retry_after)

    def _open(self, signal: _Signal, retry_after: float | None) -> None:
        limits = self._limits
        seconds = max(limits.cooldown, min(retry_after or 0.0, limits.longest_cooldown))
        self._open_until = self._clock.monotonic() + seconds
        self._move(signal)

    def _move(self, signal: _Signal) -> None:
        self._state = _TRANSITIONS[self._state, signal]
        self._failures.clear()
        self._on_change(self._state)
