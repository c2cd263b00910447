"""Ends a connection on which nothing has been said for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from unbroken.sessions.clock import Clock, Timer

__all__ = ["IdleWatch"]

_LOOKS: Final = 4


class IdleWatch:
    """Looks now and then whether anything has been said. No message pays for it.

    Args:
        clock: Where time comes from.
        timeout: Seconds without a change after which *end* is called; up to a quarter more, as it looks
            four times in that time.
        place: Returns what differs after each message from what it was before. None: something is running.
        end: Ends the connection.

    """

    def __init__(
        self, clock: Clock, timeout: float, place: Callable[[], object | None], end: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._pause = timeout / _LOOKS
        self._place = place
        self._end = end
        self._last: object | None = None
        self._quiet = 0
        self._timer: Timer = clock.call_later(self._pause, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        place = self._place()
        self._quiet = self._quiet + 1 if place is not None and place == self._last else 0
        self._last = place
        if self._quiet >= _LOOKS:
            self._end()
        else:
            self._timer = self._clock.call_later(self._pause, self._look)
