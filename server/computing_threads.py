"""Threads that compute beside an event loop, which makes way for them.

CPython's lock goes to whoever asks when it is free. A loop with much to do lets go of it in every
``send`` and takes it again within microseconds, before a waiting thread has woken up; and each time the
thread's wait begins anew, so that it never comes to ask for the lock after the switch interval. Beside a
loop that does I/O every 0.1 to 0.5 ms, a thread so waited for 750 ms (CPython 3.11, two cores).

While something is computed, a loop that is busy therefore sleeps every now and then, for long enough to
wake a thread: see ``docs/decisions/0011-making-way.md``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

__all__ = ["ComputingThreads", "Way"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_EVERY: Final = 0.002
"""Seconds between the moments in which the loop makes way."""

_LONG_ENOUGH: Final = 50e-6
"""Seconds within which a thread that waits for the interpreter has woken up and has it."""

_RESTED: Final = 0.25
"""Which part of the time a loop has to have rested by itself, so that threads had their turn anyway."""


class Way:
    """Lets threads have the interpreter while something is computed, whichever pools they are of.

    The loop stands still for 0.1 ms in every 2 then, unless it rests by itself, and for as long as threads
    compute on, each bounded by the interpreter's switch interval.

    Args:
        make: Sleeps for so many seconds. For tests.
        worked: How many seconds this thread has computed. For tests.

    """

    def __init__(
        self,
        *,
        make: Callable[[float], object] = time.sleep,
        worked: Callable[[], float] = time.thread_time,
    ) -> None:
        self._make = make
        self._worked = worked
        self._unfinished: set[Future[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looked = (0.0, 0.0)

    def watch(self, future: Future[Any]) -> None:
        """Have the loop that runs here make way until *future* is done. Without a loop: nothing."""
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)  # in its thread: one operation, which is atomic
        self._go_on()

    def _go_on(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._looked = (time.monotonic(), self._worked())
            self._timer = loop.call_later(_EVERY, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._unfinished:
            return
        since, worked = self._looked
        if self._worked() - worked > (1 - _RESTED) * (time.monotonic() - since):
            self._make(_LONG_ENOUGH)
        self._go_on()


class ComputingThreads(ThreadPoolExecutor):
    """A pool whose threads get on, however much the event loop has to do that gives them work.

    Work that comes from no loop is done as in any pool.

    Args:
        threads: How many there are.
        name: What they are called.
        way: What makes way for them; all pools of a loop should share one. None: one of its own.

    """

    def __init__(self, threads: int, name: str, way: Way | None = None) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._way = way or Way()

    def submit(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
        """See :meth:`concurrent.futures.Executor.submit`."""
        future = super().submit(fn, *args, **kwargs)
        self._way.watch(future)
        return future
