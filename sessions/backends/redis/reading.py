"""Group reading: what many sessions have that is new is read together.

A node is told of many sessions at once, and each of them reads on by itself. What they ask for in one turn of
the loop goes into one call: that costs it and us about the same for one session as for ten. No timer holds
anything back.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import NodeId, SessionId

__all__ = ["Reading", "Readings"]

_CLOSED: Final = "the store is closed"


@dataclass(frozen=True, slots=True)
class Reading:
    """What is asked of one session."""

    session_id: SessionId
    after: Position
    limit: int
    """Entries."""
    node: NodeId
    """Who reads, and wants to know whether it is told of what is new."""
    answer: asyncio.Future[Any]


class Readings:
    """Those of a store. Its owner closes it.

    Args:
        call: Reads for some together, and returns an answer for each.
        parted: Yields which of them may go into one call.

    """

    def __init__(
        self,
        call: Callable[[Sequence[Reading]], Awaitable[Sequence[Any]]],
        parted: Callable[[Sequence[Reading]], Iterable[Sequence[Reading]]],
    ) -> None:
        self._call = call
        self._parted = parted
        self._waiting: list[Reading] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        # What is logged on the way of many sessions must not bear the ids of the one that came first.
        self._context: Final = contextvars.Context()

    async def read(self, session_id: SessionId, after: Position, limit: int, node: NodeId) -> Any:
        """Return a session's answer. Cancelling it loses nothing, and keeps nobody else waiting.

        Raises:
            StoreUnavailable: The store doesn't answer, or was closed.

        """
        if self._is_closed:
            raise StoreUnavailable(_CLOSED)
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send, context=self._context)
        reading = Reading(session_id, after, limit, node, loop.create_future())
        self._waiting.append(reading)
        return await reading.answer

    async def aclose(self) -> None:
        """End what is under way: whoever waits is told that the store can't be reached."""
        self._is_closed = True
        waiting, self._waiting = self._waiting, []
        _fail(waiting, StoreUnavailable(_CLOSED))
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in self._parted([each for each in waiting if not each.answer.done()]):
            task = asyncio.get_running_loop().create_task(self._read(call))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, call))

    def _ended(self, call: Sequence[Reading], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        _fail(call, StoreUnavailable(_CLOSED))  # else they have their answers

    async def _read(self, call: Sequence[Reading]) -> None:
        try:
            answers = await self._call(call)
        except StoreUnavailable as exc:
            _fail(call, exc)
        except Exception as exc:  # noqa: BLE001 - it is theirs who wait
            if len(call) == 1:
                _fail(call, exc)
                return
            for each in call:  # what is wrong with one is none of the others' business
                await self._read([each])
        else:
            for each, answer in zip(call, answers, strict=True):
                if not each.answer.done():
                    each.answer.set_result(answer)


def _fail(call: Iterable[Reading], exc: Exception) -> None:
    for each in call:
        if not each.answer.done():
            each.answer.set_exception(exc)
