"""Which sessions a node's slow poll reads: it may have missed what it was told of them.

Guarantees:

- However many a node has, a poll reads a bounded number of them.
- Each has its turn, whatever the others do.
- Those that somebody may wait for have it before the others, and don't take all of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from unbroken.sessions.actor import Actor

__all__ = ["PollOrder"]

_FOLLOWED_AT_ONCE: Final = 256
"""Followed sessions that a poll reads. Of more, each has its turn at a later one: what was told of them
isn't often lost, and else a node that follows thousands would do little but ask for them.
"""

_SILENT_AT_ONCE: Final = 192
"""Of these, how many may be of those that are answered elsewhere, and of which nothing came since the poll
before: they come first, as somebody may wait for what was lost. Most others say nothing for long.
"""

_OWNED_AT_ONCE: Final = 32
"""Sessions of its own that a poll reads, by turns: it may have missed an input, or that it is the owner no
more. Both are told of, and found out otherwise, nearly always.
"""


class PollOrder:
    """Whose turn it is at a node's polls."""

    def __init__(self) -> None:
        self._others = _Turns()
        self._silent = _Turns()
        self._owned = _Turns()

    def followed(self, actors: Sequence[Actor]) -> Iterator[Actor]:
        """Yield those that this poll reads of all that are followed. Each has noted the poll before."""
        silent: list[int] = []
        others: list[int] = []
        for place, actor in enumerate(actors):
            (silent if actor.session.is_running and actor.silence else others).append(place)
        most = max(_SILENT_AT_ONCE, _FOLLOWED_AT_ONCE - len(others))
        for place in self._silent.next(silent, most):
            yield actors[place]
        for place in self._others.next(others, _FOLLOWED_AT_ONCE - min(len(silent), most)):
            yield actors[place]

    def owned(self, actors: Sequence[Actor]) -> Iterator[Actor]:
        """Yield those that this poll reads of the node's own."""
        for place in self._owned.next(range(len(actors)), _OWNED_AT_ONCE):
            yield actors[place]


class _Turns:
    """Goes round by places. Which of them are taken may differ each time: none is passed over for that."""

    def __init__(self) -> None:
        self._place = 0  # from where it goes on

    def next(self, places: Sequence[int], count: int) -> Sequence[int]:
        """Return the next *count* of *places*, in ascending order; fewer where they end."""
        begin = bisect_left(places, self._place)
        turn = places[begin if begin < len(places) else 0 :][:count]
        if turn:
            self._place = turn[-1] + 1
        return turn
