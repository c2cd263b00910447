"""What is told the ledger while nobody waits for it, and what becomes of that when the node ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import structlog

__all__ = ["Background", "say_lost"]


class Background:
    """Work that was begun and not awaited, with an end to all of it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something be done that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            structlog.get_logger().error("task failed", exc_info=exc)

    async def settled(self) -> None:
        """Return when all of it has been done."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def aclose(self, patience: float) -> None:
        """Wait *patience* seconds for what is being done, and cancel the rest, which has begun by then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.settled()
        await asyncio.sleep(0)  # what never began could not say what becomes of it
        for task in set(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))


def say_lost(turns: int, exc: Exception | None = None) -> None:
    """Say that what so many turns have used will never be counted; of a bug, which."""
    hint = "Redis was out of reach for too long, or until the end." if exc is None else "This is a bug."
    structlog.get_logger().error("usage lost", turns=turns, hint=hint, exc_info=exc)
