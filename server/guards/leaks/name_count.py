"""One answer on its way past the reading of names, where they are only counted: nothing of it waits.

What is said leaves, and is cut into sentences; a task of the answer's own has them read one after the
other. Few may wait: the figures are for their operator to look at, and lack what was too much.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import structlog

from unbroken.server.guards.leaks.names import NamesIn
from unbroken.sessions.responder import Interjection, Output, Turn

__all__ = ["NameCount"]

_LAST: Final = 0.1
"""Seconds that the end of an answer waits for what has yet to be read of it."""


class NameCount:
    """The count of one answer.

    Args:
        names: Reads it; nothing is held there.

    """

    def __init__(self, names: NamesIn) -> None:
        self._names = names
        self._aside: deque[Output] = deque()  # what was said while the answer waited
        self._reading: asyncio.Task[None] | None = None

    async def passed(
        self, turn: Turn, respond: Callable[[Turn], AsyncGenerator[Output, None]]
    ) -> AsyncGenerator[Output, None]:
        """Yield the answer that *respond* gives to *turn*, as it is."""
        outer, inner = turn.interjection, Interjection()

        def said_aside(output: Output) -> None:
            outer.put(output)
            self._aside.append(output)

        inner.take = said_aside
        try:
            try:
                async with aclosing(respond(replace(turn, interjection=inner))) as outputs:
                    async for output in outputs:
                        yield output
                        await self._take(output)
            except Exception:
                await self._finish()
                raise
            await self._finish()
        finally:
            await self._stop()

    async def _take(self, output: Output) -> None:
        while self._aside:
            await self._names.take(self._aside.popleft())
        await self._names.take(output)
        self._read()

    def _read(self) -> None:
        if self._names.aside.waiting and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read_on())

    async def _read_on(self) -> None:
        try:
            await self._names.aside.read()
        except Exception as exc:  # noqa: BLE001 - a bug, and no reason for an answer to fail
            structlog.get_logger().error("names not counted", error=type(exc).__qualname__)

    async def _finish(self) -> None:
        while self._aside:
            await self._names.take(self._aside.popleft())
        await self._names.finish()
        self._read()
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=_LAST)

    async def _stop(self) -> None:
        """Read no more. What hasn't been read is counted as such."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        self._names.aside.skip()
