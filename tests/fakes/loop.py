"""An event loop's timers and turns, in the hands of a test."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from tests.fakes.clock import FakeClock

__all__ = ["FakeLoop"]


class FakeLoop:
    """Stands in for the loop of a protocol. Its tasks are the running loop's."""

    def __init__(self) -> None:
        self._clock = FakeClock()
        self._ready: deque[_Call] = deque()

    def time(self) -> float:
        return self._clock.now

    def call_soon(self, callback: Callable[[], None]) -> _Call:
        call = _Call(callback, 0.0)
        self._ready.append(call)
        return call

    def call_later(self, delay: float, callback: Callable[[], None]) -> _Call:
        call = _Call(callback, self._clock.now + delay)
        self._clock.call_later(delay, call)
        return call

    def call_at(self, when: float, callback: Callable[[], None]) -> _Call:
        return self.call_later(when - self._clock.now, callback)

    def create_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work)

    def advance(self, seconds: float) -> None:
        """Let time pass; what becomes due is called."""
        self._clock.advance(seconds)

    def turn(self) -> bool:
        """Make the calls of one turn, and return whether there were any."""
        calls, self._ready = self._ready, deque()
        for call in calls:
            call()
        return bool(calls)


class _Call:
    def __init__(self, callback: Callable[[], None], when: float) -> None:
        self._callback: Callable[[], None] | None = callback
        self._when = when

    def __call__(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self._callback = None
