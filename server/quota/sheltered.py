"""A ledger that goes on while the shared one is out of reach: on this node alone, as caps do, if it may.

Each node then grants as if it were the only one; so with N nodes a limit may be
exceeded up to N times over, for as long as it lasts. A part of the shared one may be out of reach alone: then
that is so for the tenants whose counts it has, and for nobody else. What was used meanwhile is
kept, within bounds, and the others are told when it is back; what doesn't fit, or
is left when the node ends, is lost to them, and said so.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final, TypeVar

import structlog

from unbroken.server.quota.background import say_lost
from unbroken.server.quota.base import KEPT, Amount, Decision, Ledger, Limits, Scope, Standing, UsageRecord
from unbroken.server.quota.memory import MemoryLedger
from unbroken.sessions.clock import Clock, pause
from unbroken.sessions.errors import StoreBusy, StoreUnavailable

__all__ = ["ShelteredLedger"]

_T = TypeVar("_T")

_RETRY: Final = 5.0
"""Seconds for which a shared ledger that has failed isn't asked again: nobody's turn waits for it."""

_UNSETTLED: Final = 10_000
"""Turns that wait to be settled; and as many to be given back."""

_UNSURE: Final = KEPT / 2
"""Seconds after which a settling whose outcome nobody knows isn't tried again: what it did, if it did
anything, is known for not much longer, and nothing may be paid twice."""

_LAPSED: Final = 300.0
"""Seconds after which what couldn't be given back isn't reserved any more, whoever reserved it."""

_MOMENT: Final = 60.0
"""Seconds for which a turn is reserved whose end is told at once."""


class _NotAsked(StoreUnavailable):
    """It was out of reach a moment ago."""


@dataclass(slots=True)
class _Unsettled:
    """The end of a turn that the others are to be told of."""

    tenant: str
    turn: str
    scopes: Sequence[Scope]
    used: Amount
    record: UsageRecord | None
    is_request: bool
    """Whether its request is to be counted too: it was let in by this node alone."""
    asked_at: float | None = None
    """When it was first tried; None: it wasn't, and has had no effect for sure."""


@dataclass(slots=True)
class _Lost:
    """A part that is out of reach."""

    tenant: str
    """Whose counts it had when it failed."""
    retry_at: float


class ShelteredLedger:
    """A :class:`~unbroken.server.quota.base.Ledger` that fails only where nothing may be made up.

    That is in looking, at amounts and at standings, and if it is strict, in reserving.

    Args:
        shared: What all nodes share.
        clock: Where time comes from.
        on_alone: Told of each turn that was granted by this node's count alone.
        is_strict: Whether nothing new is let in then: reserving fails, if enforced. What runs goes on.

    """

    def __init__(
        self, shared: Ledger, clock: Clock, on_alone: Callable[[], None], *, is_strict: bool = False
    ) -> None:
        self._is_strict = is_strict
        self._shared = shared
        self._local = MemoryLedger(clock)
        self._clock = clock
        self._on_alone = on_alone
        self._lost: dict[str, _Lost] = {}  # parts that failed when they were last asked
        self._unsettled: dict[int, _Unsettled] = {}  # in order
        self._numbers = count()
        # Turns that never came to be, and until when the others may have something reserved for each.
        self._unreleased: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._telling: asyncio.Task[None] | None = None  # tells the others, while there is something to tell

    @property
    def is_alone(self) -> bool:
        """Whether any part of the shared one failed when it was last asked."""
        return bool(self._lost)

    @property
    def unsettled(self) -> int:
        """How many turns wait to be settled."""
        return len(self._unsettled)

    @property
    def unreleased(self) -> int:
        """How many wait to be given back."""
        return len(self._unreleased)

    def part_of(self, tenant: str) -> str:
        """See :meth:`Ledger.part_of`."""
        return self._shared.part_of(tenant)

    async def reserve(
        self,
        tenant: str,
        turn: str,
        scopes: Sequence[Scope],
        limits: Limits,
        amount: Amount,
        *,
        lifetime: float,
        enforce: bool = True,
    ) -> Decision:
        """See :meth:`Ledger.reserve`."""
        self._unreleased.pop((tenant, turn), None)

        def reserve(ledger: Ledger) -> Awaitable[Decision]:
            return ledger.reserve(tenant, turn, scopes, limits, amount, lifetime=lifetime, enforce=enforce)

        if self._is_strict and enforce:
            return await self._ask(tenant, reserve)
        return await self._either(tenant, reserve, enforce=enforce)

    async def hold(
        self,
        tenant: str,
        turn: str,
        scopes: Sequence[Scope],
        limits: Limits,
        amount: Amount,
        *,
        lifetime: float,
        enforce: bool = True,
        as_new: bool = False,
    ) -> Decision:
        """See :meth:`Ledger.hold`."""
        self._unreleased.pop((tenant, turn), None)

        def hold(ledger: Ledger) -> Awaitable[Decision]:
            return ledger.hold(
                tenant, turn, scopes, limits, amount, lifetime=lifetime, enforce=enforce, as_new=as_new
            )

        if self._local.knows(tenant, turn):
            return await hold(self._local)
        return await self._either(tenant, hold, enforce=enforce)

    async def keep(self, tenant: str, turn: str, *, lifetime: float) -> None:
        """See :meth:`Ledger.keep`. What can't be kept now lapses, unless it is kept in time."""
        if self._local.knows(tenant, turn):
            await self._local.keep(tenant, turn, lifetime=lifetime)
            return
        with suppress(StoreUnavailable):
            await self._ask(tenant, lambda ledger: ledger.keep(tenant, turn, lifetime=lifetime))

    async def settle(
        self, tenant: str, turn: str, scopes: Sequence[Scope], used: Amount, record: UsageRecord | None
    ) -> bool:
        """See :meth:`Ledger.settle`. True also where the others are yet to be told.

        They are told later, too, of what is cut off before they have answered.
        """
        requested = self._local.requested(tenant, turn)
        if self._local.knows(tenant, turn):
            await self._local.settle(tenant, turn, scopes, used, None)
        ended = _Unsettled(tenant, turn, requested or scopes, used, record, requested is not None)
        try:
            return await self._tell(ended)
        except (StoreUnavailable, asyncio.CancelledError) as exc:
            if len(self._unsettled) == _UNSETTLED:
                say_lost(1)
                del self._unsettled[next(iter(self._unsettled))]
            self._unsettled[next(self._numbers)] = ended
            self._begin_telling()
            if isinstance(exc, asyncio.CancelledError):
                raise
            return True

    async def release(self, tenant: str, turn: str) -> None:
        """See :meth:`Ledger.release`. The others are told as soon as they can be.

        Also where this node knows of it by itself: they may have reserved what they couldn't say any more.
        """
        if self._local.knows(tenant, turn):
            await self._local.release(tenant, turn)
        try:
            await self._ask(tenant, lambda ledger: ledger.release(tenant, turn))
        except StoreUnavailable:
            self._unreleased[tenant, turn] = self._clock.monotonic() + _LAPSED
            if len(self._unreleased) > _UNSETTLED:
                self._unreleased.popitem(last=False)  # it lapses
            self._begin_telling()

    async def look(self, tenant: str, scopes: Sequence[Scope]) -> list[Mapping[str, int]]:
        """See :meth:`Ledger.look`."""
        return await self._ask(tenant, lambda ledger: ledger.look(tenant, scopes))

    async def standings(self, tenant: str, scopes: Sequence[Scope], limits: Limits) -> tuple[Standing, ...]:
        """See :meth:`Ledger.standings`."""
        return await self._ask(tenant, lambda ledger: ledger.standings(tenant, scopes, limits))

    async def records(self, tenant: str, most: int, user: str | None = None) -> list[UsageRecord]:
        """See :meth:`Ledger.records`."""
        return await self._ask(tenant, lambda ledger: ledger.records(tenant, most, user))

    async def aclose(self) -> None:
        """See :meth:`Ledger.aclose`."""
        try:
            if self._telling is not None:
                self._telling.cancel()
                await asyncio.wait({self._telling})
            self._lost.clear()
            await self._tell_all()
        finally:
            if self._unsettled:
                say_lost(len(self._unsettled))

    async def _either(self, tenant: str, act: Callable[[Ledger], Awaitable[_T]], *, enforce: bool) -> _T:
        try:
            return await self._ask(tenant, act)
        except StoreUnavailable as exc:
            # Who asks too much is told to ask again: unless what it waited behind was an outage, or nobody is
            # refused, and all counted.
            is_busy = isinstance(exc, StoreBusy) and self._shared.part_of(tenant) not in self._lost
            if is_busy and enforce:
                raise
            self._on_alone()
            return await act(self._local)

    async def _ask(self, tenant: str, act: Callable[[Ledger], Awaitable[_T]]) -> _T:
        part, now = self._shared.part_of(tenant), self._clock.monotonic()
        if (lost := self._lost.get(part)) is not None:
            if now < lost.retry_at:
                raise _NotAsked("out of reach a moment ago")
            lost.retry_at = now + _RETRY  # this one finds out, and nobody else waits for that
        try:
            answer = await act(self._shared)
        except StoreBusy:  # it is there: this node asks for more than it gets done
            if lost is not None:
                lost.retry_at = self._clock.monotonic()
            raise
        except StoreUnavailable as exc:
            part = self._shared.part_of(tenant)  # that it is one of its own may be known only now
            if part not in self._lost:
                structlog.get_logger().warning(
                    "quotas hold on this node alone", part=part or None, reason=str(exc)
                )
            self._lost[part] = _Lost(tenant, self._clock.monotonic() + _RETRY)
            raise
        if self._lost:
            self._note_back(part if lost is not None else None)
        return answer

    def _note_back(self, part: str | None) -> None:
        """Note that *part* is there again, and parts that have nothing more of what they failed for."""
        for name, lost in list(self._lost.items()):
            if name == part or self._shared.part_of(lost.tenant) != name:
                del self._lost[name]
                structlog.get_logger().info("quotas hold on all nodes again", part=name or None)

    # What the others are told.

    async def _tell(self, ended: _Unsettled) -> bool:
        """Settle a turn with the others. Once, however often it is tried."""
        tenant, turn, scopes = ended.tenant, ended.turn, ended.scopes
        try:
            if ended.is_request:
                await self._ask(
                    tenant,
                    lambda ledger: ledger.reserve(
                        tenant, turn, scopes, {}, Amount(), lifetime=_MOMENT, enforce=False
                    ),
                )
            return await self._ask(
                tenant, lambda ledger: ledger.settle(tenant, turn, scopes, ended.used, ended.record)
            )
        except (_NotAsked, StoreBusy):
            raise
        except (StoreUnavailable, asyncio.CancelledError):
            ended.asked_at = self._clock.monotonic() if ended.asked_at is None else ended.asked_at
            raise

    def _begin_telling(self) -> None:
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell_later())

    async def _tell_later(self) -> None:
        while self._unsettled or self._unreleased:
            await pause(self._clock, _RETRY)
            await self._tell_all()
        self._telling = None

    async def _tell_all(self) -> None:
        """Tell the others of all that has ended, in order: of a part that is out of reach, later."""
        out: set[str] = set()
        waiting: set[str] = set()  # tenants: to look up their parts once, not for each turn
        for number, ended in list(self._unsettled.items()):
            if number not in self._unsettled or ended.tenant in waiting:
                continue  # it had to make room meanwhile, or has to wait
            if self._shared.part_of(ended.tenant) in out:
                waiting.add(ended.tenant)
                continue
            if ended.asked_at is not None and self._clock.monotonic() > ended.asked_at + _UNSURE:
                say_lost(1)
            else:
                try:
                    await self._tell(ended)
                except StoreUnavailable:
                    out.add(self._shared.part_of(ended.tenant))
                    continue
                except Exception as exc:  # noqa: BLE001 - the boundary: it must not be in the others' way
                    say_lost(1, exc)
            self._unsettled.pop(number, None)
        await self._give_back(out)

    async def _give_back(self, out: set[str]) -> None:
        """Have the others give back what was released meanwhile, but for parts that are *out* of reach."""
        for whose, until in list(self._unreleased.items()):
            tenant, turn = whose
            is_out = self._shared.part_of(tenant) in out
            if is_out or self._unreleased.pop(whose, None) is None:  # it was asked for again since
                continue
            if self._clock.monotonic() >= until:
                continue
            try:
                await self._ask(tenant, partial(_release, tenant, turn))
            except StoreUnavailable:
                out.add(self._shared.part_of(tenant))
                self._unreleased[whose] = until
            except Exception as exc:  # noqa: BLE001 - the boundary: it must not be in the others' way
                structlog.get_logger().error("budget not given back", hint="This is a bug.", exc_info=exc)


async def _release(tenant: str, turn: str, ledger: Ledger) -> None:
    await ledger.release(tenant, turn)
