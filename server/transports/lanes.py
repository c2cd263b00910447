"""Lanes on one connection: what is asked for in one is answered in turn; none waits for another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from unbroken.server.transports.talk import FrameSource, Talk

__all__ = ["Lanes", "LanesFull", "QueueFull"]

_T = TypeVar("_T")


class LanesFull(Exception):
    """There are as many lanes as may be."""


class QueueFull(Exception):
    """As much waits as may."""


class Lanes(Generic[_T]):
    """Answers what is asked for, in each lane one after another.

    Args:
        talk: The connection.
        answer: Returns what says the answer; None: there is none, and the client has been told why.
        most: Lanes that may have something to do at once.
        most_waiting: Requests that may wait, in all.

    """

    def __init__(
        self,
        talk: Talk,
        answer: Callable[[_T], Awaitable[FrameSource | None]],
        *,
        most: int,
        most_waiting: int,
    ) -> None:
        self._talk: Final = talk
        self._answer = answer
        self._most = most
        self._most_waiting = most_waiting
        self._waiting: dict[str | None, deque[_T]] = {}  # of the lanes that have something to do
        self._count = 0

    def ask(self, lane: str | None, asked: _T) -> None:
        """Have *asked* be answered behind what was asked for in *lane* before.

        Raises:
            LanesFull: There are as many lanes at work as may be.
            QueueFull: As much waits as may.

        """
        queue = self._waiting.get(lane)
        if queue is None:
            if len(self._waiting) >= self._most:
                raise LanesFull
            self._waiting[lane] = deque([asked])
            self._count += 1
            self._talk.spawn(self._work(lane))
        elif self._count >= self._most_waiting:
            raise QueueFull
        else:
            queue.append(asked)
            self._count += 1

    async def _work(self, lane: str | None) -> None:
        queue = self._waiting[lane]
        while queue:
            asked = queue.popleft()
            self._count -= 1
            source = await self._answer(asked)
            if source is not None:
                over = asyncio.Event()
                self._talk.add(source, over.set)
                await over.wait()
        del self._waiting[lane]
