"""The schema: what there is to ask for, as ``schema.graphql`` beside this module shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import strawberry
from graphql import GraphQLSchema
from strawberry.scalars import JSON

from unbroken.server.protocols.graphql.desk import Desk
from unbroken.server.protocols.graphql.events import Event, EventType
from unbroken.server.protocols.graphql.types import Model, Response, Session, Usage
from unbroken.server.protocols.items import DecodeError, ToolParam
from unbroken.server.protocols.responses.frames import CreateParam, Extension, InputParam, InputPart

__all__ = ["MOST_TURNS", "schema_of_sessions", "sdl"]

MOST_TURNS: Final = 1000
"""That one answer about usage may tell of."""

_Info: TypeAlias = strawberry.Info[Desk, None]


@strawberry.input(description="A part of a message.")
class ContentInput:
    """A part of a message."""

    type: str = strawberry.field(description="`input_text`, `input_image` or `input_file`.")
    text: str | None = None
    image_url: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None
    detail: str | None = None

    def read(self) -> InputPart:
        """Return it as OpenAI Responses has it."""
        return InputPart(
            type=self.type,
            text=self.text,
            image_url=self.image_url,
            file_id=self.file_id,
            file_data=self.file_data,
            filename=self.filename,
            detail=self.detail,
        )


@strawberry.input(description="An item, as in OpenAI Responses.")
class ItemInput:
    """An item that is said."""

    type: str = "message"
    id: strawberry.ID | None = None
    role: str | None = None
    text: str | None = strawberry.field(default=None, description="Of a message, in place of `content`.")
    content: list[ContentInput] | None = None
    call_id: strawberry.ID | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None
    approval_request_id: strawberry.ID | None = None
    approve: bool | None = None
    reason: str | None = None

    def read(self) -> InputParam:
        """Return it as OpenAI Responses has it."""
        content: str | list[InputPart] | None = self.text
        if self.content is not None:
            content = [each.read() for each in self.content]
        return InputParam(
            type=self.type,
            id=self.id,
            role=self.role,
            content=content,
            call_id=self.call_id,
            name=self.name,
            arguments=self.arguments,
            output=self.output,
            approval_request_id=self.approval_request_id,
            approve=self.approve,
            reason=self.reason,
        )


@strawberry.input(description="A function that the client runs when it is called.")
class ToolInput:
    """A function of the client's."""

    name: str
    description: str | None = None
    parameters: JSON | None = strawberry.field(default=None, description="A JSON schema.")

    def read(self) -> ToolParam:
        """Return it as OpenAI Responses has it.

        Raises:
            DecodeError: It is none.

        """
        parameters: Any = self.parameters
        if parameters is not None and not isinstance(parameters, dict):
            raise DecodeError("invalid_request", "`parameters` is a JSON schema, an object.", param="tools")
        return ToolParam(type="function", name=self.name, description=self.description, parameters=parameters)


@strawberry.input(description="What is said. Either `text` or `items`.")
class SendInput:
    """What is said, and what is to answer."""

    text: str | None = strawberry.field(default=None, description="A message of the user's.")
    items: list[ItemInput] | None = None
    session_id: strawberry.ID | None = strawberry.field(
        default=None, description="Where. Neither this nor `previousResponseId`: in a new session."
    )
    previous_response_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="Behind which response. Not the last one: in a copy of what was said until then.",
    )
    message_id: strawberry.ID | None = strawberry.field(
        default=None, description="A name of the client's own. The same one sent again runs once."
    )
    model: str | None = None
    instructions: str | None = strawberry.field(default=None, description="For this response.")
    max_output_tokens: int | None = None
    tools: list[ToolInput] | None = None
    store: bool = strawberry.field(default=True, description="False: only this node knows it, for a while.")

    def read(self) -> CreateParam:
        """Return it as OpenAI Responses has it.

        Raises:
            DecodeError: It makes no sense.

        """
        if (self.text is None) == (self.items is None):
            raise DecodeError("invalid_request", "Give `text` or `items`, one of them.", param="input")
        said: str | list[InputParam] | None = self.text
        if self.items is not None:
            said = [each.read() for each in self.items]
        named = None if self.message_id is None else Extension(self.message_id)
        return CreateParam(
            model=self.model,
            input=said,
            instructions=self.instructions,
            max_output_tokens=self.max_output_tokens,
            tools=None if self.tools is None else [each.read() for each in self.tools],
            previous_response_id=self.previous_response_id,
            conversation=self.session_id,
            store=self.store,
            unbroken=named,
        )


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


async def _response(info: _Info, id: strawberry.ID) -> Response | None:
    return await info.context.response(id)


async def _usage(info: _Info, turns: int = 20) -> Usage | None:
    if not 0 <= turns <= MOST_TURNS:
        raise DecodeError("invalid_request", f"`turns` is a number from 0 to {MOST_TURNS}.", param="turns")
    report = await info.context.usage(turns)
    return None if report is None else Usage.of(report)


def _models(info: _Info) -> list[Model]:
    return [Model(id=strawberry.ID(name)) for name in info.context.models()]


# A list of sessions belongs here, too, beside the one by its id.
@strawberry.type
class Query:
    """What can be looked at."""

    session: Session | None = strawberry.field(
        resolver=_session, description="A session of the asker's. Null: there is none."
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
