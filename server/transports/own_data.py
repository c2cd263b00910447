"""``DELETE /v1/users/me/data``: everything of one's own, erased; and the same for operators, of anybody's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.auth.principal import Principal
from unbroken.server.erasing.base import Erasure, Report
from unbroken.server.transports.asking import refusal_of
from unbroken.server.transports.conversation_pages import check_own
from unbroken.server.transports.health import state_response
from unbroken.server.transports.http_way import Endpoint, Visit, found, json_response
from unbroken.server.transports.query import check_query
from unbroken.server.transports.reception import Reception
from unbroken.server.transports.refusal import error_type

__all__ = ["OwnDataDoor", "erasing_act"]


class OwnDataDoor:
    """Serves it.

    Args:
        reception: Lets people in.
        erasure: Erases.

    """

    def __init__(self, reception: Reception, erasure: Erasure) -> None:
        self._reception = reception
        self._erasure = erasure

    def routes(self) -> list[Route]:
        """Return its route."""
        return [Route("/v1/users/me/data", Endpoint(self._serve))]

    async def _serve(self, request: Request, send: Send) -> None:
        await self._reception.way.serve(request, send, self._erase, refusal_of)

    async def _erase(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit, goes_on=True)
        found(("DELETE",), visit.method)
        check_query(visit.request.query_params, ("resume", "ticket"))
        check_own(speaker.grant, speaker.resume)
        report = await self._erasure.erase(speaker.grant.principal)
        return json_response(_fields(report), 202 if report.left else 200)


def erasing_act(erasure: Erasure) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers an operator who has ``?tenant=&user=``'s data erased, thoroughly."""

    async def act(request: Request) -> Response:
        tenant, user = request.query_params.get("tenant", "default"), request.query_params.get("user")
        if not tenant or not user:  # as of a variable that isn't set: whose is meant, nobody can say
            error = {
                "message": "Name the user whose data is to be erased, and the tenant if it isn't `default`.",
                "type": error_type(400),
                "param": "user" if tenant else "tenant",
                "code": "invalid_request",
            }
            return state_response(400, {"error": error})
        whose = Principal(user if ":" in user else f"user:{user}", tenant)  # as keys have it
        report = await erasure.erase(whose, is_thorough=True)
        return state_response(202 if report.left else 200, _fields(report))

    return act


def _fields(report: Report) -> dict[str, object]:
    fields: dict[str, object] = {
        "object": "user.data.deleted",
        "deleted": not report.left,
        "erased": report.erased,
        "left": list(report.left),
    }
    return fields if report.looked_at is None else fields | {"looked_at": report.looked_at}
