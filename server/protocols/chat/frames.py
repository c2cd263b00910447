"""What a client may ask for: the body of ``POST /v1/chat/completions``.

Only shapes; what the values may be is checked where they are used. Fields that aren't listed are skipped.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from unbroken.server.protocols.items import ToolParam

__all__ = [
    "CallParam",
    "CalledParam",
    "ChoiceParam",
    "CompletionParam",
    "ContentParam",
    "Extension",
    "FileParam",
    "FormatParam",
    "ImageParam",
    "MessageParam",
    "NestedTool",
    "StreamOptions",
]


class Extension(Struct, frozen=True):
    """What this server adds to a request, under its key ``unbroken``."""

    session: str | None = None
    """A session that the request is said in, by its id; ``new``: one that begins with it."""
    message_id: str | None = None
    """The client's own name for the request; the same one sent again runs once, in a session."""


class ImageParam(Struct, frozen=True):
    """An image: a data URI, or a file of the store by its address."""

    url: str
    detail: str | None = None


class FileParam(Struct, frozen=True):
    """A document: of the store, or sent along."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class ContentParam(Struct, frozen=True):
    """A content part."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageParam | None = None
    file: FileParam | None = None


class CalledParam(Struct, frozen=True):
    """Which function was called."""

    name: str | None = None
    arguments: str | None = None


class CallParam(Struct, frozen=True):
    """A call, as an answer had it."""

    id: str | None = None
    type: str | None = "function"
    function: CalledParam | None = None


class MessageParam(Struct, frozen=True):
    """A message, with the calls that came with it; or what a called function returned."""

    role: str | None = None
    content: str | list[ContentParam] | None = None
    refusal: str | None = None
    tool_calls: list[CallParam] | None = None
    tool_call_id: str | None = None
    function_call: Any = None


class NestedTool(Struct, frozen=True):
    """A tool, or the choice of one."""

    type: str | None = "function"
    function: ToolParam | None = None


class ChoiceParam(Struct, frozen=True):
    """The choice of one tool."""

    type: str = "function"
    function: CalledParam | None = None


class FormatParam(Struct, frozen=True):
    """In which form the answer's text is to be."""

    type: str
    json_schema: dict[str, Any] | None = None


class StreamOptions(Struct, frozen=True):
    """How it is streamed."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CompletionParam(Struct, frozen=True, kw_only=True):
    """An answer that is asked for."""

    model: str | None = None
    messages: list[MessageParam] | None = None
    tools: list[NestedTool] | None = None
    tool_choice: str | ChoiceParam | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    response_format: FormatParam | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    unbroken: Extension | None = None
    # What would be counted on, and isn't to be had.
    n: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    logit_bias: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None
    functions: Any = None
    function_call: Any = None
