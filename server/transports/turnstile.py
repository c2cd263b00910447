"""In whose turn a session is looked up: so many at a time, and the others in the order in which they came.

A crowd that comes back at once, after a deploy or a node's end, has to wait in any case. If all were served
at the same time, all would be done at the end of it, when most have given up and come anew: a server then
works for those who are gone, for minutes. One after another, the first are done at once, and whoever gives
up while waiting costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["TurnMissed", "Turnstile"]

_PLACES: Final = 16
_PATIENCE: Final = 0.1
"""Seconds after which whoever has a place is taken to wait for somebody else, such as a store that hangs."""
_MOST: Final = 1.0
"""Seconds after which a place is lost, however busy the loop is: a store may hang all the same."""
_LONGEST: Final = 8.0
_TICKS: Final = 4
"""Looks at the loop in that time: one that is late is busy, and then nobody is known to wait."""


class TurnMissed(Exception):
    """It took too long until it would have been one's turn."""


class Turnstile:
    """Lets *places* at a time through.

    Who holds one for *patience* seconds of a loop that has time for everything loses it; so does who holds it
    for *most* seconds of any.

    So it bounds what is worked on at once, and not what waits. *longest*: seconds that anybody waits.
    """

    def __init__(
        self,
        places: int = _PLACES,
        patience: float = _PATIENCE,
        longest: float = _LONGEST,
        *,
        most: float = _MOST,
    ) -> None:
        self._free = places
        self._tick = patience / _TICKS
        self._most = most
        self._longest = longest
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Be served when it is one's turn. Whoever came first is first; one who is cancelled has none.

        Raises:
            TurnMissed: It has taken too long.

        """
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait()
        place = _Place(self._leave, self._tick, self._most)
        try:
            yield
        finally:
            place.leave()

    def open(self) -> None:
        """Let all through who wait: there is something else to tell them."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
                self._free -= 1
        self._waiting.clear()

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()

        def give_up() -> None:
            if not turn.done():
                turn.set_exception(TurnMissed)

        self._waiting[turn] = None
        timer = loop.call_later(self._longest, give_up)
        try:
            await turn
        except BaseException:
            if self._waiting.pop(turn, turn) is turn and not turn.cancelled() and turn.exception() is None:
                self._leave()  # it was one's turn in the very moment in which one was cancelled
            raise
        finally:
            timer.cancel()

    def _leave(self) -> None:
        self._free += 1
        while self._waiting and self._free > 0:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                self._free -= 1


class _Place:
    """One that is left once: by whoever has it, or for him, as he does nothing with it."""

    def __init__(self, leave: Callable[[], None], tick: float, most: float) -> None:
        self._leave: Callable[[], None] | None = leave
        self._length = tick
        self._left = _TICKS
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._due, self._end = now + tick, now + most
        self._timer = self._loop.call_at(self._due, self._look)

    def leave(self) -> None:
        self._timer.cancel()
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def _look(self) -> None:
        now = self._loop.time()
        self._left -= now - self._due < self._length
        if self._left <= 0 or now >= self._end:
            self.leave()
            return
        self._due = now + self._length
        self._timer = self._loop.call_at(self._due, self._look)
