"""Who is next when more wants to be done than can be: turns of a model, parts of texts.

At most ``slots`` run at once. The others wait, and a free slot goes to the
waiting principal with the fewest running; among equals, to the one that
has gone longest without. So ten turns of one user delay another user's single turn by
at most the turn that is running. Within one principal it is first come, first
served.

The queue is bounded, and no principal may fill more than half of it: whoever
comes alone still finds a place.

::

    Exception
    +-- QueueFull      no more may wait
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

__all__ = ["FairQueue", "QueueFull", "Ticket", "computed"]

_R = TypeVar("_R")


class QueueFull(Exception):
    """Too many wait already, in all or of one principal's."""


class Ticket:
    """A place, from :meth:`FairQueue.join` until :meth:`leave`."""

    def __init__(self, queue: FairQueue, principal: str) -> None:
        self.principal = principal
        self._queue = queue
        self._admitted = asyncio.Event()
        self._has_left = False

    @property
    def is_admitted(self) -> bool:
        """Whether it holds a slot."""
        return self._admitted.is_set() and not self._has_left

    async def admitted(self) -> None:
        """Wait for a slot, however long. Cancelling is safe; leave all the same."""
        await self._admitted.wait()

    async def wait(self, seconds: float) -> bool:
        """Wait up to *seconds* for a slot. Whether it has one. Cancelling is safe; leave all the same."""
        try:
            async with asyncio.timeout(seconds):
                await self._admitted.wait()
        except TimeoutError:
            return self._admitted.is_set()
        return True

    def leave(self) -> None:
        """Give back the slot, or the place in the queue. Harmless when repeated."""
        if not self._has_left:
            self._has_left = True
            self._queue._drop(self)

    def _admit(self) -> None:
        self._admitted.set()


class FairQueue:
    """Hands out a fixed number of slots, fairly among principals. For one event loop.

    Args:
        slots: How many may run at once.
        max_waiting: How many may wait beyond those.

    """

    def __init__(self, *, slots: int, max_waiting: int) -> None:
        if slots < 1 or max_waiting < 0:
            raise ValueError("a queue needs at least one slot, and room for no fewer than zero")
        self._free = slots
        self._max_waiting = max_waiting
        self._max_waiting_each = max(1, max_waiting // 2)
        self._waiting: dict[str, deque[Ticket]] = {}
        """By principal, the one that has gone longest without a slot first. Holds no empty deque."""
        self._running: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many are waiting."""
        return sum(map(len, self._waiting.values()))

    def join(self, principal: str, *, goes_on: bool = False) -> Ticket:
        """Ask for a slot on behalf of *principal*. What *goes_on* comes before all else of theirs.

        Raises:
            QueueFull: Too many are waiting, in all or of this principal's.

        """
        ticket = Ticket(self, principal)
        if self._free:
            self._admit(ticket)
            return ticket
        own = self._waiting.get(principal, ())
        if len(self) >= self._max_waiting or len(own) >= self._max_waiting_each:
            raise QueueFull()
        waiting = self._waiting.setdefault(principal, deque())
        if goes_on:
            waiting.appendleft(ticket)
        else:
            waiting.append(ticket)
        return ticket

    def _admit(self, ticket: Ticket) -> None:
        self._free -= 1
        self._running[ticket.principal] += 1
        ticket._admit()

    def _drop(self, ticket: Ticket) -> None:
        if not ticket._admitted.is_set():
            own = self._waiting[ticket.principal]
            own.remove(ticket)
            if not own:
                del self._waiting[ticket.principal]
            return
        self._running -= Counter((ticket.principal,))  # drops what falls to zero
        self._free += 1
        self._admit_next()

    def _admit_next(self) -> None:
        if not self._waiting:
            return
        # A free slot and someone waiting: `join` never leaves both, so one admission settles it.
        principal = min(self._waiting, key=self._running.__getitem__)
        own = self._waiting.pop(principal)
        ticket = own.popleft()
        if own:
            self._waiting[principal] = own  # at the end: the others come first
        self._admit(ticket)


async def computed(
    ticket: Ticket, threads: Executor, work: Callable[[], _R], leave: Callable[[], None]
) -> _R:
    """Return what comes of *work*, done in *threads* when *ticket* is admitted; raise what it raises.

    *leave* gives the ticket back: once, in this event loop, when the thread is through with it, also when
    nobody waits any more. Cancelling is safe.
    """
    try:
        await ticket.admitted()
        future = threads.submit(work)
    except BaseException:
        leave()
        raise
    loop = asyncio.get_running_loop()
    future.add_done_callback(lambda _: _call_soon(loop, leave))
    return await asyncio.wrap_future(future)


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
