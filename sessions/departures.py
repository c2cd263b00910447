"""When each connection of a node that hands over is sent elsewhere: all at once would be a storm there."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["Departures"]

_RATE: Final = 20.0
"""Connections a second that a draining node sends elsewhere: some hundredths of another node's core."""

_WINDOW: Final = 5.0
"""Seconds in which they have left, however many there are: then it is more of them a second."""


class Departures:
    """Spreads the departures of one node."""

    __slots__ = ("_draw", "_over")

    def __init__(self) -> None:
        self._draw = random.random
        self._over = 0.0  # seconds

    def begin(self, connections: int) -> None:
        """Spread so many."""
        self._over = min(_WINDOW, connections / _RATE)

    def next(self) -> float:
        """Return in how many seconds one of them is to leave."""
        return self._draw() * self._over
