"""Keeps the workers of a server running: starts them, starts again those that end, and ends all of them.

A worker that can't start when the server begins is a server that can't start. Later, one that ends
is started again, ever more slowly. One that does nothing but crash ends the server, as it would go on
with ever fewer nodes, unnoticed; so does the last one that listens, if it says that it can't go on.
One that hangs is killed, and has crashed: it would keep its share of the port's connections for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.config import StartupError
from unbroken.server.restarts import MOST_CRASHES, End, Restarts
from unbroken.sessions.clock import Clock, pause

__all__ = ["Left", "Supervisor", "Worker"]

# A worker is gone within 5 seconds after its drain's deadline, and within 1 after it was cut.
_DRAIN_SLACK: Final = 6.0
_CUT_TIMEOUT: Final = 2.0
_KILL_TIMEOUT: Final = 5.0

_LOOK_INTERVAL: Final = 1.0
_PATIENCE: Final = 60.0
"""Seconds of silence after which a worker that has listened hangs. Other nodes have its sessions after 8, so
that waiting longer costs no turn; a loop that is held for a while, as by a loading model, goes on before."""

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class Left(NamedTuple):
    """How a worker ended."""

    code: int
    """Its exit code; below 0: the number of the signal that ended it."""
    refusal: str = ""
    """What it lacks, if it says that it can't start, or can't go on."""


class Worker(Protocol):
    """One node's process, as its parent sees it. No method blocks."""

    async def ready(self) -> str | None:
        """Return what it says of itself once it listens. None: it has ended, or is about to."""

    def showed_life(self) -> bool:
        """Return whether it has said since the last call that its event loop runs.

        From when it listens to its end, also while it drains, it says so each second.
        """

    async def ended(self) -> Left:
        """Wait for its end."""

    def drain(self) -> None:
        """Have it drain, and end. Harmless for one that has ended, or does so already."""

    def cut(self) -> None:
        """Have it end at once. Harmless for one that has ended."""

    def kill(self) -> None:
        """End it, whatever it does. Harmless for one that has ended."""


class Supervisor:
    """The workers of one server.

    Args:
        count: How many; their numbers are from 1.
        start: Starts the worker of a number. Raises StartupError if the system doesn't.
        clock: Where time comes from, but for the wait for their end.
        drain_timeout: Seconds that running turns get when all is to end.
        on_up: Called once, when all listen for the first time, with what one of them says of itself.
        patience: Seconds that one which has listened may be silent for, until it is killed.

    """

    def __init__(
        self,
        count: int,
        start: Callable[[int], Worker],
        clock: Clock,
        *,
        drain_timeout: float,
        on_up: Callable[[str], None],
        patience: float = _PATIENCE,
    ) -> None:
        self._count: Final = count
        self._start = start
        self._clock = clock
        self._drain_timeout: Final = drain_timeout
        self._on_up = on_up
        self._patience: Final = patience
        self._workers: dict[int, Worker] = {}
        self._awaited = set(range(1, count + 1))  # those that have never listened
        self._listening: set[int] = set()

    async def run(self, requested: asyncio.Event, forced: asyncio.Event) -> None:
        """Run the workers until *requested* is set, and drain them; *forced* cuts that short.

        All of them have ended when it returns or raises.

        Raises:
            StartupError: One of them can't start, or crashes again and again. The others were drained.

        """
        keepers = [asyncio.create_task(self._keep(number)) for number in range(1, self._count + 1)]
        asked = asyncio.create_task(requested.wait())
        try:
            # A keeper ends by failing only.
            await asyncio.wait((asked, *keepers), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asked, *keepers):
                task.cancel()
            await asyncio.wait((asked, *keepers))
            await self._end(forced)
        for keeper in keepers:
            if not keeper.cancelled():
                keeper.result()

    async def _keep(self, number: int) -> None:
        """Have worker *number* running, for ever."""
        restarts = Restarts()
        while True:
            began = self._clock.monotonic()
            end, left = await self._work(number)
            how = f"exit code {left.code}" if left.code >= 0 else f"signal {-left.code}"
            if left.refusal and not self._listening:
                raise StartupError(left.refusal)
            if self._awaited:
                crashed = f"Worker {number} ended while it started ({how}). What it logged says why."
                raise StartupError(left.refusal or crashed)
            delay = restarts.delay(end, lived=self._clock.monotonic() - began)
            if delay is None:
                raise StartupError(
                    f"Worker {number} has crashed {MOST_CRASHES + 1} times in a row, last with {how}. "
                    "What it logged says why."
                )
            tell = _log.info if end is End.ASKED else _log.error
            tell("worker ended", worker=number, code=left.code, reason=left.refusal or None, again_in=delay)
            await pause(self._clock, delay)

    async def _work(self, number: int) -> tuple[End, Left]:
        """Run worker *number* once. Cancelled, it leaves the worker to :meth:`_end`."""
        try:
            worker = self._workers[number] = self._start(number)
        except StartupError as error:
            return End.REFUSED, Left(1, str(error))
        about = await worker.ready()
        if about is None:
            left = await worker.ended()
        else:
            self._note_up(number, about)
            left = await self._watched(number, worker)
        self._listening.discard(number)
        del self._workers[number]
        if left.refusal:
            return End.REFUSED, left
        return End.CRASHED if about is None or left.code else End.ASKED, left

    async def _watched(self, number: int, worker: Worker) -> Left:
        """Wait for the end of a worker that listens, and see to it where it hangs."""
        watch = asyncio.create_task(self._kill_silent(number, worker))
        try:
            return await worker.ended()
        finally:
            watch.cancel()
            await asyncio.wait((watch,))

    async def _kill_silent(self, number: int, worker: Worker) -> None:
        silent = 0.0
        while silent < self._patience:
            await pause(self._clock, _LOOK_INTERVAL)
            # By looks, not by the clock: time in which this process stood still too, as with its container
            # or in a terminal, is no worker's silence.
            silent = 0.0 if worker.showed_life() else silent + _LOOK_INTERVAL
        _log.error("worker hangs", worker=number, seconds=silent)
        worker.kill()

    def _note_up(self, number: int, about: str) -> None:
        _log.info("worker listens", worker=number)
        self._listening.add(number)
        if number in self._awaited:
            self._awaited.remove(number)
            if not self._awaited:
                self._on_up(about)

    async def _end(self, forced: asyncio.Event) -> None:
        """End all workers, each in order if there is time."""
        if not self._workers:
            return
        ends = [asyncio.create_task(worker.ended()) for worker in self._workers.values()]
        all_ended = asyncio.create_task(_all(ends))
        hurry = asyncio.create_task(forced.wait())
        try:
            for worker in self._workers.values():
                worker.drain()
            limit = self._drain_timeout + _DRAIN_SLACK
            await asyncio.wait((all_ended, hurry), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for worker in self._workers.values():
                worker.cut()
            await asyncio.wait((all_ended,), timeout=_CUT_TIMEOUT)
            if not all_ended.done():
                _log.error("workers killed", count=sum(not end.done() for end in ends))
                for worker in self._workers.values():
                    worker.kill()
                await asyncio.wait((all_ended,), timeout=_KILL_TIMEOUT)
        finally:
            for task in (hurry, all_ended, *ends):
                task.cancel()
            await asyncio.wait((hurry, all_ended, *ends))


async def _all(tasks: list[asyncio.Task[Left]]) -> None:
    await asyncio.wait(tasks)
