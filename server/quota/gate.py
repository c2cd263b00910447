"""The policy of quotas: what is reserved for a turn, held while it streams, and settled at its end.

What counts, by how a response ended:

- Its provider told what it used: that.
- It came from the cache: what that bills, by default nothing.
- Nobody told, and something was said: what was sent and said, as counted here.
- Nobody told, and it was cancelled before anything was said: what was sent, once the agent had been asked.
- Nobody told, and nothing was said (failed, cancelled in time, lost with its node): no tokens and no money.
- It never came to be (refused, a duplicate, merged into another): not even a request.

A second attempt at a turn is a response of its own, which no request is counted for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

import structlog
from msgspec import UNSET

from unbroken.server.agents.base import TurnInput
from unbroken.server.auth.directory import Directory
from unbroken.server.auth.principal import Principal
from unbroken.server.limits import ConnectionBounds
from unbroken.server.metrics import Metrics
from unbroken.server.quota.base import Amount, Decision, Ledger, Scope, UsageRecord, bounded
from unbroken.server.quota.estimate import prompt_tokens, request_tokens
from unbroken.server.quota.meter import Meter, first_output, used
from unbroken.server.quota.plans import Plans
from unbroken.server.quota.prices import Prices
from unbroken.server.quota.refusal import refusal_of
from unbroken.sessions.clock import Clock
from unbroken.sessions.entries import CreateResponse, ResponseDone
from unbroken.sessions.errors import Refusal, ResponderError, SessionError, StoreUnavailable
from unbroken.sessions.ids import PrincipalId, ResponseId, SessionId
from unbroken.sessions.node import Attachment
from unbroken.sessions.responder import Finish, Output, Turn
from unbroken.sessions.session import Session

__all__ = ["Asker", "Gate", "UnknownPrincipal"]

_K = TypeVar("_K")
_V = TypeVar("_V")

_LIFETIME: Final = 300.0
"""Seconds after which a reservation that nobody holds is given back."""

_MOMENT: Final = 60.0
"""The same, of one of which nobody knows whether its response was asked for."""

_RENEWAL: Final = _MOMENT / 3

_WAITING_RENEWAL: Final = _MOMENT / 3
"""Seconds after which what waits in a session is held again, by whichever of its turns runs then."""

_SESSIONS_KNOWN: Final = 10_000
"""Sessions of which it is known when that is. In one that was forgotten it is at once."""

_TURNS_KNOWN: Final = 100_000

_KNOWN_FOR: Final = 600.0
"""Seconds after which whoever asks is noted again: nodes forget them in a week, or among very many others."""

_PRINCIPALS_KNOWN: Final = 10_000
_RESERVED_KNOWN: Final = 10_000

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
        self._waiting = waiting
        # Of turns that run here: whose they are, whatever the directory forgets meanwhile.
        self._meters: OrderedDict[ResponseId, tuple[Principal, Meter]] = OrderedDict()
        self._known: OrderedDict[PrincipalId, float] = OrderedDict()  # when each was noted last
        # What was reserved here of late, and when, by the turn.
        self._reserved: OrderedDict[str, tuple[Amount, float]] = OrderedDict()
        self._waiting_at: OrderedDict[SessionId, float] = OrderedDict()  # when to hold what waits there
        self._tasks: set[asyncio.Task[None]] = set()

    def asker(self, principal: Principal, address: bytes | None) -> Asker | None:
        """Return what asks for a connection's turns; None: nothing is counted for its plan."""
        if self.plans.mode(principal.plan) == "off":
            return None
        return Asker(self, principal, _scopes_of(principal, address))

    def connections(self, plan: str) -> ConnectionBounds:
        """Return how many connections somebody of *plan*, and theirs, may have."""
        return self.plans.connections(plan)

    # Admission.

    async def reserve(
        self, principal: Principal, scopes: Sequence[Scope], turn: str, amount: Amount
    ) -> Decision:
        """Reserve for a turn.

        Raises:
            QuotaRefusal: There is too little of something. Nothing was reserved.
            Refusal: Nobody can be asked, and the ledger is strict.

        """
        tenant, plan = principal.tenant, principal.plan
        limits, enforce = self.plans.limits(plan), self.plans.mode(plan) == "on"
        try:
            decision = await self.ledger.reserve(
                tenant, turn, scopes, limits, amount, lifetime=_LIFETIME, enforce=enforce
            )
        except (asyncio.CancelledError, StoreUnavailable) as exc:
            self.begin(self.ledger.release(tenant, turn))  # it may have been reserved all the same
            if isinstance(exc, asyncio.CancelledError):
                raise
            message = "What you have used can't be told for the moment. Send this again in a while."
            raise Refusal("store_unavailable", message) from None
        self._count(decision, plan)
        if decision.denied is not None and enforce:
            raise refusal_of(decision)
        if decision.is_new:
            _remember(self._reserved, turn, (amount, self._clock.monotonic()), _RESERVED_KNOWN)
        return decision

    def amount(self, principal: Principal, session: Session, command: CreateResponse) -> Amount:
        """Return what to reserve for a response that is asked for."""
        wanted, config = command.request.max_output_tokens, session.config
        most = config.max_output_tokens if wanted is None else wanted
        return self._meter(principal, config.model, request_tokens(session, command.request), most).ahead()

    def _meter(self, principal: Principal, model: str, prompt: int, most: int | None, said: int = 0) -> Meter:
        price = self._prices.of(model)
        first = first_output(self.plans.limits(principal.plan), price, most)
        return Meter(model, price, prompt, first, said)

    def _count(self, decision: Decision, plan: str) -> None:
        denied = "denied" if self.plans.mode(plan) == "on" else "would_deny"
        outcome = "granted" if decision.denied is None else denied
        self._metrics.quota_decisions.labels(outcome).inc()

    async def know(self, principal: Principal) -> None:
        """Have nodes know whose turn runs: whoever stays connected for weeks is noted again."""
        now = self._clock.monotonic()
        if now - self._known.get(principal.id, float("-inf")) < _KNOWN_FOR:
            return
        self._known[principal.id] = now
        self._known.move_to_end(principal.id)
        while len(self._known) > _PRINCIPALS_KNOWN:
            self._known.popitem(last=False)
        with suppress(StoreUnavailable):  # then as it was noted before
            await self._directory.note(principal)

    # While a turn runs.

    async def metered(
        self, turn: Turn, given: TurnInput, outputs: AsyncGenerator[Output, None]
    ) -> AsyncGenerator[Output, None]:
        """Yield *outputs* as long as there is budget for them; then end the turn, with what there is.

        Raises:
            UnknownPrincipal: Nobody can say for whom to count it, and the gate is strict.

        """
        async with aclosing(outputs) as pieces:
            principal = await self._find(turn.principal)
            if principal is None and self._is_strict and self.plans.refuse:
                raise UnknownPrincipal
            if principal is None or self.plans.mode(principal.plan) == "off":
                async for piece in pieces:
                    yield piece
                return
            resumption = turn.resumption
            said = 0 if resumption is None else resumption.offset + sum(resumption.calls)
            prompt, most = prompt_tokens(given), given.max_output_tokens
            meter = self._meter(principal, given.model, prompt, most, said)
            first = meter.ahead()
            if not (self._has_reserved(turn, first) or await self._hold(principal, turn, first)):
                yield Finish("quota_exceeded")
                return
            _remember(self._meters, turn.response_id, (principal, meter), _TURNS_KNOWN)
            renew_at = self._clock.monotonic() + _RENEWAL
            self._hold_waiting(principal, turn.session_id)
            async for piece in pieces:
                if needs_more := meter.take(piece):
                    meter.ahead()
                if needs_more or self._clock.monotonic() >= renew_at:
                    if not await self._hold(principal, turn, meter.held):
                        yield Finish("quota_exceeded")
                        return
                    renew_at = self._clock.monotonic() + _RENEWAL
                self._hold_waiting(principal, turn.session_id)
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
        if has_enough or await self._hold(principal, turn, meter.held):
            return True
        forgo()
        return False

    def _has_reserved(self, turn: Turn, amount: Amount) -> bool:
        """Whether so much was reserved here a moment ago, so that nobody has to be asked."""
        reserved, at = self._reserved.pop(_turn_id(turn.session_id, turn.response_id), (Amount(), 0.0))
        is_enough = reserved.tokens >= amount.tokens and reserved.cost >= amount.cost
        return is_enough and at > self._clock.monotonic() - _RENEWAL

    def _hold_waiting(self, principal: Principal, session_id: SessionId) -> None:
        """Go on holding what was reserved for responses that wait: they are turns at once, too.

        It is the session's turns that come to a renewal together: each alone may be too short for one.
        """
        now = self._clock.monotonic()
        if now < self._waiting_at.get(session_id, now):
            return
        _remember(self._waiting_at, session_id, now + _WAITING_RENEWAL, _SESSIONS_KNOWN)
        if waiting := self._waiting(session_id):
            self.begin(self._keep(principal.tenant, [_turn_id(session_id, each) for each in waiting]))

    async def _keep(self, tenant: str, turns: Sequence[str]) -> None:
        for turn in turns:
            await self.ledger.keep(tenant, turn, lifetime=_LIFETIME)

    async def _hold(self, principal: Principal, turn: Turn, amount: Amount) -> bool:
        enforce = self.plans.mode(principal.plan) == "on"
        decision = await self.ledger.hold(
            principal.tenant,
            _turn_id(turn.session_id, turn.response_id),
            _scopes_of(principal, None),
            self.plans.limits(principal.plan),
            amount,
            lifetime=_LIFETIME,
            enforce=enforce,
            as_new=turn.attempt == 1,  # a further one's was let in, and the place of the last may still count
        )
        if decision.denied is not None:
            self._count(decision, principal.plan)
        return decision.denied is None or not enforce

    # Its end.

    def ended(self, session: Session, done: ResponseDone) -> None:
        """Settle a response that has ended: the log says so, and this node has written it."""
        principal, meter = self._meters.pop(done.response_id, (None, None))
        if session.principal is not None:
            model = session.config.model if meter is None else meter.model
            self.begin(self._settle(session.id, principal or session.principal, model, done, meter))

    async def _settle(
        self,
        session_id: SessionId,
        whose: Principal | PrincipalId,
        model: str,
        done: ResponseDone,
        meter: Meter | None,
    ) -> None:
        principal = whose if isinstance(whose, Principal) else await self._find(whose)
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
        turn, scopes = _turn_id(session_id, done.response_id), _scopes_of(principal, None)
        await self.ledger.settle(principal.tenant, turn, scopes, amount, record)

    async def _find(self, principal_id: PrincipalId) -> Principal | None:
        principal = await self._directory.known(principal_id)
        if principal is None:
            self._metrics.quota_decisions.labels("unknown").inc()
        return principal

    # Tasks.

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something be done that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            structlog.get_logger().error("task failed", exc_info=exc)

    async def settled(self) -> None:
        """Return when everything has been settled that has ended."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def aclose(self) -> None:
        """Settle what has ended, for some seconds; the rest lapses."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_SETTLING)
        for task in set(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLING):
                await self.ledger.aclose()


class Asker:
    """Asks for the turns of one connection."""

    __slots__ = ("_gate", "_principal", "_scopes")

    def __init__(self, gate: Gate, principal: Principal, scopes: tuple[Scope, ...]) -> None:
        self._gate = gate
        self._principal = principal
        self._scopes = scopes

    async def reserve(self, session: Session, command: CreateResponse) -> Decision:
        """Reserve for a response, before it is submitted.

        Raises:
            QuotaRefusal: There is too little of something.

        """
        await self._gate.know(self._principal)
        turn = _turn_id(session.id, command.response_id)
        return await self._gate.reserve(
            self._principal, self._scopes, turn, self._gate.amount(self._principal, session, command)
        )

    def release(self, session: Session, command: CreateResponse) -> None:
        """Give back what was reserved: it was not submitted, or had been before."""
        turn = _turn_id(session.id, command.response_id)
        self._gate.begin(self._gate.ledger.release(self._principal.tenant, turn))

    def loosen(self, session: Session, command: CreateResponse) -> None:
        """Hold what was reserved for a moment only: nobody knows whether it was submitted.

        If it was, whoever runs it goes on holding it.
        """
        turn = _turn_id(session.id, command.response_id)
        self._gate.begin(self._gate.ledger.keep(self._principal.tenant, turn, lifetime=_MOMENT))

    def follow(self, attachment: Attachment, command: CreateResponse, seq: int) -> None:
        """Give it back too if what was submitted as input *seq* turns out to be refused, or merged."""
        self._gate.begin(self._follow(attachment, command, seq))

    async def _follow(self, attachment: Attachment, command: CreateResponse, seq: int) -> None:
        try:
            await attachment.answered(seq)
        except SessionError:
            return  # it lapses, unless another node goes on with it
        session = attachment.session
        if seq in session.refusals or session.was_merged(command.response_id):
            turn = _turn_id(session.id, command.response_id)
            await self._gate.ledger.release(self._principal.tenant, turn)


def _remember(known: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    """Add something of a turn. Of more than *most*, forget the one that is the longest there."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)


def _turn_id(session_id: SessionId, response_id: ResponseId) -> str:
    """Return what a response is called in the ledger, on whichever node."""
    return f"{session_id}:{response_id}"


def _scopes_of(principal: Principal, address: bytes | None) -> tuple[Scope, ...]:
    """Return whom a principal's turns are counted for. Without *address* (loopback): for none."""
    mine = (Scope("t"), Scope("u", principal.id))
    return mine if address is None else (*mine, Scope("a", address.hex()))
