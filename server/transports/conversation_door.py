"""The door ``/v1/conversations``: OpenAI Conversations, and what it leaves out: a list, and exports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.compactions import Compactions
from unbroken.server.protocols.conversation_names import conversation_id, session_named
from unbroken.server.protocols.conversations.decode import (
    decode_create,
    decode_items,
    decode_update,
    name_of,
)
from unbroken.server.protocols.conversations.encode import (
    conversation_fields,
    deleted_fields,
    exported,
    listed_fields,
)
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.responses.decode import Opened
from unbroken.server.protocols.responses.items import Fields, item_fields
from unbroken.server.transports.body import read_body
from unbroken.server.transports.conversations import Conversations
from unbroken.server.transports.exchanges import Speaker
from unbroken.server.transports.field_names import CONVERSATIONS
from unbroken.server.transports.http_way import Endpoint, HttpRefusal, Visit, found, json_response
from unbroken.server.transports.item_pages import page_bounds, page_of
from unbroken.server.transports.query import check_query
from unbroken.server.transports.reception import Reception
from unbroken.sessions.errors import SessionNotFound
from unbroken.sessions.ids import ItemId, SessionId
from unbroken.sessions.node import Attachment

__all__ = ["ConversationDoor"]

_OURS: Final = ("resume", "ticket")
_ITEM_FIELDS: Final = ("include", "include[]", *_OURS)
_PAGE_FIELDS: Final = ("limit", "order", "after", *_ITEM_FIELDS)

_EXPORT_BYTES: Final = 64 * 1024
"""In one piece of a document."""

_Act = Callable[[Visit, Speaker], Awaitable[Response]]


class ConversationDoor:
    """Serves ``/v1/conversations`` and what is below it.

    Args:
        reception: Lets people in.
        conversations: What there is.
        compactions: Opens what conversations were summed up to.
        most_bytes: What the body of a request may have.
        most_depth: How deeply it may be nested.

    """

    def __init__(
        self,
        *,
        reception: Reception,
        conversations: Conversations,
        compactions: Compactions,
        most_bytes: int,
        most_depth: int,
    ) -> None:
        self._reception = reception
        self._conversations = conversations
        self._compactions = compactions
        self._most_bytes = most_bytes
        self._most_depth = most_depth

    def routes(self) -> list[Route]:
        """Return its routes."""
        one = "/v1/conversations/{conversation_id}"
        return [
            self._route("/v1/conversations", GET=self._list, POST=self._create),
            self._route(one, GET=self._retrieve, POST=self._update, DELETE=self._delete),
            self._route(f"{one}/items", GET=self._items, POST=self._add),
            self._route(f"{one}/items/{{item_id}}", GET=self._item, DELETE=self._remove),
            self._route(f"{one}/export", GET=self._export),
        ]

    def _route(self, path: str, **acts: _Act) -> Route:
        async def act(visit: Visit) -> Response:
            speaker = await self._reception.let_in(visit, goes_on=visit.method != "POST")
            found(acts, visit.method)
            return await acts[visit.method](visit, speaker)

        async def serve(request: Request, send: Send) -> None:
            await self._reception.way.serve(request, send, act, _refusal_of)

        return Route(path, Endpoint(serve))

    async def _body(self, visit: Visit) -> bytes:
        return await read_body(visit.request, self._most_bytes)

    def _opened(self, speaker: Speaker) -> Opened:
        return lambda sealed: self._compactions.open(sealed, speaker.principal)

    def _shown(self, speaker: Speaker, attachment: Attachment) -> Response:
        """Answer with a conversation, and let go of it."""
        try:
            resume = self._conversations.token(speaker, attachment)
            return json_response(conversation_fields(attachment.session, resume=resume))
        finally:
            attachment.close()

    # Conversations.

    async def _create(self, visit: Visit, speaker: Speaker) -> Response:
        check_query(visit.request.query_params, _OURS)
        body = await self._body(visit)
        wanted = decode_create(body, max_depth=self._most_depth, opened=self._opened(speaker))
        name = _name_of(visit)
        return self._shown(speaker, await self._conversations.create(speaker, wanted, name))

    async def _list(self, visit: Visit, speaker: Speaker) -> Response:
        query = visit.request.query_params
        check_query(query, ("limit", "order", "after", *_OURS))
        limit, order = page_bounds(query)
        after = query.get("after")
        page = await self._conversations.pages.rows(
            speaker,
            limit,
            after=None if after is None else session_named(after),
            oldest_first=order == "asc",
        )
        if page is None:
            message = "There is no such conversation in the list (any more). Begin with the first page again."
            raise HttpRefusal(400, "invalid_request", message, "after")
        rows, has_more = page
        fields: Fields = {"object": "list", "data": [listed_fields(*row) for row in rows]}
        fields["first_id"] = conversation_id(rows[0].session_id) if rows else None
        fields["last_id"] = conversation_id(rows[-1].session_id) if rows else None
        return json_response({**fields, "has_more": has_more})

    async def _retrieve(self, visit: Visit, speaker: Speaker) -> Response:
        check_query(visit.request.query_params, _OURS)
        return self._shown(speaker, await self._conversations.find(speaker, _named(visit)))

    async def _update(self, visit: Visit, speaker: Speaker) -> Response:
        check_query(visit.request.query_params, _OURS)
        metadata = decode_update(await self._body(visit), max_depth=self._most_depth)
        return self._shown(speaker, await self._conversations.update(speaker, _named(visit), metadata))

    async def _delete(self, visit: Visit, speaker: Speaker) -> Response:
        check_query(visit.request.query_params, _OURS)
        session_id = _named(visit)
        await self._conversations.delete(speaker, session_id)
        return json_response(deleted_fields(session_id))

    async def _export(self, visit: Visit, speaker: Speaker) -> Response:
        check_query(visit.request.query_params, _OURS)
        attachment = await self._conversations.find(speaker, _named(visit))
        try:
            at = int(self._reception.clock.time())
            pieces = list(exported(attachment.session, at))  # of one moment, and no longer than a session
        finally:
            attachment.close()
        headers = {
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "content-disposition": f'attachment; filename="{conversation_id(attachment.session.id)}.json"',
        }
        return StreamingResponse(_gathered(pieces), headers=headers, media_type="application/json")

    # Items.

    async def _items(self, visit: Visit, speaker: Speaker) -> Response:
        query = visit.request.query_params
        check_query(query, _PAGE_FIELDS)
        attachment = await self._conversations.find(speaker, _named(visit))
        try:
            return json_response(page_of(attachment.session.items(), query))
        finally:
            attachment.close()

    async def _add(self, visit: Visit, speaker: Speaker) -> Response:
        check_query(visit.request.query_params, _ITEM_FIELDS)
        body = await self._body(visit)
        wanted = decode_items(body, max_depth=self._most_depth, opened=self._opened(speaker))
        attachment, items = await self._conversations.add(speaker, _named(visit), wanted, _name_of(visit))
        attachment.close()
        return json_response(
            {
                "object": "list",
                "data": [item_fields(item) for item in items],
                "first_id": items[0].id if items else None,
                "last_id": items[-1].id if items else None,
                "has_more": False,
            }
        )

    async def _item(self, visit: Visit, speaker: Speaker) -> Response:
        check_query(visit.request.query_params, _ITEM_FIELDS)
        attachment = await self._conversations.find(speaker, _named(visit))
        try:
            item = attachment.session.item(ItemId(visit.request.path_params["item_id"]))
        finally:
            attachment.close()
        if item is None:
            raise DecodeError("item_not_found", "There is no such item in the conversation.")
        return json_response(item_fields(item))

    async def _remove(self, visit: Visit, speaker: Speaker) -> Response:
        check_query(visit.request.query_params, _OURS)
        item_id = ItemId(visit.request.path_params["item_id"])
        return self._shown(speaker, await self._conversations.remove(speaker, _named(visit), item_id))


def _named(visit: Visit) -> SessionId:
    return session_named(visit.request.path_params["conversation_id"])


def _name_of(visit: Visit) -> str | None:
    return name_of(visit.request.headers.get("idempotency-key"))


def _refusal_of(exc: Exception) -> HttpRefusal | None:
    if isinstance(exc, SessionNotFound):
        message = "There is no such conversation: it has gone, or isn't yours."
        return HttpRefusal(404, "conversation_not_found", message)
    return CONVERSATIONS.refusal_of(exc)


async def _gathered(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield *pieces* in larger ones: each of these is waited for until it is on its way."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= _EXPORT_BYTES:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)
