"""One timer for all files of a store: it goes off when the next one expires."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from unbroken.server.files.ledger import Ledger
from unbroken.sessions.clock import Clock, Timer

__all__ = ["Expiry"]

_SOONEST: Final = 1.0
"""Seconds. Files that expire one after the other are removed together."""

_LATEST: Final = 3600.0
"""Seconds. The machine's time may be set meanwhile, which no timer notices."""


class Expiry:
    """Calls *remove*, with what has expired, soon after it has.

    It runs only while there are files; none of its calls is made after :meth:`stop`.
    """

    def __init__(self, ledger: Ledger, clock: Clock, remove: Callable[[], None]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._remove = remove
        self._timer: Timer | None = None
        self._due = 0.0

    def note(self, due: float) -> None:
        """Take notice of a file that expires at *due*."""
        if self._timer is not None and self._due <= due:
            return
        self.stop()
        delay = min(max(due - self._clock.time(), _SOONEST), _LATEST)
        self._due = due
        self._timer = self._clock.call_later(delay, self._go_off)

    def stop(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_off(self) -> None:
        self._timer = None
        self._remove()
        due = self._ledger.next_expiry
        if due is not None:
            self.note(due)
