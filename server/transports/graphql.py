"""The door ``/graphql`` over HTTP: queries and mutations, and subscriptions as server-sent events."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.models import Models
from unbroken.server.protocols.graphql.answers import answer_bytes, errors_answer
from unbroken.server.protocols.graphql.documents import (
    Documents,
    Invalid,
    Operation,
    RequestParam,
    decode_query,
    decode_request,
)
from unbroken.server.protocols.graphql.subscribing import Selection, wanted_of
from unbroken.server.protocols.items import DecodeError
from unbroken.server.quota.gate import Gate
from unbroken.server.quota.refusal import headers as quota_headers
from unbroken.server.transports.body import read_body
from unbroken.server.transports.conversations import Conversations
from unbroken.server.transports.exchanges import Exchanges, Speaker
from unbroken.server.transports.field_names import GRAPHQL
from unbroken.server.transports.graphql_desk import GraphqlDesk, refused_as, told
from unbroken.server.transports.graphql_stream import GraphqlEvents, listen
from unbroken.server.transports.http_way import Endpoint, HttpRefusal, Visit, found
from unbroken.server.transports.query import check_query
from unbroken.server.transports.reception import Reception
from unbroken.server.transports.sse import EventStream, event
from unbroken.sessions.errors import SessionError

__all__ = ["GraphqlDoor"]

_FIELDS: Final = ("query", "variables", "operationName", "extensions", "resume", "ticket")

_OWN_TYPE: Final = "application/graphql-response+json"
"""Whoever takes it is told by the status whether there are errors."""

_STREAM: Final = "text/event-stream"


class GraphqlDoor:
    """Serves ``/graphql``.

    Args:
        reception: Lets people in.
        documents: Reads what they ask.
        exchanges: Begins responses, and finds them.
        gate: Counts. None: nobody does.
        conversations: Lists sessions.
        models: Which there are.
        most_bytes: What the body of a request may have.
        most_depth: How deeply it may be nested.

    """

    def __init__(
        self,
        *,
        reception: Reception,
        documents: Documents,
        exchanges: Exchanges,
        gate: Gate | None,
        conversations: Conversations,
        models: Models,
        most_bytes: int,
        most_depth: int,
    ) -> None:
        self._reception = reception
        self._documents = documents
        self._exchanges = exchanges
        self._desk = partial(GraphqlDesk, exchanges, conversations, gate, models)
        self._most_bytes = most_bytes
        self._most_depth = most_depth

    def routes(self) -> list[Route]:
        """Return its route."""
        return [Route("/graphql", Endpoint(self._serve))]

    async def _serve(self, request: Request, send: Send) -> None:
        await self._reception.way.serve(request, send, self._answer, GRAPHQL.refusal_of, _dressed)

    async def _answer(self, visit: Visit) -> Response:
        # However much there is to do: it may be to stop something. What begins anything is refused there.
        speaker = await self._reception.let_in(visit, goes_on=True)
        found(("GET", "POST"), visit.method)
        wanted = await self._read(visit)
        accept = visit.request.headers.get("accept", "")
        is_stream = _STREAM in accept
        try:
            operation = self._documents.read(wanted)
            if operation.is_mutation and visit.method == "GET":
                message = "What changes something is sent by POST."
                raise HttpRefusal(405, "method_not_allowed", message, headers={"allow": "POST, OPTIONS"})
            if not operation.is_subscription:
                return await self._executed(operation, speaker, accept)
            if not is_stream:
                message = "A subscription is a stream: send `Accept: text/event-stream`, or use a WebSocket."
                raise DecodeError("invalid_request", message)
            return await self._subscribed(operation, speaker)
        except Invalid as exc:
            return _answered(errors_answer(exc.errors), accept, 400)
        except (DecodeError, SessionError) as exc:
            refusal = refused_as(exc)
            return _answered(_dressed(refusal), accept, refusal.status)

    async def _read(self, visit: Visit) -> RequestParam:
        request = visit.request
        if visit.method == "GET":
            check_query(request.query_params, _FIELDS)
            fields = request.query_params
            if (query := fields.get("query")) is None:
                raise DecodeError("invalid_request", "The request needs a `query`.", param="query")
            named, variables = fields.get("operationName"), fields.get("variables")
            return decode_query(query, variables, named, max_depth=self._most_depth)
        check_query(request.query_params, ("resume", "ticket"))
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # as forms have it, pages of anybody could send it
            raise HttpRefusal(415, "invalid_request", "Send `Content-Type: application/json`.")
        body = await read_body(request, self._most_bytes)
        return decode_request(body, max_depth=self._most_depth)

    async def _executed(self, operation: Operation, speaker: Speaker, accept: str) -> Response:
        desk = self._desk(speaker)
        answer = await desk.execute(self._documents.schema, operation)
        is_request_error = answer["data"] is None and not any("path" in each for each in answer["errors"])
        response = _answered(answer, accept, 400 if is_request_error else 200)
        if desk.decision is not None:
            response.headers.update(quota_headers(desk.decision))
        waits = [each for each in desk.refusals if each.status in (429, 503)]
        if waits and answer["data"] is None and _STREAM not in accept:
            response.status_code = waits[0].status
            response.headers["retry-after"] = str(waits[0].retry_after)
            response.headers.update(waits[0].headers)
        return response

    async def _subscribed(self, operation: Operation, speaker: Speaker) -> Response:
        schema = self._documents.schema
        listening = await listen(self._exchanges, speaker, wanted_of(schema, operation))
        staying = ExitStack()
        selection = Selection(schema, operation, lambda exc: told(refused_as(exc)))
        source = GraphqlEvents(listening, selection, staying.close)
        self._reception.attend(speaker, staying, source.lapse)
        return EventStream(source, self._reception.clock)


def _dressed(refusal: HttpRefusal) -> dict[str, Any]:
    return {"errors": [told(refusal)]}


def _answered(answer: dict[str, Any], accept: str, status: int = 200) -> Response:
    """Return *answer* in the way that the client takes; with *status* where that says anything."""
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    body = answer_bytes(answer)
    if _STREAM in accept:
        # With any other status, who reads a stream gives up, or tries again for ever.
        streamed = event("next", body) + event("complete", b"")
        return Response(streamed, headers=headers, media_type=_STREAM)
    if _OWN_TYPE in accept:
        return Response(body, status, headers=headers, media_type=_OWN_TYPE)
    # By the specification: who takes any JSON takes the status for the transport's.
    return Response(body, headers=headers, media_type="application/json")
