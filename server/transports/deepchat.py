"""The door ``POST /v1/widget/deepchat``: the web component deep-chat over HTTP, with server-sent events."""

from __future__ import annotations

from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.protocols.deepchat.decode import decode_message, new_chat_id
from unbroken.server.protocols.deepchat.encode import DeepChatEncoder
from unbroken.server.quota.refusal import headers as quota_headers
from unbroken.server.transports.asking import refusal_of
from unbroken.server.transports.body import read_body
from unbroken.server.transports.chats import Chats
from unbroken.server.transports.deepchat_stream import DeepChatEvents
from unbroken.server.transports.http_way import Endpoint, Visit, found
from unbroken.server.transports.query import check_query, checked
from unbroken.server.transports.reception import Reception
from unbroken.server.transports.sse import EventStream
from unbroken.server.transports.upgrade import upgrade_required

__all__ = ["DeepChatDoor"]


class DeepChatDoor:
    """Serves ``/v1/widget/deepchat``.

    Args:
        reception: Lets people in.
        chats: The chats.
        most_bytes: What the body of a request may have.
        most_depth: How deeply it may be nested.

    """

    def __init__(self, *, reception: Reception, chats: Chats, most_bytes: int, most_depth: int) -> None:
        self._reception = reception
        self._chats = chats
        self._most_bytes = most_bytes
        self._most_depth = most_depth

    def routes(self) -> list[Route]:
        """Return its route."""
        return [Route("/v1/widget/deepchat", Endpoint(self._serve))]

    async def _serve(self, request: Request, send: Send) -> None:
        await self._reception.way.serve(request, send, self._say, refusal_of)

    async def _say(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit)
        found(("POST", "GET"), visit.method)
        if visit.method == "GET":
            raise upgrade_required()
        query = visit.request.query_params
        check_query(query, ("resume", "ticket", "chat"))
        named = query.get("chat")
        chat_id = new_chat_id() if named is None else checked(named, "chat")
        body = await read_body(visit.request, self._most_bytes)
        chat = decode_message(body, chat_id, max_depth=self._most_depth)
        exchange = await self._chats.ask(speaker, chat)
        staying = ExitStack()
        encoder = DeepChatEncoder(exchange.response_id, end=None)
        source = DeepChatEvents(exchange, encoder, staying.close)
        self._reception.attend(speaker, staying, source.lapse)
        response = EventStream(source, self._reception.clock)
        if exchange.decision is not None:
            response.headers.update(quota_headers(exchange.decision))
        return response
