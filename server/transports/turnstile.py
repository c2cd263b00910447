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

from uvicorn.protocols.utils import ClientDisconnected

from unbroken.server.transports.outlet import Departing

__all__ = ["Turnstile"]

_PLACES: Final = 16
_PATIENCE: Final = 1.0
"""Seconds after which whoever has a place is taken to wait for somebody else, such as a store that hangs."""


class Turnstile:
    """Lets *places* at a time through, for *patience* seconds: after that a place is the next one's."""

    def __init__(self, places: int = _PLACES, patience: float = _PATIENCE) -> None:
        self._free = places
        self._patience = patience
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, client: Departing | None = None) -> AsyncIterator[None]:
        """Be served when it is one's turn. Whoever came first is first.

        Raises:
            ClientDisconnected: The *client* has left meanwhile.

        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(client)
        place = _Place(self._leave)
        timer = asyncio.get_running_loop().call_later(self._patience, place.leave)
        try:
            yield
        finally:
            timer.cancel()
            place.leave()

    async def _wait(self, client: Departing | None) -> None:
        turn = asyncio.get_running_loop().create_future()

        def give_up() -> None:
            if not turn.done():
                turn.set_exception(ClientDisconnected)

        self._waiting[turn] = None
        if client is not None:
            client.on_departure(give_up)
        try:
            await turn
        except BaseException:
            if self._waiting.pop(turn, turn) is turn and not turn.cancelled() and turn.exception() is None:
                self._leave()  # it was one's turn in the very moment in which one was cancelled
            raise
        finally:
            if client is not None:
                client.on_departure(None)

    def _leave(self) -> None:
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class _Place:
    """One that is left once, whoever says so first."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave: Callable[[], None] | None = leave

    def leave(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()
