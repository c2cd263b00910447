"""What is said in GraphQL, as OpenAI Responses has it: from there on it goes the same way."""

from __future__ import annotations

from typing import Any

import strawberry
from strawberry.scalars import JSON

from unbroken.server.protocols.items import DecodeError, ToolParam
from unbroken.server.protocols.responses.frames import CreateParam, Extension, InputParam, InputPart

__all__ = ["ContentInput", "ItemInput", "SendInput", "ToolInput"]


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
