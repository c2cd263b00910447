"""The door ``/v1/ui/chat``: Vercel AI SDK's UI message streams over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.auth.lapse import Lapses
from unbroken.server.auth.presence import Presence
from unbroken.server.protocols.items import DecodeError, check_name
from unbroken.server.protocols.ui.decode import decode_chat
from unbroken.server.quota.gate import Gate
from unbroken.server.quota.refusal import headers as quota_headers
from unbroken.server.transports.asking import refusal_of
from unbroken.server.transports.body import read_body
from unbroken.server.transports.chats import Chats
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Speaker
from unbroken.server.transports.http_way import (
    Act,
    Endpoint,
    HttpRefusal,
    HttpWay,
    Visit,
    found,
    json_response,
)
from unbroken.server.transports.letting_in import let_in
from unbroken.server.transports.query import check_query
from unbroken.server.transports.sse import EventStream
from unbroken.server.transports.ui_stream import UiEvents
from unbroken.sessions.clock import Clock

__all__ = ["UiDoor"]

_HEADERS: Final = {"x-vercel-ai-ui-message-stream": "v1"}


class UiDoor:
    """Serves ``/v1/ui/chat`` and what is below it.

    Args:
        way: What is the same for all doors.
        chats: The chats.
        most_bytes: What the body of a request may have.
        most_depth: How deeply it may be nested.
        gate: Says how many connections somebody may have. None: nobody does.
        directory: Knows who is here.
        lapses: Tells when somebody may be here no longer.
        clock: Where time comes from.

    """

    def __init__(
        self,
        *,
        way: HttpWay,
        chats: Chats,
        most_bytes: int,
        most_depth: int,
        gate: Gate | None,
        directory: Presence,
        lapses: Lapses,
        clock: Clock,
    ) -> None:
        self._way = way
        self._chats = chats
        self._most_bytes = most_bytes
        self._most_depth = most_depth
        self._gate = gate
        self._directory = directory
        self._lapses = lapses
        self._clock = clock

    def routes(self) -> list[Route]:
        """Return its routes."""
        one = "/v1/ui/chat/{chat_id:path}"
        return [
            Route("/v1/ui/chat", Endpoint(self._serving(self._ask))),
            Route(f"{one}/stream", Endpoint(self._serving(self._resume))),
            Route(f"{one}/stop", Endpoint(self._serving(self._stop))),
            Route(one, Endpoint(self._serving(self._show))),
        ]

    def _serving(self, act: Act) -> Callable[[Request, Send], Awaitable[None]]:
        async def serve(request: Request, send: Send) -> None:
            await self._way.serve(request, send, act, refusal_of)

        return serve

    async def _ask(self, visit: Visit) -> Response:
        speaker = await let_in(visit, self._way, self._gate)
        found(("POST",), visit.method)
        check_query(visit.request.query_params, ("resume", "ticket"))
        chat = decode_chat(await read_body(visit.request, self._most_bytes), max_depth=self._most_depth)
        exchange = await self._chats.ask(speaker, chat)
        response = self._streamed(exchange, speaker, replays=False)
        if exchange.decision is not None:
            response.headers.update(quota_headers(exchange.decision))
        return response

    def _streamed(self, exchange: Exchange, speaker: Speaker, *, replays: bool) -> Response:
        staying = ExitStack()
        source = UiEvents(exchange, self._chats.encoder(exchange, replays=replays), staying.close)
        staying.enter_context(self._directory.stay(speaker.grant.principal))
        stay = self._lapses.stay(speaker.grant, source.lapse)
        if stay is not None:
            staying.callback(stay.close)
        return EventStream(source, self._clock, headers=_HEADERS)

    async def _resume(self, visit: Visit) -> Response:
        speaker = await let_in(visit, self._way, self._gate, goes_on=True)
        found(("GET",), visit.method)
        check_query(visit.request.query_params, ("resume", "ticket"))
        exchange = await self._chats.find_running(speaker, _named(visit.request))
        if exchange is None:
            return Response(status_code=204)
        return self._streamed(exchange, speaker, replays=True)

    async def _stop(self, visit: Visit) -> Response:
        speaker = await let_in(visit, self._way, self._gate, goes_on=True)
        found(("POST",), visit.method)
        check_query(visit.request.query_params, ("resume", "ticket"))
        stopped = await self._chats.stop(speaker, _named(visit.request))
        return json_response({"stopped": stopped})

    async def _show(self, visit: Visit) -> Response:
        speaker = await let_in(visit, self._way, self._gate, goes_on=True)
        found(("GET",), visit.method)
        check_query(visit.request.query_params, ("resume", "ticket"))
        chat_id = _named(visit.request)
        return json_response({"id": chat_id, "messages": await self._chats.messages(speaker, chat_id)})


def _named(request: Request) -> str:
    """Return the chat that a path names.

    Raises:
        HttpRefusal: It can't be a name.

    """
    chat_id: str = request.path_params["chat_id"]
    try:
        check_name(chat_id, "id", None)
    except DecodeError as exc:
        raise HttpRefusal(400, "invalid_request", exc.message, "id") from None
    return chat_id
