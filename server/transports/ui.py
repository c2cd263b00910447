"""The door ``/v1/ui/chat``: Vercel AI SDK's UI message streams over HTTP."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from unbroken.server.protocols.items import DecodeError, check_name
from unbroken.server.protocols.ui.decode import decode_chat
from unbroken.server.quota.refusal import headers as quota_headers
from unbroken.server.transports.body import read_body
from unbroken.server.transports.chats import Chats
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Speaker
from unbroken.server.transports.field_names import UI
from unbroken.server.transports.http_way import (
    Endpoint,
    HttpRefusal,
    Visit,
    found,
    json_response,
)
from unbroken.server.transports.query import check_query
from unbroken.server.transports.reception import Reception
from unbroken.server.transports.sse import EventStream
from unbroken.server.transports.ui_stream import UiEvents

__all__ = ["UiDoor"]

_HEADERS: Final = {"x-vercel-ai-ui-message-stream": "v1"}


class UiDoor:
    """Serves ``/v1/ui/chat`` and what is below it.

    Args:
        reception: Lets people in.
        chats: The chats.
        most_bytes: What the body of a request may have.
        most_depth: How deeply it may be nested.

    """

    def __init__(
        self,
        *,
        reception: Reception,
        chats: Chats,
        most_bytes: int,
        most_depth: int,
    ) -> None:
        self._reception = reception
        self._chats = chats
        self._most_bytes = most_bytes
        self._most_depth = most_depth

    def routes(self) -> list[Route]:
        """Return its routes."""
        serving = self._reception.serving
        one = "/v1/ui/chat/{chat_id:path}"
        return [
            Route("/v1/ui/chat", Endpoint(serving(self._ask, UI))),
            Route(f"{one}/stream", Endpoint(serving(self._resume, UI))),
            Route(f"{one}/stop", Endpoint(serving(self._stop, UI))),
            Route(one, Endpoint(serving(self._show, UI))),
        ]

    async def _ask(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit)
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
        self._reception.attend(speaker, staying, source.lapse)
        return EventStream(source, self._reception.clock, headers=_HEADERS)

    async def _resume(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit, goes_on=True)
        found(("GET",), visit.method)
        check_query(visit.request.query_params, ("resume", "ticket"))
        exchange = await self._chats.find_running(speaker, _named(visit.request))
        if exchange is None:
            return Response(status_code=204)
        return self._streamed(exchange, speaker, replays=True)

    async def _stop(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit, goes_on=True)
        found(("POST",), visit.method)
        check_query(visit.request.query_params, ("resume", "ticket"))
        stopped = await self._chats.stop(speaker, _named(visit.request))
        return json_response({"stopped": stopped})

    async def _show(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit, goes_on=True)
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
