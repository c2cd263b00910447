"""Time as a parameter. The only module of the session core's shell that reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "SystemClock", "Timer", "pause"]


class Timer(Protocol):
    """A call that will be made later, unless it is cancelled."""

    def cancel(self) -> None:
        """Drop the call. Harmless when it was made or dropped already."""


class Clock(Protocol):
    """Where the shell takes time from. All durations are in seconds."""

    def monotonic(self) -> float:
        """Return a time that never goes back; only differences mean anything."""

    def time(self) -> float:
        """Return seconds since the epoch. No decision about safety may depend on it."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call *callback* in the running event loop after *delay*."""


class SystemClock:
    """The machine's clock."""

    # Not methods around them: the first is read for each piece of each answer.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """See :meth:`Clock.call_later`."""
        return asyncio.get_running_loop().call_later(delay, callback)


async def pause(clock: Clock, seconds: float) -> None:
    """Wait *seconds* by *clock*. Cut off, it leaves no timer behind."""
    is_over = asyncio.Event()
    timer = clock.call_later(seconds, is_over.set)
    try:
        await is_over.wait()
    finally:
        timer.cancel()
