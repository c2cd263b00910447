"""When a worker that has ended is started again: decided here, without a clock."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["MOST_CRASHES", "End", "Restarts"]

MOST_CRASHES: Final = 8
"""In a row. One that has run for a while since the last begins a new row."""

_SETTLED_AFTER: Final = 60.0
_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 30.0


class End(enum.Enum):
    """How a worker ended."""

    ASKED = "asked"
    """It was told to by somebody else than its supervisor, and left in order."""

    REFUSED = "refused"
    """It said that it can't start now, as while Redis can't be reached."""

    CRASHED = "crashed"
    """In any other way."""


class Restarts:
    """The restarts of one worker."""

    def __init__(self) -> None:
        self._crashes = 0
        self._refusals = 0

    def delay(self, end: End, *, lived: float) -> float | None:
        """Return in how many seconds to start the worker again; None: it crashes again and again.

        Args:
            end: How it ended.
            lived: For how many seconds it was there.

        """
        if lived >= _SETTLED_AFTER:
            self._crashes = self._refusals = 0
        match end:
            case End.ASKED:
                return 0.0
            case End.REFUSED:
                # For ever: what it lacks may come back, and the others go on meanwhile.
                self._refusals += 1
                return _backed_off(self._refusals)
            case End.CRASHED:
                self._crashes += 1
                return None if self._crashes > MOST_CRASHES else _backed_off(self._crashes)


def _backed_off(times: int) -> float:
    doubled: float = 2.0 ** min(times - 1, 10)
    return min(_FIRST_DELAY * doubled, _LONGEST_DELAY)
