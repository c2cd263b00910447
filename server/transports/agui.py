"""The door ``/v1/agui``: AG-UI over HTTP, with server-sent events."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from unbroken.server.protocols.agui.decode import decode_run
from unbroken.server.quota.refusal import headers as quota_headers
from unbroken.server.transports.agui_stream import RunEvents
from unbroken.server.transports.body import read_body
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Speaker
from unbroken.server.transports.field_names import AGUI
from unbroken.server.transports.http_way import Endpoint, Visit, found, json_response
from unbroken.server.transports.query import check_query, checked
from unbroken.server.transports.reception import Reception
from unbroken.server.transports.runs import Runs
from unbroken.server.transports.sse import EventStream

__all__ = ["AguiDoor"]

_CREDENTIALS: Final = ("resume", "ticket")
_SEEN: Final = "last-event-id"


class AguiDoor:
    """Serves ``/v1/agui`` and what is below it.

    Args:
        reception: Lets people in.
        runs: The runs.
        most_bytes: What the body of a request may have.
        most_depth: How deeply it may be nested.

    """

    def __init__(self, *, reception: Reception, runs: Runs, most_bytes: int, most_depth: int) -> None:
        self._reception = reception
        self._runs = runs
        self._most_bytes = most_bytes
        self._most_depth = most_depth

    def routes(self) -> list[Route]:
        """Return its routes."""
        serving = self._reception.serving
        one = "/v1/agui/{thread_id:path}"
        return [
            Route("/v1/agui", Endpoint(serving(self._run, AGUI))),
            Route(f"{one}/stream", Endpoint(serving(self._resume, AGUI))),
            Route(f"{one}/stop", Endpoint(serving(self._stop, AGUI))),
            Route(one, Endpoint(serving(self._show, AGUI))),
        ]

    async def _run(self, visit: Visit) -> Response:
        if visit.method == "GET":
            return await self._join(visit)
        speaker = await self._reception.let_in(visit)
        found(("GET", "POST"), visit.method)
        check_query(visit.request.query_params, (*_CREDENTIALS, "threadId"))  # which the body says, too
        run = decode_run(await read_body(visit.request, self._most_bytes), max_depth=self._most_depth)
        if seen := visit.request.headers.get(_SEEN):  # it was begun, and the connection was lost
            return await self._found(speaker, run.thread_id, run.id, seen)
        exchange = await self._runs.ask(speaker, run)
        response = self._streamed(exchange, speaker, run.thread_id, run.id, -1)
        if exchange.decision is not None:
            response.headers.update(quota_headers(exchange.decision))
        return response

    async def _join(self, visit: Visit) -> Response:
        """Go on with a run that the query names, as TanStack's client does."""
        speaker = await self._reception.let_in(visit, goes_on=True)
        query = visit.request.query_params
        check_query(query, (*_CREDENTIALS, "threadId", "runId", "offset"))
        thread_id = query.get("threadId")
        return await self._found(speaker, thread_id, query.get("runId"), _offset(visit.request))

    async def _resume(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit, goes_on=True)
        found(("GET",), visit.method)
        query = visit.request.query_params
        check_query(query, (*_CREDENTIALS, "runId", "offset"))
        return await self._found(speaker, _named(visit.request), query.get("runId"), _offset(visit.request))

    async def _found(
        self, speaker: Speaker, thread_id: str | None, run_id: str | None, offset: str
    ) -> Response:
        """Return what follows *offset* of a run. 204: nothing runs."""
        for name, param in ((thread_id, "threadId"), (run_id, "runId")):
            if name is not None:
                checked(name, param)
        run = await self._runs.find(speaker, thread_id, run_id, offset)
        if run is None:
            return Response(status_code=204)
        exchange, behind = run
        return self._streamed(exchange, speaker, thread_id, run_id, behind)

    def _streamed(
        self, exchange: Exchange, speaker: Speaker, thread_id: str | None, run_id: str | None, behind: int
    ) -> Response:
        staying = ExitStack()
        encoder = self._runs.encoder(exchange, thread_id, run_id)
        source = RunEvents(exchange, encoder, behind, staying.close)
        self._reception.attend(speaker, staying, source.lapse)
        return EventStream(source, self._reception.clock)

    async def _stop(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit, goes_on=True)
        found(("POST",), visit.method)
        check_query(visit.request.query_params, _CREDENTIALS)
        stopped = await self._runs.stop(speaker, _named(visit.request))
        return json_response({"stopped": stopped})

    async def _show(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit, goes_on=True)
        found(("GET",), visit.method)
        check_query(visit.request.query_params, _CREDENTIALS)
        return json_response(await self._runs.look(speaker, _named(visit.request)))


def _named(request: Request) -> str:
    """Return the thread that a path names."""
    return checked(request.path_params["thread_id"], "threadId")


def _offset(request: Request) -> str:
    """Return what was seen last: -1 is nothing."""
    return request.query_params.get("offset") or request.headers.get(_SEEN) or "-1"
