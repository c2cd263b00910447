"""``GET /openapi.json``: what there is, for programs. It is written once, when the server starts.

Without a key, as the page and health are: it holds nothing that the sources don't, is the same for
everybody, and what reads it often has no key yet.
"""

from __future__ import annotations

import hashlib

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.transports.http_way import Endpoint, HttpRefusal, HttpWay, Visit, found
from unbroken.server.transports.query import check_query

__all__ = ["DocumentDoor"]


class DocumentDoor:
    """Serves the document.

    Args:
        way: What is the same for all doors.
        body: The document, as JSON.

    """

    def __init__(self, way: HttpWay, body: bytes) -> None:
        self._way = way
        self._body = body
        self._tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'

    def routes(self) -> list[Route]:
        """Return its route."""
        return [Route("/openapi.json", Endpoint(self._serve))]

    async def _serve(self, request: Request, send: Send) -> None:
        await self._way.serve(request, send, self._tell, _refusal_of)

    async def _tell(self, visit: Visit) -> Response:
        self._way.enter(visit, goes_on=True)  # it costs nothing
        found(("GET",), visit.method)
        check_query(visit.request.query_params, ())
        headers = {"cache-control": "no-cache", "etag": self._tag, "x-content-type-options": "nosniff"}
        known = visit.request.headers.get("if-none-match", "")
        if self._tag in known:  # among others, maybe as a weak one (RFC 9110, 13.1.2)
            return Response(status_code=304, headers=headers)
        return Response(self._body, headers=headers, media_type="application/json")


def _refusal_of(_: Exception) -> HttpRefusal | None:
    return None
