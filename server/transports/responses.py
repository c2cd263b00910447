"""The door ``/v1/responses``: OpenAI Responses over HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from unbroken.server.compactions import Compactions
from unbroken.server.erasing.transcripts import Transcripts
from unbroken.server.protocols.responses.decode import asked_of, decode_create
from unbroken.server.protocols.responses.encode import NOTHING_NEW, ResponseEncoder
from unbroken.server.protocols.responses.items import Fields, item_fields
from unbroken.server.protocols.responses.whole import Whole
from unbroken.server.quota.refusal import headers as quota_headers
from unbroken.server.transports.asking import EVENTS_GONE, not_there
from unbroken.server.transports.awaiting import read_whole, until_ended
from unbroken.server.transports.body import read_body
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Exchanges, Speaker
from unbroken.server.transports.field_names import RESPONSES
from unbroken.server.transports.http_way import Endpoint, HttpRefusal, Visit, found, json_response
from unbroken.server.transports.item_pages import page_of
from unbroken.server.transports.query import check_query
from unbroken.server.transports.reception import Reception
from unbroken.server.transports.response_stream import ResponseStream
from unbroken.server.transports.sse import EventStream
from unbroken.server.transports.upgrade import upgrade_required
from unbroken.sessions.errors import SessionNotFound
from unbroken.sessions.event_log import Record
from unbroken.sessions.ids import ResponseId, is_transient
from unbroken.sessions.items import Item
from unbroken.sessions.session import Session

__all__ = ["ResponsesDoor"]

_KEY_HEADER: Final = "idempotency-key"

_GET_FIELDS: Final = ("stream", "starting_after", "include_obfuscation", "include", "include[]")

_STOPPING: Final = 5.0
"""Seconds that whoever cancels waits for the end: agents clean up."""


class ResponsesDoor:
    """Serves ``/v1/responses`` and what is below it.

    Args:
        reception: Lets people in.
        exchanges: Begins responses, and finds them.
        compactions: Opens what conversations were summed up to.
        transcripts: What is archived of them.
        most_bytes: What the body of a request may have.
        most_depth: How deeply it may be nested.

    """

    def __init__(
        self,
        *,
        reception: Reception,
        exchanges: Exchanges,
        compactions: Compactions,
        transcripts: Transcripts,
        most_bytes: int,
        most_depth: int,
    ) -> None:
        self._reception = reception
        self._exchanges = exchanges
        self._compactions = compactions
        self._transcripts = transcripts
        self._most_bytes = most_bytes
        self._most_depth = most_depth

    def routes(self) -> list[Route]:
        """Return its routes."""
        serving = self._reception.serving
        one = "/v1/responses/{response_id}"
        return [
            Route("/v1/responses", Endpoint(serving(self._create, RESPONSES))),
            Route(one, Endpoint(serving(self._one, RESPONSES))),
            Route(f"{one}/cancel", Endpoint(serving(self._cancel, RESPONSES))),
            Route(f"{one}/input_items", Endpoint(serving(self._input_items, RESPONSES))),
        ]

    async def _let_in(self, visit: Visit, *, goes_on: bool = True) -> Speaker:
        return await self._reception.let_in(visit, goes_on=goes_on)

    # A response is asked for.

    async def _create(self, visit: Visit) -> Response:
        speaker = await self._let_in(visit, goes_on=False)
        found(("POST", "GET"), visit.method)
        if visit.method == "GET":
            raise upgrade_required()
        check_query(visit.request.query_params, ("resume", "ticket"))
        body = await read_body(visit.request, self._most_bytes)
        wanted = decode_create(body, max_depth=self._most_depth)
        named = visit.request.headers.get(_KEY_HEADER)
        asked = asked_of(
            wanted,
            plan=speaker.grant.principal.plan,
            message_id=named,
            opened=lambda sealed: self._compactions.open(sealed, speaker.principal),
        )
        try:
            exchange = await self._exchanges.begin(speaker, asked)
        except SessionNotFound:
            raise not_there(asked.conversation) from None
        has_events = exchange.rewind()
        if asked.stream and not has_events:  # it was asked for before, long ago
            exchange.close()
            raise HttpRefusal(404, "response_events_gone", EVENTS_GONE, "stream")
        if asked.stream:
            response = self._streamed(exchange, speaker, obfuscates=asked.obfuscates)
        elif asked.background or not has_events:
            response = self._shown(exchange)
        else:
            response = await self._awaited(exchange, visit.request)
        if exchange.decision is not None:
            response.headers.update(quota_headers(exchange.decision))
        return response

    def _whole(self, exchange: Exchange, response_id: ResponseId | None = None) -> Whole:
        session = exchange.attachment.session
        return Whole(response_id or exchange.response_id, session.id, session.config, resume=exchange.resume)

    def _streamed(
        self, exchange: Exchange, speaker: Speaker, *, after: int = -1, obfuscates: bool = True
    ) -> Response:
        encoder = ResponseEncoder(self._whole(exchange), after=after, obfuscates=obfuscates)
        staying = ExitStack()
        source = ResponseStream(exchange, encoder, staying.close)
        self._reception.attend(speaker, staying, source.lapse)
        return EventStream(source, self._reception.clock)

    async def _awaited(self, exchange: Exchange, request: Request) -> Response:
        """Answer when the response has ended.

        Raises:
            ClientDisconnect: The client has left. The response goes on.

        """
        encoder = ResponseEncoder(self._whole(exchange), after=NOTHING_NEW)

        def feed(records: list[Record]) -> bool:
            nonlocal encoder
            while _feed(encoder, records, is_last=exchange.is_at_head) and encoder.superseded_by is not None:
                # The answer is that of the next attempt, which begins among these.
                encoder = ResponseEncoder(self._whole(exchange, encoder.superseded_by), after=NOTHING_NEW)
            return encoder.is_done

        try:
            await read_whole(exchange, request, feed)
        finally:
            exchange.close()
        assert encoder.final is not None
        return json_response(encoder.final)

    # One is asked about.

    async def _one(self, visit: Visit) -> Response:
        speaker = await self._let_in(visit)
        found(("GET", "DELETE"), visit.method)
        query = visit.request.query_params
        if visit.method == "DELETE":
            check_query(query, ("resume", "ticket"))
            return await self._delete(visit, speaker)
        check_query(query, (*_GET_FIELDS, "resume", "ticket"))
        is_stream, after = _flag(query, "stream"), _after(query)
        padded = _flag(query, "include_obfuscation", default=True)
        exchange = await self._found(visit, speaker, watches=is_stream)
        if not is_stream:
            return self._shown(exchange)
        if not exchange.rewind():
            exchange.close()
            raise HttpRefusal(404, "response_events_gone", EVENTS_GONE, "stream")
        return self._streamed(exchange, speaker, after=after, obfuscates=padded)

    async def _found(self, visit: Visit, speaker: Speaker, *, watches: bool) -> Exchange:
        response_id = visit.request.path_params["response_id"]
        return await self._exchanges.find(speaker, response_id, watches=watches)

    def _shown(self, exchange: Exchange) -> Response:
        """Answer with the response as it is now."""
        try:
            return json_response(self._now(exchange))
        finally:
            exchange.close()

    def _now(self, exchange: Exchange) -> Fields:
        whole, session = self._whole(exchange), exchange.attachment.session
        if exchange.rewind():
            encoder = ResponseEncoder(whole, after=NOTHING_NEW)
            while not encoder.is_done and (records := exchange.take()):
                _feed(encoder, records, is_last=exchange.is_at_head)
            if encoder.final is not None:
                return encoder.final
            if encoder.is_waiting:
                return whole.fields("queued")
        if (running := session.responses.get(exchange.response_id)) is not None:
            whole.asked = running.request
            so_far = [each.done or each.item("in_progress") for each in running.outputs]
            return whole.fields("in_progress", map(item_fields, so_far))
        if (ended := session.endings.get(exchange.response_id)) is not None:
            return whole.kept(ended, _items(session, ended.output), exchange.superseded_by)
        raise SessionNotFound

    async def _cancel(self, visit: Visit) -> Response:
        speaker = await self._let_in(visit)
        found(("POST",), visit.method)
        check_query(visit.request.query_params, ("resume", "ticket"))
        exchange = await self._found(visit, speaker, watches=False)
        try:
            await exchange.stop()
            exchange.rewind()
            await until_ended(exchange, _STOPPING)
            return json_response(self._now(exchange))
        finally:
            exchange.close()

    async def _delete(self, visit: Visit, speaker: Speaker) -> Response:
        """Take what a response said out of its conversation, and of the archive: at every attempt.

        What was said to it stays. Where its session has gone, it is taken out of the archive alone, for
        whoever comes with a key of their own.
        """
        response_id = ResponseId(visit.request.path_params["response_id"])
        try:
            exchange = await self._found(visit, speaker, watches=False)
        except SessionNotFound:
            is_pinned = speaker.grant.pins is not None or speaker.resume is not None
            if is_pinned or await self._transcripts.output(response_id, speaker.principal) is None:
                raise
            await self._transcripts.erase_answer(response_id)
        else:
            try:
                await self._forget(exchange, speaker)
            finally:
                exchange.close()
        return json_response({"id": response_id, "object": "response", "deleted": True})

    async def _forget(self, exchange: Exchange, speaker: Speaker) -> None:
        """Take out what a response said. Whoever is cut off asks again: what is needed for that goes last."""
        if exchange.is_answering:
            message = "The response is in progress. Cancel it first."
            raise HttpRefusal(409, "response_in_progress", message)
        session, response_id = exchange.attachment.session, exchange.response_id
        if attempts := session.endings.attempts(response_id):
            if not is_transient(session.id):
                for each in attempts:
                    await self._transcripts.erase_answer(each.id)
            for each in attempts:
                await exchange.forget(each.output)
        elif (output := await self._transcripts.output(response_id, speaker.principal)) is not None:
            await exchange.forget(output)
            await self._transcripts.erase_answer(response_id)
        else:
            raise SessionNotFound

    async def _input_items(self, visit: Visit) -> Response:
        speaker = await self._let_in(visit)
        found(("GET",), visit.method)
        query = visit.request.query_params
        check_query(query, ("limit", "order", "after", "include", "include[]", "resume", "ticket"))
        exchange = await self._found(visit, speaker, watches=False)
        try:
            return json_response(page_of(exchange.input_items(), query))
        finally:
            exchange.close()


def _feed(encoder: ResponseEncoder, records: list[Record], *, is_last: bool) -> bool:
    for _ in encoder.encode(records, is_last=is_last):
        raise AssertionError("can't happen: nothing is new")
    return encoder.is_done


def _items(session: Session, item_ids: Iterable[str]) -> list[Item]:
    found = (session.item(item_id) for item_id in item_ids)
    return [item for item in found if item is not None]


def _flag(query: QueryParams, name: str, *, default: bool = False) -> bool:
    """Return what a field says that is ``true`` or ``false``.

    Raises:
        HttpRefusal: It says something else.

    """
    match query.get(name):
        case None:
            return default
        case "true" | "True" | "1":
            return True
        case "false" | "False" | "0":
            return False
        case _:
            raise HttpRefusal(400, "invalid_request", f"`{name}` is `true` or `false`.", name)


def _after(query: QueryParams) -> int:
    given = query.get("starting_after")
    if given is None:
        return -1
    if not (given.isascii() and given.isdigit() and len(given) < 16):
        message = "`starting_after` is the number of an event."
        raise HttpRefusal(400, "invalid_request", message, "starting_after")
    return int(given)
