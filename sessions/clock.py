"""Time as a parameter. The only module of the session core's shell that reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

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
        """Call *callback* in the running event loop when *delay* has passed by :meth:`monotonic`, not before.

        Whoever then looks at the time finds that it has come.
        """


class SystemClock:
    """The machine's clock."""

    # Not methods around them: the first is read for each piece of each answer.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """See :meth:`Clock.call_later`."""
        return _LoopTimer(asyncio.get_running_loop(), delay, callback)


_RESOLUTION: Final = 0.001
"""Seconds: uvloop rounds to these."""


class _LoopTimer:
    """A loop's timer that is set again if it is early.

    uvloop counts from the time at which it woke up, in whole milliseconds: a call that is asked for
    in a round with much to do comes early by as long as the round has lasted by then.
    """

    __slots__ = ("_callback", "_due", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback: Callable[[], None] | None = callback
        self._due = time.monotonic() + delay
        self._handle: asyncio.TimerHandle | None = loop.call_later(delay, self._fire)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = self._callback = None  # they lead back here, and to whoever called

    def _fire(self) -> None:
        if (callback := self._callback) is None:
            return  # cancelled
        left = self._due - time.monotonic()
        if left > 0:
            self._handle = self._loop.call_later(max(left, _RESOLUTION), self._fire)
        else:
            self._handle = self._callback = None
            callback()


async def pause(clock: Clock, seconds: float) -> None:
    """Wait *seconds* by *clock*. Cut off, it leaves no timer behind."""
    is_over = asyncio.Event()
    timer = clock.call_later(seconds, is_over.set)
    try:
        await is_over.wait()
    finally:
        timer.cancel()
