"""How long to wait before something is tried again: longer each time, and not all in the same moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Backoff"]

_MOST_ASKED: Final = 300.0
"""Seconds. Whatever a server asks for, who waits longer looks dead."""


class Backoff:
    """Full jitter: any time up to a bound that doubles with each failure, on top of what the server asks for.

    Args:
        first: The bound after the first failure, in seconds.
        longest: That of all.
        draw: Draws from 0 to 1.

    """

    def __init__(self, first: float, longest: float, draw: Callable[[], float]) -> None:
        self._first = first
        self._longest = longest
        self._draw = draw
        self._failures = 0

    def next(self, asked: float | None = None) -> float:
        """Count a failure, and return the seconds to wait: never less than *asked*, up to five minutes."""
        # The exponent is bounded: a float that is too large raises.
        bound = min(self._longest, self._first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._draw() * bound + min(max(asked or 0.0, 0.0), _MOST_ASKED)

    def reset(self) -> None:
        """It went well: the next wait is a short one."""
        self._failures = 0
