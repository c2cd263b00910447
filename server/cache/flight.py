"""One upstream call for all who ask the same at once.

A flight is a task that asks, and a list of what came; each asker is a place in
that list. Who leaves, leaves alone: the flight goes on while anybody wants it,
and ends with the last. Who comes later sees it from its beginning.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final

from unbroken.server.cache.fare import Fare, Fellow
from unbroken.server.quota.share import Share
from unbroken.sessions.items import Reused, Usage
from unbroken.sessions.responder import Handle, Output

__all__ = ["Ask", "Flight", "Flights", "Seat", "Settle"]

Ask = Callable[[], Awaitable[AsyncGenerator[Output, None]]]
"""Returns what is answered."""

Settle = Callable[[Sequence[Output]], Awaitable[None]]
"""Is given all that came, where nothing went wrong. Never raises."""

_AHEAD: Final = 256
"""Outputs that may wait for the fastest asker: then the agent waits, as it does for a session's log."""


class Flight:
    """A question on its way. Made by :class:`Flights`."""

    def __init__(self, key: str) -> None:
        self.key: Final = key
        self.outputs: Final[list[Output]] = []
        self.error: BaseException | None = None
        self.is_over = False
        """Whether nothing more comes. It may still be kept for later."""
        self.fare: Final = Fare()
        self.seats: Final[list[Seat]] = []
        """Of those who follow it, in the order in which they came."""
        self._furthest = 0
        # Most of what comes finds one who waits, or nobody: what is made for each piece must be small.
        self._waiting: list[asyncio.Future[None]] = []  # those for whom there is nothing more yet
        self._room: asyncio.Future[None] | None = None  # what the agent waits for

    async def run(self, ask: Ask, settle: Settle) -> None:
        """Take in what comes, until its end; then have it kept, which no asker waits for."""
        try:
            async with aclosing(await ask()) as outputs:
                async for output in outputs:
                    self.outputs.append(output)
                    self.tell()
                    if len(self.outputs) - self._furthest >= _AHEAD:
                        self._room = asyncio.get_running_loop().create_future()
                        await self._room
                        self._room = None
        except BaseException as exc:
            self.error = exc
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return
        finally:
            self.is_over = True
            self.tell()
        await settle(self.outputs)

    async def follow(self, seat: Seat) -> AsyncGenerator[Output, None]:
        """Yield what comes, from the beginning, and who pays for it."""
        fare = self.fare
        if seat.is_late:
            yield Usage(reused=Reused("flight", 0.0))  # the last one counts: who comes late may yet pay
        while True:
            if seat.is_handed_on:
                yield fare.hand_on(seat)
            elif seat.place < len(self.outputs):
                output = self.outputs[seat.place]
                seat.place += 1
                if seat.place > self._furthest:
                    self._furthest = seat.place
                    if self._room is not None and not self._room.done():
                        self._room.set_result(None)
                if seat.is_late and isinstance(output, Handle):
                    continue  # whoever holds the upstream's own name for it may have it stopped
                yield fare.take(seat, output)
            elif self.is_over:
                break
            else:
                news = asyncio.get_running_loop().create_future()
                self._waiting.append(news)
                await news
        if self.error is not None:
            raise self.error

    def tell(self) -> None:
        """Wake all who wait."""
        waiting, self._waiting = self._waiting, []
        for news in waiting:
            if not news.done():  # else it has left
                news.set_result(None)


class Seat(Fellow):
    """One asker's place in a flight."""

    def __init__(self, flight: Flight, share: Share, *, is_late: bool) -> None:
        super().__init__(share)
        self.flight: Final = flight
        self.is_late: Final = is_late
        """Whether another has asked before."""
        self.place = 0
        """Outputs that it was given."""

    def follow(self) -> AsyncGenerator[Output, None]:
        """See :meth:`Flight.follow`."""
        return self.flight.follow(self)


class Flights:
    """The flights of a node, by what is asked. Its owner closes it."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._tasks: dict[Flight, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def board(
        self,
        key: str,
        ask: Ask,
        settle: Settle,
        share: Share | None = None,
    ) -> Seat:
        """Return a seat in the flight of *key*; if there is none, it begins, does *ask*, and then *settle*.

        Whoever boards has to :meth:`leave`. *share*: where what is theirs to pay is noted.
        """
        flight = self._flights.get(key)
        was_there = flight is not None and flight.error is None
        if flight is None or not was_there:
            flight = self._flights[key] = Flight(key)
            task = self._tasks[flight] = asyncio.create_task(flight.run(ask, settle))
            task.add_done_callback(functools.partial(self._landed, flight))
        seat = Seat(flight, share or Share(), is_late=was_there)
        flight.seats.append(seat)
        flight.fare.board(seat)
        return seat

    def part(self, key: str | None = None) -> None:
        """Let nobody board the flight of *key* any more, or any: they go on for who is aboard."""
        if key is None:
            self._flights.clear()
        else:
            self._flights.pop(key, None)

    async def leave(self, seat: Seat) -> None:
        """Want no more of it. When nobody does, it is ended first."""
        flight = seat.flight
        flight.seats.remove(seat)
        rest = flight.outputs[seat.place :]
        flight.fare.leave(seat, flight.seats, rest, is_over=flight.is_over)
        flight.tell()  # whoever pays from now on
        if not flight.seats and not flight.is_over:
            self._close(flight)  # nobody may board what is about to end
            await self._end(flight)

    async def aclose(self) -> None:
        """End what is left."""
        for flight in list(self._tasks):
            await self._end(flight)

    async def _end(self, flight: Flight) -> None:
        task = self._tasks.get(flight)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _landed(self, flight: Flight, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # its askers are told of it; one that is ended as it fails has none left
        self._tasks.pop(flight, None)
        self._close(flight)

    def _close(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
