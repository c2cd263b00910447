"""What a client of AG-UI may send, as far as this server reads it.

Only shapes; what the values may be is checked where they are used. Fields that aren't listed are skipped.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

__all__ = [
    "CallParam",
    "ContentParam",
    "ContextParam",
    "FunctionParam",
    "MessageParam",
    "ResumeParam",
    "RunParam",
    "SourceParam",
    "ToolParam",
]


class SourceParam(Struct, frozen=True, rename="camel"):
    """Where the bytes of a part are."""

    type: str
    value: str
    mime_type: str | None = None


class ContentParam(Struct, frozen=True):
    """A part of what a message says, of whatever type."""

    type: str
    text: str | None = None
    source: SourceParam | None = None
    metadata: Any = None


class FunctionParam(Struct, frozen=True):
    """Which function is called, and with what."""

    name: str
    arguments: str = ""


class CallParam(Struct, frozen=True):
    """A call of a function."""

    id: str
    function: FunctionParam


class MessageParam(Struct, frozen=True, rename="camel"):
    """A message, of whatever role."""

    id: str
    role: str
    content: str | list[ContentParam] | dict[str, Any] | None = None
    tool_calls: list[CallParam] | None = None
    tool_call_id: str | None = None
    error: str | None = None


class ToolParam(Struct, frozen=True):
    """A function that the client runs."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ContextParam(Struct, frozen=True):
    """Something that the page knows, and the agent is to know."""

    description: str
    value: str


class ResumeParam(Struct, frozen=True, rename="camel"):
    """What became of an interrupt."""

    interrupt_id: str
    status: str
    payload: Any = None


class RunParam(Struct, frozen=True, rename="camel"):
    """A run that is asked for: the protocol's ``RunAgentInput``."""

    thread_id: str
    run_id: str
    messages: list[MessageParam]
    tools: list[ToolParam] | None = None
    context: list[ContextParam] | None = None
    resume: list[ResumeParam] | None = None
    forwarded_props: Any = None
