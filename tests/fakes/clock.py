"""A clock that stands still until it is told to move."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

__all__ = ["FakeClock"]


class _FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """Implements :class:`unbroken.sessions.clock.Clock`. Fault verbs: :meth:`advance`, :meth:`block`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, _FakeTimer]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_800_000_000.0 + self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> _FakeTimer:
        timer = _FakeTimer(callback)
        heapq.heappush(self._timers, (self.now + delay, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move on, making the calls that come due, in order."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, due)  # it may be late
            if timer.callback is not None:
                timer.callback()
        self.now = max(self.now, end)

    def block(self, seconds: float) -> None:
        """Move on without making any call, as when something holds the loop; then make those due."""
        self.now += seconds
        self.advance(0)

    @property
    def pending(self) -> int:
        """How many calls are still to be made."""
        return sum(timer.callback is not None for _, _, timer in self._timers)
