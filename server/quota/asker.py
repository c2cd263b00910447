"""What asks for the turns of connections: a budget is there before a response is submitted, or it isn't."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import Final

from unbroken.server.auth.directory import Directory
from unbroken.server.auth.principal import Principal
from unbroken.server.quota.background import Background
from unbroken.server.quota.base import Amount, Decision, Ledger, Scope
from unbroken.server.quota.estimate import request_tokens
from unbroken.server.quota.meter import begun
from unbroken.server.quota.plans import Plans
from unbroken.server.quota.prices import Prices
from unbroken.server.quota.reservations import Reservations, scopes_of, turn_id
from unbroken.sessions.clock import Clock
from unbroken.sessions.entries import CreateResponse
from unbroken.sessions.errors import SessionError, StoreUnavailable
from unbroken.sessions.ids import PrincipalId, SessionId
from unbroken.sessions.node import Attachment
from unbroken.sessions.session import Session

__all__ = ["Asker", "Askers"]

_KNOWN_FOR: Final = 600.0
"""Seconds after which whoever asks is noted again: nodes forget them in a week, or among very many others."""

_PRINCIPALS_KNOWN: Final = 10_000


class Askers:
    """What all askers of a node have in common.

    Args:
        ledger: What counts.
        reservations: What turns have reserved there.
        background: Where that is told which nobody waits for.
        plans: What each plan may use.
        prices: What tokens cost.
        directory: Where whoever asks is noted.
        clock: Where time comes from.

    """

    def __init__(
        self,
        ledger: Ledger,
        reservations: Reservations,
        background: Background,
        plans: Plans,
        prices: Prices,
        directory: Directory,
        clock: Clock,
    ) -> None:
        self.ledger: Final = ledger
        self.reservations: Final = reservations
        self.background: Final = background
        self._plans = plans
        self._prices = prices
        self._directory = directory
        self._clock = clock
        self._known: OrderedDict[PrincipalId, float] = OrderedDict()  # when each was noted last

    def of(self, principal: Principal, address: bytes | None) -> Asker | None:
        """Return what asks for a connection's turns; None: nothing is counted for its plan."""
        if self._plans.mode(principal.plan) == "off":
            return None
        return Asker(self, principal, scopes_of(principal, address))

    def amount(self, principal: Principal, session: Session, command: CreateResponse) -> Amount:
        """Return what to reserve for a response that is asked for."""
        wanted, config = command.request.max_output_tokens, command.request.config_in(session.config)
        most = config.max_output_tokens if wanted is None else wanted
        prompt, limits = (
            request_tokens(session, command.request, command.said),
            self._plans.limits(principal.plan),
        )
        model = command.request.model_with(config)
        return begun(model, self._prices.of(model), limits, prompt, most).ahead()

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


class Asker:
    """Asks for the turns of one connection."""

    __slots__ = ("_common", "_principal", "_scopes")

    def __init__(self, common: Askers, principal: Principal, scopes: tuple[Scope, ...]) -> None:
        self._common = common
        self._principal = principal
        self._scopes = scopes

    async def reserve(self, session: Session, command: CreateResponse) -> Decision:
        """Reserve for a response, before it is submitted.

        Raises:
            QuotaRefusal: There is too little of something.

        """
        await self._common.know(self._principal)
        turn = turn_id(session.id, command.response_id)
        amount = self._common.amount(self._principal, session, command)
        return await self._common.reservations.reserve(self._principal, self._scopes, turn, amount)

    async def charge(self, session_id: SessionId) -> Decision:
        """Count a request for a session that is to begin, whether anything is asked of it or not.

        Raises:
            QuotaRefusal: There are too many.

        """
        await self._common.know(self._principal)
        return await self._common.reservations.charge(self._principal, self._scopes, f"{session_id}:begun")

    def release(self, session: Session, command: CreateResponse) -> None:
        """Give back what was reserved: it was not submitted, or had been before."""
        self._common.reservations.release(self._principal.tenant, turn_id(session.id, command.response_id))

    def loosen(self, session: Session, command: CreateResponse) -> None:
        """Hold what was reserved for a moment only: nobody knows whether it was submitted.

        If it was, whoever runs it goes on holding it.
        """
        self._common.reservations.loosen(self._principal.tenant, turn_id(session.id, command.response_id))

    def follow(self, attachment: Attachment, command: CreateResponse, seq: int) -> None:
        """Give it back too if what was submitted as input *seq* turns out to be refused, or merged."""
        self._common.background.begin(self._follow(attachment, command, seq))

    async def _follow(self, attachment: Attachment, command: CreateResponse, seq: int) -> None:
        try:
            await attachment.answered(seq)
        except SessionError:
            return  # it lapses, unless another node goes on with it
        session = attachment.session
        if seq in session.refusals or session.was_merged(command.response_id):
            turn = turn_id(session.id, command.response_id)
            await self._common.ledger.release(self._principal.tenant, turn)
