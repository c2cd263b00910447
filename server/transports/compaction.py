"""The door ``/v1/responses/compact``: conversations are summed up, and nothing of that is kept here."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.compactions import MOST_BYTES, Compactions
from unbroken.server.protocols.chat.ending import told_of
from unbroken.server.protocols.responses.compaction import (
    asked_of_compact,
    decode_compact,
    summary_of,
    window_of,
)
from unbroken.server.protocols.responses.items import Fields
from unbroken.server.quota.refusal import headers as quota_headers
from unbroken.server.transports.asking import ANSWERED_BEFORE, not_there, refusal_of
from unbroken.server.transports.body import read_body
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Exchanges, Speaker
from unbroken.server.transports.http_way import Endpoint, HttpRefusal, Visit, found, json_response
from unbroken.server.transports.lone_answer import failure_of, let_go, until_done
from unbroken.server.transports.query import check_query
from unbroken.server.transports.reception import Reception
from unbroken.sessions.entries import ResponseDone
from unbroken.sessions.errors import SessionNotFound
from unbroken.sessions.items import Item, Message

__all__ = ["CompactionDoor"]

_REFUSED: Final = {
    "content_filter": (400, "The summary would say what may not leave. Send the conversation itself."),
    "quota_exceeded": (429, "What may be used is used up before the summary was complete."),
}
"""Of what may cut an answer short: a summary that it has cut isn't given."""


class CompactionDoor:
    """Serves ``/v1/responses/compact``.

    Args:
        reception: Lets people in.
        exchanges: Begins responses.
        compactions: Seals summaries.
        most_bytes: What the body of a request may have.
        most_depth: How deeply it may be nested.

    """

    def __init__(
        self,
        *,
        reception: Reception,
        exchanges: Exchanges,
        compactions: Compactions,
        most_bytes: int,
        most_depth: int,
    ) -> None:
        self._reception = reception
        self._exchanges = exchanges
        self._compactions = compactions
        self._most_bytes = most_bytes
        self._most_depth = most_depth

    def routes(self) -> list[Route]:
        """Return its route. It goes ahead of those that take any id in the same place."""
        return [Route("/v1/responses/compact", Endpoint(self._serve))]

    async def _serve(self, request: Request, send: Send) -> None:
        await self._reception.way.serve(request, send, self._compact, _refusal_of)

    async def _compact(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit)
        found(("POST",), visit.method)
        check_query(visit.request.query_params, ())  # it is part of no session, which a key might need
        body = await read_body(visit.request, self._most_bytes)
        asked = asked_of_compact(
            decode_compact(body, max_depth=self._most_depth),
            plan=speaker.grant.principal.plan,
            opened=lambda sealed: self._compactions.open(sealed, speaker.principal),
        )
        try:
            exchange = await self._exchanges.begin(speaker, asked)
        except SessionNotFound:
            raise not_there(None) from None
        try:
            if not exchange.rewind():
                raise HttpRefusal(404, "response_events_gone", ANSWERED_BEFORE)
            said = exchange.input_items()[: -len(asked.closing)]
            done = await until_done(exchange, visit.request)
        finally:
            await let_go(exchange)
        response = json_response(self._window(exchange, speaker, said, done))
        if exchange.decision is not None:
            response.headers.update(quota_headers(exchange.decision))
        return response

    def _window(self, exchange: Exchange, speaker: Speaker, said: list[Item], done: ResponseDone) -> Fields:
        """Return what a conversation was summed up to.

        Raises:
            HttpRefusal: It wasn't.

        """
        if (failure := failure_of(done)) is not None:
            raise failure
        if done.status == "cancelled":
            raise HttpRefusal(503, "interrupted", "The summary was stopped. Ask again.")
        is_cut = done.status == "incomplete"
        if is_cut and (refused := _REFUSED.get(done.reason or "")) is not None:
            raise HttpRefusal(refused[0], done.reason or "", refused[1])
        texts = [item.text for item in done.output if isinstance(item, Message)]
        text = summary_of(texts, is_cut=is_cut, most_bytes=MOST_BYTES)
        if text is None:
            raise HttpRefusal(500, "agent_error", "The agent gave no summary. Ask again.")
        told = told_of(done)
        if is_cut:
            told["reason"] = done.reason
        sealed = self._compactions.seal(text, speaker.principal)
        return window_of(exchange.response_id, said, sealed, done.usage, told)


def _refusal_of(exc: Exception) -> HttpRefusal | None:
    refusal = refusal_of(exc)
    if refusal is not None and refusal.param is not None:
        refusal.param = refusal.param.removeprefix("response.")
    return refusal
