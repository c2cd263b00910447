"""The policy of quotas: what is reserved for a turn, held while it streams, and settled at its end.

What counts, by how a response ended:

- Its provider told what it used: that.
- It came from the cache: what that bills, by default nothing.
- Nobody told, and something was said: what was sent and said, as counted here; also if a drain has ended it.
- Nobody told, and it was cancelled before anything was said: what was sent, once the agent had been asked.
- Nobody told, and nothing was said (failed, cancelled in time, lost with its node): no tokens and no money.
- It never came to be (refused, a duplicate, merged into another): not even a request.

A second attempt at a turn is a response of its own, which no request is counted for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Final

from msgspec import UNSET

from unbroken.server.agents.base import TurnInput
from unbroken.server.auth.directory import Directory
from unbroken.server.auth.principal import Principal
from unbroken.server.limits import ConnectionBounds
from unbroken.server.metrics import Metrics
from unbroken.server.quota.asker import Asker, Askers
from unbroken.server.quota.background import Background, say_lost
from unbroken.server.quota.base import Ledger, UsageRecord, bounded
from unbroken.server.quota.estimate import prompt_tokens
from unbroken.server.quota.meter import Meter, begun, used
from unbroken.server.quota.plans import Plans
from unbroken.server.quota.prices import Prices
from unbroken.server.quota.renewals import Renewals
from unbroken.server.quota.reservations import RENEWAL, Reservations, remember, scopes_of, turn_id
from unbroken.server.quota.share import Share
from unbroken.sessions.clock import Clock
from unbroken.sessions.entries import ResponseDone
from unbroken.sessions.errors import ResponderError
from unbroken.sessions.ids import PrincipalId, ResponseId, SessionId
from unbroken.sessions.responder import Finish, Output, Turn
from unbroken.sessions.session import Session

__all__ = ["Gate", "UnknownPrincipal"]

_TURNS_KNOWN: Final = 100_000

_SETTLING: Final = 1.5
"""Seconds that a node that ends waits for what it has to settle, and again for what it couldn't before. There
isn't much time behind a drain's deadline."""


class UnknownPrincipal(ResponderError):
    """A turn was to run of which nobody can say whose it is, so that it could be counted for nobody."""

    def __init__(self) -> None:
        super().__init__(
            "store_unavailable", "Whose response this is can't be told. Connect again, and ask again."
        )


class Gate:
    """Decides for one node.

    Args:
        ledger: What counts.
        plans: What each plan may use.
        prices: What tokens cost.
        directory: Whom a principal's id stands for.
        clock: Where time comes from.
        metrics: Where figures go.
        is_strict: Whether a turn isn't run of which nobody can say whose it is; else it is, uncounted.
        waiting: Says which responses of a session that runs here wait behind another.

    """

    def __init__(
        self,
        ledger: Ledger,
        plans: Plans,
        prices: Prices,
        directory: Directory,
        clock: Clock,
        metrics: Metrics,
        *,
        is_strict: bool = False,
        waiting: Callable[[SessionId], Sequence[ResponseId]] = lambda _: (),
    ) -> None:
        self.ledger: Final = ledger
        self.plans: Final = plans
        self._prices = prices
        self._directory = directory
        self._clock = clock
        self._metrics = metrics
        self._is_strict = is_strict
        self._background = Background()
        self._reservations = Reservations(ledger, plans, self._background, clock, metrics)
        self._renewals = Renewals(self._reservations, self._background, clock, waiting)
        self._askers = Askers(ledger, self._reservations, self._background, plans, prices, directory, clock)
        # Of turns that run here: whose they are, whatever the directory forgets meanwhile.
        self._meters: OrderedDict[ResponseId, tuple[Principal, Meter]] = OrderedDict()

    def asker(self, principal: Principal, address: bytes | None) -> Asker | None:
        """Return what asks for a connection's turns; None: nothing is counted for its plan."""
        return self._askers.of(principal, address)

    def connections(self, plan: str) -> ConnectionBounds:
        """Return how many connections somebody of *plan*, and theirs, may have."""
        return self.plans.connections(plan)

    # While a turn runs.

    async def metered(
        self,
        turn: Turn,
        given: TurnInput,
        outputs: AsyncGenerator[Output, None],
        share: Share | None = None,
    ) -> AsyncGenerator[Output, None]:
        """Yield *outputs* as long as there is budget for them; then end the turn, with what there is.

        *share*: what is the turn's to pay of them. None: all.

        Raises:
            UnknownPrincipal: Nobody can say for whom to count it, and the gate is strict.

        """
        async with aclosing(outputs) as pieces:
            principal = await self._find(turn.principal, turn.request.plan)
            if principal is None and self._is_strict and self.plans.refuses(turn.request.plan):
                raise UnknownPrincipal
            if principal is None or self.plans.mode(principal.plan) == "off":
                async for piece in pieces:
                    yield piece
                return
            resumption = turn.resumption
            said = 0 if resumption is None else resumption.offset + sum(resumption.calls)
            prompt, most = prompt_tokens(given), given.max_output_tokens
            limits, price = self.plans.limits(principal.plan), self._prices.of(given.model)
            meter = begun(given.model, price, limits, prompt, most, said, share)
            if not await self._reservations.begin(principal, turn, meter.ahead()):
                yield Finish("quota_exceeded")
                return
            remember(self._meters, turn.response_id, (principal, meter), _TURNS_KNOWN)
            renew_at = self._clock.monotonic() + RENEWAL
            with self._renewals.running(principal, turn) as running:
                look_at = min(renew_at, self._renewals.keep_waiting(running))
                async for piece in pieces:
                    if needs_more := meter.take(piece):
                        meter.ahead()
                    if needs_more or self._clock.monotonic() >= look_at:
                        if needs_more or self._clock.monotonic() >= renew_at:
                            if not await self._reservations.hold(principal, turn, meter.held):
                                yield Finish("quota_exceeded")
                                return
                            renew_at = running.keep_at = self._clock.monotonic() + RENEWAL
                        look_at = min(renew_at, self._renewals.keep_waiting(running))
                    yield piece

    async def may_ask(self, turn: Turn, asked: TurnInput, number: int) -> bool:
        """Hold what a round of a turn that runs sends, before its agent is *asked*. False: no budget.

        *number*: of the round, from 0. Of the first one it is known only now what the server's tools add.
        """
        principal, meter = self._meters.get(turn.response_id, (None, None))
        if principal is None or meter is None:
            return True
        held = meter.held
        forgo = meter.ask(prompt_tokens(asked), is_first=number == 0)
        has_enough = meter.held.tokens <= held.tokens and meter.held.cost <= held.cost
        if has_enough or await self._reservations.hold(principal, turn, meter.held):
            return True
        forgo()
        return False

    # Its end.

    def ended(self, session: Session, done: ResponseDone) -> None:
        """Settle a response that has ended: the log says so, and this node has written it."""
        principal, meter = self._meters.pop(done.response_id, (None, None))
        if session.principal is not None:
            model = session.config.model if meter is None else meter.model
            self._background.begin(
                self._settle(
                    session.id, principal or session.principal, session.ended_plan, model, done, meter
                )
            )

    async def _settle(
        self,
        session_id: SessionId,
        whose: Principal | PrincipalId,
        plan: str | None,
        model: str,
        done: ResponseDone,
        meter: Meter | None,
    ) -> None:
        try:
            principal = whose if isinstance(whose, Principal) else await self._find(whose, plan)
        except asyncio.CancelledError:
            if plan is None or self.plans.mode(plan) != "off":
                say_lost(1)
            raise
        if principal is None or self.plans.mode(principal.plan) == "off":
            return
        usage, is_estimate = used(done, meter)
        cost = self._prices.of(model).cost(usage.input_tokens, usage.output_tokens, usage.cached_tokens)
        amount = bounded(usage.total_tokens, cost)
        record = UsageRecord(
            at=self._clock.time(),
            user=principal.user,
            session_id=session_id,
            response_id=done.response_id,
            model=model,
            status=done.status,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cost=amount.cost,
            is_estimate=is_estimate,
            reused="" if usage.reused is UNSET else usage.reused.tier,
        )
        turn, scopes = turn_id(session_id, done.response_id), scopes_of(principal, None)
        await self.ledger.settle(principal.tenant, turn, scopes, amount, record)

    async def _find(self, principal_id: PrincipalId, plan: str | None) -> Principal | None:
        """Return who that is, by the *plan* that was asked by; None: nobody can say."""
        principal = await self._directory.known(principal_id)
        if principal is None:
            self._metrics.quota_decisions.labels("unknown").inc()
            return None
        return principal.by(plan)

    async def settled(self) -> None:
        """Return when everything has been settled that has ended."""
        await self._background.settled()

    async def aclose(self) -> None:
        """Settle what has ended, for some seconds, then what couldn't be; the rest is said to be lost."""
        self._renewals.close()
        await self._background.aclose(_SETTLING)
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLING):
                await self.ledger.aclose()
