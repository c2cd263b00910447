"""How whoever asks for responses over HTTP, or watches one, is let in, and known while they are here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Send

from unbroken.server.auth.lapse import Lapse, Lapses
from unbroken.server.auth.presence import Presence
from unbroken.server.auth.principal import REALTIME
from unbroken.server.limits import ConnectionBounds
from unbroken.server.quota.gate import Gate
from unbroken.server.transports.exchanges import Speaker
from unbroken.server.transports.field_names import FieldNames
from unbroken.server.transports.http_way import Act, HttpWay, Visit
from unbroken.sessions.clock import Clock

__all__ = ["Reception"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """What doors over HTTP that stream have in common.

    Attributes:
        way: What is the same for all doors.
        gate: Says how many connections somebody may have. None: nobody does.
        directory: Knows who is here.
        lapses: Tells when somebody may be here no longer.
        clock: Where time comes from.

    """

    way: HttpWay
    gate: Gate | None
    directory: Presence
    lapses: Lapses
    clock: Clock

    def serving(self, act: Act, names: FieldNames) -> Callable[[Request, Send], Awaitable[None]]:
        """Return what answers a route's requests by what *act* returns, or in *names* with why it can't."""

        async def serve(request: Request, send: Send) -> None:
            await self.way.serve(request, send, act, names.refusal_of)

        return serve

    async def let_in(self, visit: Visit, *, goes_on: bool = False) -> Speaker:
        """Return who makes a request; it counts as one of their connections until it is answered.

        *goes_on*: with what has begun, however much there is to do.

        Raises:
            Refused: There is nobody who may, or they have as many connections as they may.

        """
        grant = await self.way.admit(visit, REALTIME, goes_on=goes_on)
        bounds = ConnectionBounds() if self.gate is None else self.gate.connections(grant.principal.plan)
        await visit.guest.admit(grant.principal, bounds)
        handshake = visit.handshake
        return Speaker(grant, visit.guest.address, handshake.credentials.resume, handshake.trace)

    def attend(self, speaker: Speaker, staying: ExitStack, on_lapse: Callable[[Lapse], None]) -> None:
        """Know *speaker* until *staying* is closed, and call *on_lapse* if they may be here no longer."""
        staying.enter_context(self.directory.stay(speaker.grant.principal))
        stay = self.lapses.stay(speaker.grant, on_lapse)
        if stay is not None:
            staying.callback(stay.close)
