"""What a client may ask for: the body of ``POST /v1/responses``, as far as text, images and files go.

Only shapes; what the values may be is checked where they are used. Fields that aren't listed are skipped.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from unbroken.server.protocols.items import ToolChoiceParam, ToolParam
from unbroken.server.protocols.references import PartParam

__all__ = [
    "ConversationParam",
    "CreateParam",
    "Extension",
    "InputParam",
    "InputPart",
    "StreamOptions",
    "TextParam",
]


class Extension(Struct, frozen=True):
    """What this server adds to a request, under its key ``unbroken``."""

    message_id: str | None = None
    """The client's own name for the request; the same one sent again runs once."""


class ConversationParam(Struct, frozen=True):
    """A conversation that the response is part of."""

    id: str


class InputPart(PartParam, frozen=True):
    """A content part: also as models said it, who may have refused to."""

    refusal: str | None = None


class InputParam(Struct, frozen=True):
    """An item, or a reference to one. Content and outputs may be a string."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None
    error: Any = None
    server_label: str | None = None
    approval_request_id: str | None = None
    approve: bool | None = None
    reason: str | None = None
    encrypted_content: str | None = None


class TextParam(Struct, frozen=True):
    """In which form the answer's text is to be."""

    format: dict[str, Any] | None = None


class StreamOptions(Struct, frozen=True):
    """How it is streamed."""

    include_obfuscation: bool | None = None


class CreateParam(Struct, frozen=True, kw_only=True):
    """A response that is asked for."""

    model: str | None = None
    input: str | list[InputParam] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] | None = None
    tools: list[ToolParam] | None = None
    tool_choice: str | ToolChoiceParam | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationParam | None = None
    store: bool | None = None
    stream: bool | None = None
    background: bool | None = None
    stream_options: StreamOptions | None = None
    text: TextParam | None = None
    temperature: float | None = None
    top_p: float | None = None
    prompt: Any = None
    unbroken: Extension | None = None
    # In WebSocket mode alone.
    stream_id: str | None = None
    generate: bool | None = None
