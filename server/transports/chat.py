"""The door ``/v1/chat/completions``: OpenAI Chat Completions over HTTP.

A request is answered on its own, and nothing is kept of it, unless it names a session. The protocol knows no
other way to stop an answer than to leave: so whoever leaves stops one that nobody can come back to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from unbroken.server.protocols.chat.decode import ChatAsked, asked_of, decode_completion
from unbroken.server.protocols.chat.encode import ChatEncoder, Completion
from unbroken.server.quota.refusal import headers as quota_headers
from unbroken.server.transports.asking import ANSWERED_BEFORE
from unbroken.server.transports.body import read_body
from unbroken.server.transports.chat_stream import ChatStream
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Exchanges, Speaker
from unbroken.server.transports.field_names import CHAT
from unbroken.server.transports.http_way import Endpoint, HttpRefusal, Visit, found, json_response
from unbroken.server.transports.lone_answer import failure_of, let_go, until_done
from unbroken.server.transports.query import check_query
from unbroken.server.transports.reception import Reception
from unbroken.server.transports.sse import EventSource, EventStream
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import SessionNotFound
from unbroken.sessions.items import ResponseRequest

__all__ = ["ChatDoor"]

_KEY_HEADER: Final = "idempotency-key"
_SESSION_HEADER: Final = "unbroken-session"

_NO_SESSION: Final = "There is no such session: it has ended, or isn't yours. `new` begins one."


class ChatDoor:
    """Serves ``/v1/chat/completions``.

    Args:
        reception: Lets people in.
        exchanges: Begins responses.
        most_bytes: What the body of a request may have.
        most_depth: How deeply it may be nested.

    """

    def __init__(
        self,
        *,
        reception: Reception,
        exchanges: Exchanges,
        most_bytes: int,
        most_depth: int,
    ) -> None:
        self._reception = reception
        self._exchanges = exchanges
        self._most_bytes = most_bytes
        self._most_depth = most_depth

    def routes(self) -> list[Route]:
        """Return its route."""
        return [Route("/v1/chat/completions", Endpoint(self._serve))]

    async def _serve(self, request: Request, send: Send) -> None:
        await self._reception.way.serve(request, send, self._create, CHAT.refusal_of)

    async def _create(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit)
        found(("POST",), visit.method)
        check_query(visit.request.query_params, ("resume", "ticket"))
        body = await read_body(visit.request, self._most_bytes)
        headers = visit.request.headers
        chat = asked_of(
            decode_completion(body, max_depth=self._most_depth),
            plan=speaker.grant.principal.plan,
            session=headers.get(_SESSION_HEADER),
            message_id=headers.get(_KEY_HEADER),
        )
        try:
            exchange = await self._exchanges.begin(speaker, chat.asked)
        except SessionNotFound:
            raise HttpRefusal(404, "session_not_found", _NO_SESSION, "unbroken.session") from None
        response = await self._answered(exchange, chat, speaker, visit.request)
        if exchange.decision is not None:
            response.headers.update(quota_headers(exchange.decision))
        return response

    async def _answered(
        self, exchange: Exchange, chat: ChatAsked, speaker: Speaker, request: Request
    ) -> Response:
        """Return the answer, or its stream. In the end the exchange is let go of."""
        completion = _completion(exchange, chat)
        if not exchange.rewind():
            exchange.close()
            raise HttpRefusal(404, "response_events_gone", ANSWERED_BEFORE)
        if chat.asked.stream:
            return self._streamed(exchange, chat, completion, speaker)

        def note(wanted: ResponseRequest) -> None:
            completion.asked = wanted

        try:
            done = await until_done(exchange, request, note)
        finally:
            await let_go(exchange, is_kept=chat.asked.store)
        if (failure := failure_of(done)) is not None:
            raise failure
        return json_response(completion.whole(done))

    def _streamed(
        self, exchange: Exchange, chat: ChatAsked, completion: Completion, speaker: Speaker
    ) -> Response:
        encoder = ChatEncoder(
            completion, obfuscates=chat.asked.obfuscates, includes_usage=chat.includes_usage
        )
        staying = ExitStack()
        source = ChatStream(exchange, encoder, staying.close)
        self._reception.attend(speaker, staying, source.lapse)
        return _Stream(source, self._reception.clock, lambda: let_go(exchange, is_kept=chat.asked.store))


class _Stream(EventStream):
    """A stream with something to be seen to when it is over, or its client has left."""

    def __init__(self, source: EventSource, clock: Clock, on_end: Callable[[], Awaitable[None]]) -> None:
        super().__init__(source, clock)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._on_end()


def _completion(exchange: Exchange, chat: ChatAsked) -> Completion:
    session, response_id = exchange.attachment.session, exchange.response_id
    if not chat.asked.store:
        return Completion(response_id, session.config)
    added = {"session": session.id, "resume": exchange.resume, "response": response_id}
    return Completion(response_id, session.config, added)
