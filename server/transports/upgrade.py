"""What a request is told that comes to a WebSocket's door without asking for a WebSocket.

Mostly a proxy on the way has left out ``Upgrade``: that there is nothing at the path would mislead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.transports.http_way import Endpoint, HttpRefusal, HttpWay, Visit, found

__all__ = ["UpgradeDoor", "upgrade_required"]


def upgrade_required() -> HttpRefusal:
    """Return the refusal of a GET that is no upgrade (RFC 9110, section 15.5.22)."""
    message = (
        "This path takes WebSockets, and the request asks for none. "
        "If the client did, a proxy on the way has to pass `Upgrade` and `Connection` on."
    )
    return HttpRefusal(426, "upgrade_required", message)


class UpgradeDoor:
    """Answers HTTP at paths where there are WebSockets, and nothing else.

    Args:
        way: What is the same for all doors.
        paths: Where.

    """

    def __init__(self, way: HttpWay, paths: Iterable[str]) -> None:
        self._way = way
        self._paths = tuple(paths)

    def routes(self) -> list[Route]:
        """Return its routes."""
        return [Route(path, Endpoint(self._serve)) for path in self._paths]

    async def _serve(self, request: Request, send: Send) -> None:
        await self._way.serve(request, send, self._tell, lambda _: None)

    async def _tell(self, visit: Visit) -> NoReturn:
        self._way.enter(visit, goes_on=True)
        found(("GET",), visit.method)
        raise upgrade_required()
