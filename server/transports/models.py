"""``GET /v1/models``: which models a request may name."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.auth.base import Grant
from unbroken.server.auth.principal import REALTIME
from unbroken.server.models import Models
from unbroken.server.transports.asking import refusal_of
from unbroken.server.transports.http_way import Endpoint, HttpRefusal, HttpWay, Visit, found, json_response
from unbroken.server.transports.query import check_query
from unbroken.sessions.clock import Clock

__all__ = ["ModelsDoor", "named_by"]


class ModelsDoor:
    """Serves ``/v1/models``.

    Args:
        way: What is the same for all doors.
        models: Which there are.
        clock: Says since when: as far as anybody knows, since this server began.

    """

    def __init__(self, way: HttpWay, models: Models, clock: Clock) -> None:
        self._way = way
        self._models = models
        self._since = int(clock.time())

    def routes(self) -> list[Route]:
        """Return its routes. Names of models have slashes."""
        serve = Endpoint(self._serve)
        return [Route("/v1/models", serve), Route("/v1/models/{model:path}", serve)]

    async def _serve(self, request: Request, send: Send) -> None:
        await self._way.serve(request, send, self._tell, refusal_of)

    async def _tell(self, visit: Visit) -> Response:
        grant = await self._way.admit(visit, REALTIME)
        found(("GET",), visit.method)
        check_query(visit.request.query_params, ("resume", "ticket"))
        names = named_by(self._models, grant)
        wanted: str | None = visit.request.path_params.get("model")
        if wanted is None:
            return json_response({"object": "list", "data": [self._fields(name) for name in names]})
        if wanted not in names:
            message = f"The model isn't offered here. Use one of: {', '.join(names)}."
            raise HttpRefusal(404, "model_not_found", message, "model")
        return json_response(self._fields(wanted))

    def _fields(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "unbroken"}


def named_by(models: Models, grant: Grant) -> list[str]:
    """Return what whoever it is may name: with a short-lived key, what that settles."""
    pinned = UNSET if grant.pins is None else grant.pins.model
    if pinned is UNSET:
        return list(models.names)
    model = models.resolve(pinned)
    return [name for name in models.names if models.resolve(name) == model]
