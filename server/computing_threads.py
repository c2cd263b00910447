"""Threads that compute beside an event loop, which makes way for them.

CPython's lock goes to whoever asks when it is free. A loop with much to do lets go of it in every
``send`` and takes it again within microseconds, before a waiting thread has woken up; and each time the
thread's wait begins anew, so that it never comes to ask for the lock after the switch interval. Beside a
loop that does I/O every 0.1 to 0.5 ms, a thread so waited for 750 ms (CPython 3.11, two cores).

While something is computed, the loop therefore sleeps every now and then, for long enough to wake a
thread: see ``docs/decisions/0011-making-way.md``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

__all__ = ["ComputingThreads"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_EVERY: Final = 0.002
"""Seconds between the moments in which the loop makes way."""

_LONG_ENOUGH: Final = 50e-6
"""Seconds within which a thread that waits for the interpreter has woken up and has it."""


class ComputingThreads(ThreadPoolExecutor):
    """A pool whose threads get on, however much the event loop has to do that gives them work.

    The loop stands still for 0.1 ms in every 2 while something is computed, and as long as it takes a
    thread to compute on, bounded by the interpreter's switch interval. Work that comes from no loop is
    done as in any pool.

    Args:
        threads: How many there are.
        name: What they are called.
        make_way: Sleeps for so many seconds. For tests.

    """

    def __init__(self, threads: int, name: str, *, make_way: Callable[[float], object] = time.sleep) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._make_way = make_way
        self._unfinished: set[Future[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
        """See :meth:`concurrent.futures.Executor.submit`."""
        future = super().submit(fn, *args, **kwargs)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)  # in that thread: one operation, which is atomic
        self._watch()
        return future

    def _watch(self) -> None:
        """Have the loop that runs here make way from now on."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_later(_EVERY, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._unfinished:
            self._make_way(_LONG_ENOUGH)
            self._watch()
