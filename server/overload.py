"""Whether this node has more to do than it gets done: decided from how late its event loop is.

What is looked at is the median of the latest samples. One callback that holds
the loop makes one of them late, however long it takes, and so decides nothing;
a loop that is late again and again is one that has too much to do.

No I/O, no clock.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

__all__ = ["Level", "Overload", "OverloadLimits"]


class Level(enum.IntEnum):
    """What a node takes on. Each level includes those before it."""

    CALM = 0
    """Everything."""
    BUSY = 1
    """No new sessions."""
    SWAMPED = 2
    """No new responses either. What runs goes on, and those who come back are let in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadLimits:
    """When a node is overloaded. Times are in seconds."""

    busy_lag: float = 0.2
    """Median lag from which no new session is begun. 0: nothing is ever refused."""
    swamped_lag: float = 1.0
    """Median lag from which no new response is begun. 0: none is ever refused."""
    samples: int = 20
    """How many of the latest samples count: half of them have to be late."""
    hold: float = 5.0
    """How long the median must have been below half of a level's lag before that level is left."""


class Overload:
    """Tells the level from one sample of the lag after the other.

    A level is entered as soon as the median reaches its lag, and left when the
    median has been below half of that for :attr:`OverloadLimits.hold`: between
    the two it stays as it is, so that it can't change more often than that.
    """

    def __init__(self, limits: OverloadLimits) -> None:
        swamped = limits.swamped_lag if limits.busy_lag else 0.0
        self._triggers = (
            (_Trigger(swamped, limits.hold), Level.SWAMPED),
            (_Trigger(limits.busy_lag, limits.hold), Level.BUSY),
        )
        self._latest = deque([0.0] * limits.samples, limits.samples)
        self.level = Level.CALM
        """What the samples so far have led to."""
        self.median = 0.0
        """Of the latest samples, in seconds; the upper of the two in the middle."""

    @property
    def worst(self) -> float:
        """The longest of the latest samples, in seconds."""
        return max(self._latest)

    def note(self, lag: float, now: float) -> Level:
        """Take in by how many seconds the loop was late at the time *now*, and return the level."""
        self._latest.append(lag)
        self.median = sorted(self._latest)[len(self._latest) // 2]
        level = Level.CALM
        for trigger, its_level in self._triggers:
            if trigger.note(self.median, now):  # each has to be told
                level = max(level, its_level)
        self.level = level
        return level


class _Trigger:
    """On from a threshold up, off after a while below half of it."""

    def __init__(self, threshold: float, hold: float) -> None:
        self._threshold = threshold
        self._hold = hold
        self._is_on = False
        self._high_at = 0.0  # when the median was last above half of the threshold; only while it is on

    def note(self, median: float, now: float) -> bool:
        if not self._threshold:
            return False
        if median >= self._threshold:
            self._is_on = True
        if median >= self._threshold / 2:
            self._high_at = now
        elif now - self._high_at >= self._hold:
            self._is_on = False
        return self._is_on
