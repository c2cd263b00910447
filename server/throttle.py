"""How often the same thing is logged: what others can cause at will must not fill the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from unbroken.sessions.clock import Clock

__all__ = ["Throttle"]

_PERIOD: Final = 60.0


@dataclass(slots=True)
class _Window:
    begun: float
    said: int = 0
    unsaid: int = 0


class Throttle:
    """Admits some lines of each kind a minute, and counts the others. Kinds must be few: none is forgotten.

    Args:
        clock: Where time comes from.
        lines: How many of one kind are admitted within a minute from the first of them.

    """

    def __init__(self, clock: Clock, *, lines: int) -> None:
        self._clock = clock
        self._lines = lines
        self._windows: dict[str, _Window] = {}

    def admit(self, kind: str) -> int | None:
        """Return how many of *kind* went unsaid since the last that was admitted. None: so does this one."""
        now = self._clock.monotonic()
        window = self._windows.setdefault(kind, _Window(now))
        if now - window.begun >= _PERIOD:
            window.begun, window.said = now, 0
        if window.said >= self._lines:
            window.unsaid += 1
            return None
        window.said += 1
        unsaid, window.unsaid = window.unsaid, 0
        return unsaid
