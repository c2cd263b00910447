"""How whoever asks for responses over HTTP is let in."""

from __future__ import annotations

from unbroken.server.auth.principal import REALTIME
from unbroken.server.limits import ConnectionBounds
from unbroken.server.quota.gate import Gate
from unbroken.server.transports.exchanges import Speaker
from unbroken.server.transports.http_way import HttpWay, Visit

__all__ = ["let_in"]


async def let_in(visit: Visit, way: HttpWay, gate: Gate | None, *, goes_on: bool = False) -> Speaker:
    """Return who makes a request; it counts as one of their connections until it is answered.

    *goes_on*: with what has begun, however much there is to do.

    Raises:
        Refused: There is nobody who may, or they have as many connections as they may.

    """
    grant = await way.admit(visit, REALTIME, goes_on=goes_on)
    bounds = ConnectionBounds() if gate is None else gate.connections(grant.principal.plan)
    await visit.guest.admit(grant.principal, bounds)
    return Speaker(grant, visit.guest.address, visit.handshake.credentials.resume)
