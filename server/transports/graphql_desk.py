"""What GraphQL asks for, had of the parts that all doors share: for one speaker."""

from __future__ import annotations

from typing import Any, Final

import structlog
from graphql import ExecutionResult, GraphQLSchema, execute

from unbroken.server.errors import ERROR_MEANINGS
from unbroken.server.models import Models
from unbroken.server.protocols.conversation_names import session_named
from unbroken.server.protocols.graphql.answers import ErrorFields, error_fields, result_fields
from unbroken.server.protocols.graphql.desk import Begun
from unbroken.server.protocols.graphql.documents import Operation
from unbroken.server.protocols.graphql.types import Response, Session
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.responses.decode import asked_of
from unbroken.server.protocols.responses.frames import CreateParam
from unbroken.server.quota.base import Decision
from unbroken.server.quota.gate import Gate
from unbroken.server.quota.report import own_report
from unbroken.server.transports.asking import not_there
from unbroken.server.transports.awaiting import until_ended
from unbroken.server.transports.conversations import Conversations
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Exchanges, Speaker
from unbroken.server.transports.field_names import GRAPHQL
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.models import named_by
from unbroken.sessions.errors import SessionNotFound
from unbroken.sessions.session import Session as Conversation

__all__ = ["GraphqlDesk", "refused_as", "told"]

_STOPPING: Final = 5.0
"""Seconds that whoever cancels waits for the end: agents clean up."""


def refused_as(exc: Exception) -> HttpRefusal:
    """Return how *exc* is told. What nobody expects is a bug: it is logged, and not told of."""
    refusal = exc if isinstance(exc, HttpRefusal) else GRAPHQL.refusal_of(exc)
    if refusal is None:
        structlog.get_logger().error("connection failed", exc_info=exc)
        return HttpRefusal(500, "internal_error", ERROR_MEANINGS["internal_error"])
    return refusal


def told(refusal: HttpRefusal) -> ErrorFields:
    """Return a refusal as an error of GraphQL's."""
    wait = refusal.retry_after if refusal.status in (429, 503) else None
    return error_fields(refusal.code, refusal.message, param=refusal.param, retry_after=wait)


class GraphqlDesk:
    """See :class:`~unbroken.server.protocols.graphql.desk.Desk`.

    Attributes:
        decision: What was reserved for the response that was asked for last. None: nothing was.
        refusals: Why something could not be had, in order.

    """

    def __init__(
        self,
        exchanges: Exchanges,
        conversations: Conversations,
        gate: Gate | None,
        models: Models,
        speaker: Speaker,
    ) -> None:
        self.decision: Decision | None = None
        self.refusals: list[HttpRefusal] = []
        self._exchanges = exchanges
        self._conversations = conversations
        self._gate = gate
        self._models = models
        self._speaker = speaker

    async def execute(self, schema: GraphQLSchema, operation: Operation) -> dict[str, Any]:
        """Return the answer to an operation that isn't a subscription."""
        executed = execute(
            schema,
            operation.document,
            context_value=self,
            variable_values=operation.variables,
            operation_name=operation.name,
            hide_suggestions=True,
        )
        result = executed if isinstance(executed, ExecutionResult) else await executed
        return result_fields(result, self._tell)

    def _tell(self, exc: Exception) -> ErrorFields:
        refusal = refused_as(exc)
        self.refusals.append(refusal)
        return told(refusal)

    async def session(self, session_id: str) -> Session | None:
        """See :meth:`Desk.session`."""
        try:
            attachment = await self._exchanges.stand(self._speaker, session_named(session_id))
        except SessionNotFound:
            return None
        try:
            return _standing(attachment.session)
        finally:
            attachment.close()

    async def sessions(self, first: int, after: str | None) -> tuple[list[Session], bool]:
        """See :meth:`Desk.sessions`."""
        named = None if after is None else session_named(after)
        page = await self._conversations.pages.whole(self._speaker, first, after=named)
        if page is None:
            message = "There is no such session in the list (any more). Begin with the first page again."
            raise DecodeError("invalid_request", message, param="after")
        found, has_more = page
        return [_standing(each) for each in found], has_more

    async def response(self, response_id: str) -> Response | None:
        """See :meth:`Desk.response`."""
        try:
            exchange = await self._exchanges.find(self._speaker, response_id, watches=False)
        except SessionNotFound:
            return None
        try:
            return _as_it_is(exchange)
        finally:
            exchange.close()

    async def usage(self, turns: int) -> dict[str, Any] | None:
        """See :meth:`Desk.usage`."""
        if self._gate is None:
            return None
        speaker = self._speaker
        report, _ = await own_report(self._gate, speaker.grant.principal, speaker.address, turns)
        return report

    def models(self) -> list[str]:
        """See :meth:`Desk.models`."""
        return named_by(self._models, self._speaker.grant)

    async def send(self, wanted: CreateParam) -> Begun:
        """See :meth:`Desk.send`."""
        asked = asked_of(wanted, plan=self._speaker.grant.principal.plan)
        try:
            exchange = await self._exchanges.begin(self._speaker, asked)
        except SessionNotFound:
            raise not_there(asked.conversation) from None
        self.decision = exchange.decision or self.decision
        exchange.close()
        return Begun(exchange.attachment.session.id, exchange.response_id, exchange.resume)

    async def cancel(self, response_id: str) -> Response:
        """See :meth:`Desk.cancel`."""
        exchange = await self._exchanges.find(self._speaker, response_id, watches=False)
        try:
            await exchange.stop()
            exchange.rewind()
            await until_ended(exchange, _STOPPING)
            response = _as_it_is(exchange)
        finally:
            exchange.close()
        if response is None:
            raise SessionNotFound
        return response


def _standing(session: Conversation) -> Session:
    running = session.responses.values()
    return Session.of(session.id, session.config, running=running, items=session.items())


def _as_it_is(exchange: Exchange) -> Response | None:
    """Return a response as far as it has come. None: nobody knows any more."""
    session = exchange.attachment.session
    if (running := session.responses.get(exchange.response_id)) is not None:
        return Response.running(running)
    for done in exchange.attachment.log.ends():
        if done.response_id == exchange.response_id:
            return Response.done(done, exchange.superseded_by)
    if (ended := session.endings.get(exchange.response_id)) is not None:
        items = (session.item(item_id) for item_id in ended.output)
        output = [item for item in items if item is not None]
        return Response.kept(ended, output, exchange.superseded_by)
    return None
