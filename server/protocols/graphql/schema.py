"""The schema: what there is to ask for, as ``schema.graphql`` beside this module shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, TypeAlias

import strawberry
from graphql import GraphQLSchema

from unbroken.server.protocols.graphql.desk import Desk
from unbroken.server.protocols.graphql.events import Event, EventType
from unbroken.server.protocols.graphql.inputs import SendInput
from unbroken.server.protocols.graphql.limits import USUAL_ENTRIES, check_first
from unbroken.server.protocols.graphql.listing import SessionConnection
from unbroken.server.protocols.graphql.types import Response, Session
from unbroken.server.protocols.graphql.usage import Model, Usage
from unbroken.server.protocols.items import DecodeError

__all__ = ["MOST_TURNS", "Mutation", "Query", "SendPayload", "Subscription", "schema_of_sessions", "sdl"]

MOST_TURNS: Final = 1000
"""That one answer about usage may tell of."""

_Info: TypeAlias = strawberry.Info[Desk, None]


@strawberry.type(description="A response that was asked for. It is being made, whoever listens.")
class SendPayload:
    """A response that was asked for."""

    session_id: strawberry.ID
    response_id: strawberry.ID
    resume: str | None = strawberry.field(
        description="A secret: with it the session goes on over Realtime. Null: it can't."
    )


async def _session(info: _Info, id: strawberry.ID) -> Session | None:
    return await info.context.session(id)


async def _sessions(
    info: _Info, first: int = USUAL_ENTRIES, after: strawberry.ID | None = None
) -> SessionConnection:
    check_first(first)
    sessions, has_more = await info.context.sessions(first, after)
    return SessionConnection.of(sessions, has_more=has_more)


async def _response(info: _Info, id: strawberry.ID) -> Response | None:
    return await info.context.response(id)


async def _usage(info: _Info, turns: int = 20) -> Usage | None:
    if not 0 <= turns <= MOST_TURNS:
        raise DecodeError("invalid_request", f"`turns` is a number from 0 to {MOST_TURNS}.", param="turns")
    report = await info.context.usage(turns)
    return None if report is None else Usage.of(report)


def _models(info: _Info) -> list[Model]:
    return [Model(id=strawberry.ID(name)) for name in info.context.models()]


@strawberry.type
class Query:
    """What can be looked at."""

    session: Session | None = strawberry.field(
        resolver=_session, description="A session of the asker's. Null: there is none."
    )
    sessions: SessionConnection = strawberry.field(
        resolver=_sessions,
        description="The asker's own that are stored, the latest first. A cursor is a session's id.",
    )
    response: Response | None = strawberry.field(
        resolver=_response, description="A response of the asker's. Null: there is none."
    )
    usage: Usage | None = strawberry.field(
        resolver=_usage, description="What the asker has used, and the latest turns. Null: nobody counts."
    )
    models: list[Model] = strawberry.field(
        resolver=_models, description="The models that a request may name."
    )


async def _send(info: _Info, input: SendInput) -> SendPayload:
    begun = await info.context.send(input.read())
    return SendPayload(
        session_id=strawberry.ID(begun.session_id),
        response_id=strawberry.ID(begun.response_id),
        resume=begun.resume,
    )


async def _cancel(info: _Info, response_id: strawberry.ID) -> Response:
    return await info.context.cancel(response_id)


@strawberry.type
class Mutation:
    """What can be done."""

    send: SendPayload = strawberry.mutation(
        resolver=_send, description="Say something, and have it answered."
    )
    cancel: Response = strawberry.mutation(
        resolver=_cancel,
        description="Stop a response, wherever it is made. Harmless for one that has ended.",
    )


async def _events(
    session_id: strawberry.ID | None = None,  # noqa: ARG001 - the schema's
    response_id: strawberry.ID | None = None,  # noqa: ARG001
    after: str | None = None,  # noqa: ARG001
) -> AsyncIterator[Event]:
    """Never called: the transport follows the log itself, at its subscriber's own pace."""
    raise AssertionError("can't happen: subscriptions aren't executed by the library")
    yield Event(type=EventType.OPENED)


@strawberry.type
class Subscription:
    """What can be listened to."""

    events: AsyncIterator[Event] = strawberry.subscription(
        resolver=_events,
        description=(
            "What happens in a session, or to one response, which ends it. "
            "`after`: the cursor of the last event that was seen."
        ),
    )


def schema_of_sessions() -> GraphQLSchema:
    """Return the schema, to validate by and to execute."""
    # Strawberry's own way to execute reads and validates each document anew.
    return _schema()._schema


def sdl() -> str:
    """Return the schema in GraphQL's own language."""
    return _schema().as_str() + "\n"


def _schema() -> strawberry.Schema:
    return strawberry.Schema(query=Query, mutation=Mutation, subscription=Subscription)
