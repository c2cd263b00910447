"""Whose text is looked at next: all principals in turn, part by part, so that nobody's texts keep out others.

Parts of texts for which nobody waits come with rests in between. A part holds the interpreter, and where the
machine has more to do than it can, for longer than it computes: the event loop is to meet that seldom.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from unbroken.server.fair_queue import FairQueue
from unbroken.server.guards.injection.examiner import Examination, Steps, step
from unbroken.sessions.clock import Clock

__all__ = ["Spent", "Turns"]

_REST: Final = 4.0
"""Rest behind a part for which nobody waits, in times what it took: a fifth of a thread is used at most."""

_LONGEST_REST: Final = 0.25
"""Seconds."""

_AHEAD: Final = 1
"""Parts handed to the threads beyond those that are looked at: a thread has its next one at hand, however
long the event loop takes to hear of the last. Else a loop with much to do would leave the threads idle."""


@dataclass(slots=True)
class Spent:
    """The time that one input took."""

    seconds: float = 0.0
    """Without what it waited for its turns."""


class Turns:
    """Threads, and who is next in them. For one event loop.

    Among principals it goes round, whoever has how many texts there. Another's short text waits
    for the part that is looked at, for the one that is at hand, and for one of each of the others.

    Args:
        threads: Where it is done.
        clock: Where time comes from.
        slots: How many parts are looked at at once: as many as there are threads.
        waiting: How many texts may wait at most. Somebody else counts them.
        timeout: Seconds that the parts of one input may take. None: somebody else sees to that.
        is_aside: Whether nobody waits. Then there are rests, and a principal's texts come one after
            another: that they are done at last counts, not when each of them is.

    """

    def __init__(
        self,
        threads: Executor,
        clock: Clock,
        slots: int,
        waiting: int,
        *,
        timeout: float | None = None,
        is_aside: bool = False,
    ) -> None:
        self._threads = threads
        ahead = 0 if is_aside else _AHEAD  # what rests needn't be quick
        self._queue = FairQueue(slots=slots + ahead, max_waiting=2 * waiting)  # half may be one principal's
        self._clock = clock
        self._timeout = timeout
        self._is_aside = is_aside

    async def examined(self, steps: Steps, name: str, spent: Spent) -> Examination:
        """Go through *steps*, each when it is the turn of *name*, and return what comes of them.

        Cancelling is safe: no further step is taken.

        Raises:
            TimeoutError: They took too long.

        """
        ticket = self._queue.join(name, goes_on=self._is_aside and spent.seconds > 0)
        try:
            while True:
                await ticket.admitted()
                before = spent.seconds
                examination = await self._stepped(steps, spent)
                if self._is_aside:
                    await asyncio.sleep(min(_REST * (spent.seconds - before), _LONGEST_REST))
                if examination is not None:
                    return examination
                # Asked for before this one is given back: else another text of theirs would have it.
                following = self._queue.join(name, goes_on=self._is_aside)
                ticket.leave()
                ticket = following
        finally:
            ticket.leave()

    async def _stepped(self, steps: Steps, spent: Spent) -> Examination | None:
        began = self._clock.monotonic()
        left = None if self._timeout is None else max(0.0, self._timeout - spent.seconds)
        try:
            async with asyncio.timeout(left):
                return await asyncio.get_running_loop().run_in_executor(self._threads, step, steps)
        finally:
            spent.seconds += self._clock.monotonic() - began
