"""How many requests an upstream is sent at once, and who waits for one to end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["CURRENT", "Place"]

CURRENT: Final[ContextVar[Place | None]] = ContextVar("place", default=None)
"""The place of whatever is being sent. None: it needs none, as what stops a response, which makes room."""


class Place:
    """What one turn takes while a request of it is under way: not while it waits to try again.

    Args:
        free: Counts the places that nobody has.

    """

    __slots__ = ("_free", "is_taken")

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free = free
        self.is_taken = False

    async def take(self, timeout: float | None) -> None:
        """Take it, if it isn't taken, behind all who wait already.

        Raises:
            TimeoutError: None was free in so many seconds.

        """
        if self.is_taken:
            return
        if self._free.locked():
            async with asyncio.timeout(timeout):
                await self._free.acquire()
        else:
            await self._free.acquire()  # at once
        self.is_taken = True

    def give_back(self) -> None:
        """Let somebody else have it. Harmless if it isn't taken."""
        if self.is_taken:
            self.is_taken = False
            self._free.release()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Have what is sent meanwhile, by this task, be in this place."""
        token = CURRENT.set(self)
        try:
            yield
        finally:
            CURRENT.reset(token)
