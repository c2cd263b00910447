"""``GET /v1/usage``: what the asker has used, and what is left, also in headers as OpenAI names them."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.auth.principal import REALTIME
from unbroken.server.quota.gate import Gate
from unbroken.server.quota.refusal import headers
from unbroken.server.quota.report import own_report
from unbroken.server.transports.http_way import Endpoint, HttpRefusal, HttpWay, Visit, found, json_response
from unbroken.server.transports.query import check_query
from unbroken.server.transports.refusal import Refused
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["UsageDoor", "wanted_records"]

_RECORDS: Final = 20
_MOST_RECORDS: Final = 1000


class UsageDoor:
    """Serves ``/v1/usage``."""

    def __init__(self, way: HttpWay, gate: Gate) -> None:
        self._way = way
        self._gate = gate

    def routes(self) -> list[Route]:
        """Return its route."""
        return [Route("/v1/usage", Endpoint(self._serve))]

    async def _serve(self, request: Request, send: Send) -> None:
        await self._way.serve(request, send, self._tell, _refusal_of)

    async def _tell(self, visit: Visit) -> Response:
        principal = (await self._way.admit(visit, REALTIME)).principal
        found(("GET",), visit.method)
        check_query(visit.request.query_params, ("limit", "resume", "ticket"))
        most = wanted_records(visit.request)
        body, standing = await own_report(self._gate, principal, visit.guest.address, most)
        response = json_response(body)
        response.headers.update(headers(standing))
        return response


def _refusal_of(exc: Exception) -> HttpRefusal | None:
    return HttpRefusal(503, "store_unavailable", str(exc)) if isinstance(exc, StoreUnavailable) else None


def wanted_records(request: Request) -> int:
    """Return how many turns a request wants to be told of.

    Raises:
        Refused: It doesn't say a number that may be.

    """
    given = request.query_params.get("limit", str(_RECORDS))
    if not (given.isascii() and given.isdigit() and len(given) < 6 and int(given) <= _MOST_RECORDS):
        raise Refused(400, "invalid_request", f"`limit` is a number from 0 to {_MOST_RECORDS}.")
    return int(given)
