"""How many connections and responses somebody may have at once: on this node, and on all of them.

Where there is a tally, whoever wants one more is counted in it before they get it. What goes is told at
once. There is one call at a time, for all who have something to ask or to tell meanwhile, and it
says what is so when it is made: so numbers never arrive in another order than they came about.

Guarantees:

- On this node, nobody is ever given more than they may have.
- On all nodes, neither, while the tally can be asked; but for what is counted without being asked
  for (:meth:`Caps.change`), and for what a node has that was taken for dead, until it tells its numbers anew.
- A tally that is out of reach refuses nobody: then each node holds the bound alone. When it is
  back, or has lost something, it is told everything, and each minute besides.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

import structlog

from unbroken.sessions.backends.tally import Claim, Kind, Tally
from unbroken.sessions.clock import Clock, Timer, pause
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["Caps"]

_BATCH: Final = 256
"""Numbers in one call."""

_MOMENT: Final = 0.25
"""Seconds after which one who was refused is asked for once more: what has just gone on another node may not
have been told yet."""

_RETRY_INTERVAL: Final = 1.0
"""Seconds between two attempts at a tally that is out of reach."""

_TELLING_INTERVAL: Final = 60.0
"""Seconds after which everything is told again: in a tally, numbers that are old are forgotten."""

_LEAVING: Final = 0.1
"""Seconds for telling that this node has nothing any more. Its death would be noticed, only later, and a
process's end has but half a second."""

_Key: TypeAlias = tuple[Kind, str]


class _Asker(NamedTuple):
    most: int
    answer: asyncio.Future[bool]


class Caps:
    """What everybody has on this node, and whether they may have more.

    Args:
        clock: Where time comes from.
        tally: What all nodes have. None: there are no others, and nobody ever waits.
        on_alone: Told of each that was let in on this node's word alone, as the tally is out of reach.

    """

    def __init__(
        self, clock: Clock, tally: Tally | None = None, *, on_alone: Callable[[Kind], None] = lambda _: None
    ) -> None:
        self._clock = clock
        self._tally = tally
        self._on_alone = on_alone
        self._held: dict[_Key, int] = {}
        self._told: dict[_Key, int] = {}  # what the tally has of this node's, as far as that is known
        self._changed: dict[_Key, None] = {}  # what it may have to be told
        self._askers: dict[_Key, deque[_Asker]] = {}  # those who wait for its word, in order
        self._task: asyncio.Task[None] | None = None  # makes calls, while there is something to call for
        self._timers: dict[str, Timer] = {}
        self._is_open = False
        self._is_alone = False  # whether the tally failed when it was last asked

    def held(self, kind: Kind, whose: str) -> int:
        """Return how many of *kind* somebody has on this node."""
        return self._held.get((kind, whose), 0)

    def holders(self, kind: Kind) -> int:
        """Return how many have any of *kind* on this node. Walks through all."""
        return sum(of == kind for of, _ in self._held)

    # While there is a tally.

    def open(self) -> None:
        """Ask and tell the tally from here on. Before, and after :meth:`aclose`, this node is by itself."""
        if self._tally is not None:
            self._is_open = True
            self._later("telling", _TELLING_INTERVAL, self._tell_again)

    async def aclose(self) -> None:
        """Tell the tally that this node has nothing, in a moment or not at all. Harmless if it isn't open."""
        self._is_open = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        try:
            with suppress(TimeoutError, StoreUnavailable):
                async with asyncio.timeout(_LEAVING):
                    await self._take_back()
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})
            self._let_in()

    async def _take_back(self) -> None:
        if self._task is not None:
            await asyncio.wait({self._task})
        while self._tally is not None and self._told and not self._is_alone:
            keys = list(islice(self._told, _BATCH))
            await self._tally.settle([Claim(*key, held=0) for key in keys])
            for key in keys:
                del self._told[key]

    def _later(self, name: str, delay: float, callback: Callable[[], None]) -> None:
        self._timers[name] = self._clock.call_later(delay, callback)

    # What everybody has.

    async def admit(self, kind: Kind, whose: str, most: int) -> bool:
        """Count one more, unless there are *most* already. Return whether it was: then have it go again,
        by :meth:`change`.

        Without a tally it never suspends. With one, whoever is refused by it is asked for once
        more, after a moment. One who is cut off while waiting is not counted.
        """
        key = kind, whose
        if not self._has_room(key, most):
            return False
        if await self._try(key, most):
            return True
        await pause(self._clock, _MOMENT)
        return self._has_room(key, most) and await self._try(key, most)

    def change(self, kind: Kind, whose: str, by: int) -> None:
        """Count so many more, or fewer, without asking: of what goes, or is here whether it may or not."""
        self._count((kind, whose), by)

    def _has_room(self, key: _Key, most: int) -> bool:
        return self._held.get(key, 0) + len(self._askers.get(key, ())) < most

    def _count(self, key: _Key, by: int) -> None:
        held = self._held.get(key, 0) + by
        if held < 0:
            raise AssertionError("can't happen: more went than came")
        if held:
            self._held[key] = held
        else:
            self._held.pop(key, None)
        if self._told.get(key) == held:
            self._changed.pop(key, None)
        elif self._tally is not None:
            self._changed[key] = None
            self._begin()

    async def _try(self, key: _Key, most: int) -> bool:
        if self._is_open and not self._is_alone:
            return await self._ask(key, most)
        self._count(key, 1)
        if self._is_open:
            self._on_alone(key[0])
        return True

    async def _ask(self, key: _Key, most: int) -> bool:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._askers.setdefault(key, deque()).append(_Asker(most, answer))
        self._begin()
        try:
            return await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.result():
                self._count(key, -1)  # it was let in, in this very moment
            raise

    # What the tally is asked and told.

    def renew(self) -> None:
        """Tell the tally everything: it may have lost something."""
        self._told.clear()
        self._changed.update(dict.fromkeys(self._held))
        self._begin()

    def _tell_again(self) -> None:
        self._later("telling", _TELLING_INTERVAL, self._tell_again)
        self.renew()

    def _begin(self, *, is_retry: bool = False) -> None:
        if self._task is None and self._is_open and (is_retry or not self._is_alone):
            # What is logged there must not bear the ids of the connection that came first.
            self._task = asyncio.get_running_loop().create_task(self._work(), context=contextvars.Context())

    async def _work(self) -> None:
        assert self._tally is not None
        batch: list[Claim] = []
        try:
            while batch := self._batch():
                self._answered(batch, await self._tally.settle(batch))
        except StoreUnavailable as exc:
            self._go_alone(batch, str(exc), None)
        except Exception as exc:  # noqa: BLE001 - the boundary: whoever waits must not wait for ever
            self._go_alone(batch, type(exc).__name__, exc)
        else:
            self._is_alone = False  # also where there was nothing to tell
        finally:
            self._task = None

    def _batch(self) -> list[Claim]:
        """Return what to ask and to tell now: who waits comes first."""
        batch: list[Claim] = []
        for key in islice(self._askers, _BATCH // 2):  # and what has gone makes room for others
            askers = self._askers[key]
            self._changed.pop(key, None)
            # They may not all be allowed as many: those behind the first who isn't are asked for next.
            most = askers[0].most
            wanted = next((i for i, asker in enumerate(askers) if asker.most != most), len(askers))
            batch.append(Claim(*key, self._held.get(key, 0), wanted=wanted, most=most))
        while self._changed and len(batch) < _BATCH:
            key = next(iter(self._changed))
            del self._changed[key]
            held = self._held.get(key, 0)
            if self._told.get(key) != held:
                batch.append(Claim(*key, held))
        return batch

    def _answered(self, batch: Sequence[Claim], given: Sequence[int]) -> None:
        for claim, count in zip(batch, given, strict=True):
            key = claim.kind, claim.whose
            self._answer(key, claim.wanted, count)
            told = claim.held + count
            if told:
                self._told[key] = told
            else:
                self._told.pop(key, None)
            if self._held.get(key, 0) != told:  # somebody has gone, or has given up waiting
                self._changed[key] = None
        if self._is_alone:
            self._is_alone = False
            structlog.get_logger().info("caps hold on all nodes again")
            self.renew()

    def _answer(self, key: _Key, asked: int, given: int) -> int:
        """Let the first *given* in, of the first *asked* who still wait, and refuse the others."""
        askers = self._askers.get(key, deque())
        count = 0
        for _ in range(asked):
            answer = askers.popleft().answer
            if not answer.done():
                answer.set_result(count < given)
                count += count < given
        self._askers.pop(key, None)
        if askers:
            self._askers[key] = askers  # behind the others: their turn is next
        if count:
            self._held[key] = self._held.get(key, 0) + count
        return count

    def _go_alone(self, batch: Sequence[Claim], reason: str, exc: Exception | None) -> None:
        if not self._is_alone:
            structlog.get_logger().warning("caps hold on this node alone", reason=reason, exc_info=exc)
        self._is_alone = True
        self._let_in()
        self._told.clear()
        self._changed.update(dict.fromkeys((claim.kind, claim.whose) for claim in batch))
        self._changed.update(dict.fromkeys(self._held))
        if self._is_open:
            self._later("retry", _RETRY_INTERVAL, lambda: self._begin(is_retry=True))

    def _let_in(self) -> None:
        """Let everybody in who waits: there is room for them on this node."""
        for key, askers in list(self._askers.items()):
            for _ in range(self._answer(key, len(askers), len(askers))):
                self._on_alone(key[0])
