"""What the turns of a node have reserved in the ledger, under which name, and for whom it counts."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, TypeVar

from unbroken.server.auth.principal import Principal
from unbroken.server.metrics import Metrics
from unbroken.server.quota.background import Background
from unbroken.server.quota.base import TURNS, Amount, Decision, Ledger, Limits, Scope
from unbroken.server.quota.plans import Plans
from unbroken.server.quota.refusal import refusal_of
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import Refusal, StoreBusy, StoreUnavailable
from unbroken.sessions.ids import ResponseId, SessionId
from unbroken.sessions.responder import Turn

__all__ = ["RENEWAL", "Reservations", "remember", "scopes_of", "turn_id"]

_K = TypeVar("_K")
_V = TypeVar("_V")

_LIFETIME: Final = 300.0
"""Seconds after which a reservation that nobody holds is given back."""

_MOMENT: Final = 60.0
"""The same, of one of which nobody knows whether its response was asked for."""

RENEWAL: Final = _MOMENT / 3
"""Seconds after which whoever needs a reservation holds it again."""

_RESERVED_KNOWN: Final = 10_000


class Reservations:
    """Reserves, holds and gives back.

    Args:
        ledger: What counts.
        plans: What each plan may use.
        background: Where it is given back.
        clock: Where time comes from.
        metrics: Where decisions are counted.

    """

    def __init__(
        self, ledger: Ledger, plans: Plans, background: Background, clock: Clock, metrics: Metrics
    ) -> None:
        self._ledger = ledger
        self._plans = plans
        self._background = background
        self._clock = clock
        self._metrics = metrics
        # What was reserved here of late, and when, by the turn.
        self._reserved: OrderedDict[str, tuple[Amount, float]] = OrderedDict()

    async def reserve(
        self, principal: Principal, scopes: Sequence[Scope], turn: str, amount: Amount
    ) -> Decision:
        """Reserve for a turn that is asked for. In shadow it may come in any case, and no limit is told.

        Raises:
            QuotaRefusal: There is too little of something. Nothing was reserved.
            Refusal: Nobody can be asked, and the ledger is strict.

        """
        decision = await self._ask(principal, scopes, turn, amount, self._plans.limits(principal.plan))
        if decision.is_new:
            remember(self._reserved, turn, (amount, self._clock.monotonic()), _RESERVED_KNOWN)
        return decision

    async def charge(self, principal: Principal, scopes: Sequence[Scope], name: str) -> Decision:
        """Count one request that asks for no turn: for good, and once by its *name*.

        Raises:
            QuotaRefusal: There are too many.
            Refusal: As of :meth:`reserve`.

        """
        limits = {
            kind: {code: limit for code, limit in row.items() if code != TURNS}
            for kind, row in self._plans.limits(principal.plan).items()
        }
        decision = await self._ask(principal, scopes, name, Amount(), limits)
        self._background.begin(self._finish(principal.tenant, name, scopes))
        return decision

    async def _finish(self, tenant: str, name: str, scopes: Sequence[Scope]) -> None:
        with suppress(StoreUnavailable):  # then it lapses
            await self._ledger.settle(tenant, name, scopes, Amount(), None)

    async def _ask(
        self, principal: Principal, scopes: Sequence[Scope], turn: str, amount: Amount, limits: Limits
    ) -> Decision:
        tenant, plan = principal.tenant, principal.plan
        enforce = self._plans.mode(plan) == "on"
        try:
            decision = await self._ledger.reserve(
                tenant, turn, scopes, limits, amount, lifetime=_LIFETIME, enforce=enforce
            )
        except (asyncio.CancelledError, StoreUnavailable) as exc:
            if not enforce and not isinstance(exc, asyncio.CancelledError):
                self._metrics.quota_decisions.labels("would_deny").inc()
                return Decision(is_new=False)  # what it takes is held as it begins
            self.release(tenant, turn)  # it may have been reserved all the same
            if isinstance(exc, asyncio.CancelledError):
                raise
            message = "What you have used can't be told for the moment. Send this again in a while."
            raise Refusal("store_unavailable", message) from None
        self._count(decision, plan)
        if decision.denied is not None and enforce:
            raise refusal_of(decision)
        return decision if enforce else Decision(is_new=decision.is_new)

    async def hold(self, principal: Principal, turn: Turn, amount: Amount) -> bool:
        """Hold *amount* for a turn that runs, from now on. Return whether it may go on.

        It may also where this node asks too much of the ledger for an answer in time: what it takes is held
        with what is asked for next, and counted at its end.
        """
        enforce = self._plans.mode(principal.plan) == "on"
        try:
            decision = await self._ledger.hold(
                principal.tenant,
                turn_id(turn.session_id, turn.response_id),
                scopes_of(principal, None),
                self._plans.limits(principal.plan),
                amount,
                lifetime=_LIFETIME,
                enforce=enforce,
                # A further one's was let in, and the place of the last may still count.
                as_new=turn.attempt == 1,
            )
        except StoreBusy:
            self._metrics.quota_decisions.labels("busy").inc()
            return True
        if decision.denied is not None:
            self._count(decision, principal.plan)
        return decision.denied is None or not enforce

    async def begin(self, principal: Principal, turn: Turn, amount: Amount) -> bool:
        """Hold *amount* for a turn that begins. Where so much was reserved here just now, nobody is asked."""
        reserved, at = self._reserved.pop(turn_id(turn.session_id, turn.response_id), (Amount(), 0.0))
        is_enough = reserved.tokens >= amount.tokens and reserved.cost >= amount.cost
        if is_enough and at > self._clock.monotonic() - RENEWAL:
            return True
        return await self.hold(principal, turn, amount)

    def keep(self, tenant: str, turns: Sequence[str]) -> None:
        """Go on holding what was reserved for *turns*, as it is. Nobody waits for it."""
        self._background.begin(self._keep(tenant, turns, _LIFETIME))

    async def keep_one(self, tenant: str, turn: str) -> None:
        """Go on holding what was reserved for *turn*, as it is."""
        await self._ledger.keep(tenant, turn, lifetime=_LIFETIME)

    def loosen(self, tenant: str, turn: str) -> None:
        """Hold what was reserved for a moment only. Nobody waits for it."""
        self._background.begin(self._keep(tenant, [turn], _MOMENT))

    def release(self, tenant: str, turn: str) -> None:
        """Give back what was reserved. Nobody waits for it."""
        self._background.begin(self._ledger.release(tenant, turn))

    async def _keep(self, tenant: str, turns: Sequence[str], lifetime: float) -> None:
        for turn in turns:
            await self._ledger.keep(tenant, turn, lifetime=lifetime)

    def _count(self, decision: Decision, plan: str) -> None:
        denied = "denied" if self._plans.mode(plan) == "on" else "would_deny"
        outcome = "granted" if decision.denied is None else denied
        self._metrics.quota_decisions.labels(outcome).inc()


def remember(known: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    """Add something of a turn. Of more than *most*, forget the one that is the longest there."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)


def turn_id(session_id: SessionId, response_id: ResponseId) -> str:
    """Return what a response is called in the ledger, on whichever node."""
    return f"{session_id}:{response_id}"


def scopes_of(principal: Principal, address: bytes | None) -> tuple[Scope, ...]:
    """Return whom a principal's turns are counted for. Without *address* (loopback): for none."""
    mine = (Scope("t"), Scope("u", principal.id))
    return mine if address is None else (*mine, Scope("a", address.hex()))
