"""The event loop's pulse: a timer that sees by how much it is late, and tells who has to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from unbroken.server.overload import Level, Overload
from unbroken.server.throttle import Throttle
from unbroken.sessions.clock import Clock, Timer

__all__ = ["Pulse"]

_INTERVAL: Final = 0.1
"""Seconds from one beat to the next."""

_LONG_BLOCK: Final = 0.5
"""Seconds of lag that are worth a line in the log."""


class Pulse:
    """Measures the lag of the running loop from :meth:`start` to :meth:`stop`, ten times a second.

    The lag is how long something that is due waits until it runs: each token,
    frame and ping waits as long. A beat costs some microseconds.

    Args:
        overload: What decides on the level.
        clock: Where time comes from.
        observe: Told each lag, in seconds.
        on_change: Told each new level.
        is_excused: Whether the loop may be held for long just now: then that isn't logged.

    """

    def __init__(
        self,
        overload: Overload,
        clock: Clock,
        *,
        observe: Callable[[float], None],
        on_change: Callable[[Level], None],
        is_excused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._overload = overload
        self._clock = clock
        self._observe = observe
        self._on_change = on_change
        self._is_excused = is_excused
        self._due = 0.0
        self._timer: Timer | None = None
        self._throttle = Throttle(clock, lines=1)

    def start(self) -> None:
        """Begin."""
        self._schedule(self._clock.monotonic())

    def stop(self) -> None:
        """End. Harmless when it has never begun."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, now: float) -> None:
        self._due = now + _INTERVAL
        self._timer = self._clock.call_later(_INTERVAL, self._beat)

    def _beat(self) -> None:
        now = self._clock.monotonic()
        lag = max(0.0, now - self._due)
        self._schedule(now)
        self._observe(lag)
        if lag >= _LONG_BLOCK and not self._is_excused():
            self._tell(lag)
        before = self._overload.level
        level = self._overload.note(lag, now)
        if level is not before:
            log = structlog.get_logger()
            write = log.warning if level > before else log.info
            write("overload changed", level=level.name.lower(), median_lag=round(self._overload.median, 3))
            self._on_change(level)

    def _tell(self, lag: float) -> None:
        unsaid = self._throttle.admit("")
        if unsaid is not None:
            structlog.get_logger().warning("event loop blocked", seconds=round(lag, 3), unsaid=unsaid)
