"""Places for calls: so many at once to a server, the rest one after another.

Where a server hangs, each call takes as long as it may, and those behind it would have their turn after many
times that, to find out the same: when a call has had no answer, and no other one has had one since it began,
whoever waits is told at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from redis.exceptions import TimeoutError

__all__ = ["Places", "TooManyCalls"]


class TooManyCalls(TimeoutError):
    """A call hasn't had its turn in time, behind others of this node. It wasn't made."""


class Places:
    """Those for one server.

    Args:
        count: Calls at once.
        patience: Seconds that a call waits for its turn.
        time: Says what time it is, in seconds.

    """

    def __init__(self, count: int, patience: float, time: Callable[[], float]) -> None:
        self._free = count
        self._patience: Final = patience
        self._time: Final = time
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._answered = -1.0
        """When a call was answered last."""

    async def take(self) -> float:
        """Take a place, to be given back, and return the time. In the order in which they ask.

        Raises:
            TooManyCalls: It isn't its turn in time.
            TimeoutError: The server doesn't answer.

        """
        if self._free:
            self._free -= 1
            return self._time()
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        timer = loop.call_later(self._patience, _give_up, turn)
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._hand_on()  # it was given the place as it left
            raise
        finally:
            timer.cancel()
        return self._time()

    def give_back(self, since: float, *, is_answered: bool, is_late: bool) -> None:
        """Give a place back that was taken at *since*, by a call that the server *is_answered* of, or that
        *is_late*: it had no answer in its time.
        """
        if is_answered:
            self._answered = self._time()
        elif is_late and self._answered < since:
            waiting, self._waiting = self._waiting, deque()
            for turn in waiting:
                if not turn.done():
                    turn.set_exception(TimeoutError("The server doesn't answer."))
        self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


def _give_up(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(TooManyCalls("too many calls are waiting"))
