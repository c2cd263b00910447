"""What a client of the AI SDK may send, as far as this server reads it.

Only shapes; what the values may be is checked where they are used. Fields that aren't listed are skipped:
pages add their own.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from unbroken.server.protocols.items import ToolChoiceParam, ToolParam

__all__ = ["ApprovalParam", "ChatParam", "Extension", "MessageParam", "UiPart"]


class Extension(Struct, frozen=True):
    """What this server adds to a request, under its key ``unbroken``: the protocol leaves it to servers."""

    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: list[ToolParam] | None = None
    """Functions that the page runs."""
    tool_choice: str | ToolChoiceParam | None = None
    parallel_tool_calls: bool | None = None
    reasoning: bool | None = None
    """Whether what models think is shown, from now on."""


class ApprovalParam(Struct, frozen=True):
    """What became of a request for approval."""

    id: str | None = None
    approved: bool | None = None
    reason: str | None = None


class UiPart(Struct, frozen=True, rename="camel"):
    """A part of a message, of whatever type."""

    type: str
    text: str | None = None
    media_type: str | None = None
    filename: str | None = None
    url: str | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    state: Any = None
    input: Any = None
    output: Any = None
    error_text: str | None = None
    preliminary: bool | None = None
    provider_executed: bool | None = None
    approval: ApprovalParam | None = None

    @property
    def called(self) -> str | None:
        """The tool that it is a call of. None: it is none."""
        if self.type == "dynamic-tool":
            return self.tool_name
        return self.type.removeprefix("tool-") if self.type.startswith("tool-") else None


class MessageParam(Struct, frozen=True):
    """A message."""

    id: str
    role: str
    parts: list[UiPart] = []


class ChatParam(Struct, frozen=True, rename="camel"):
    """An answer that is asked for."""

    id: str
    messages: list[MessageParam]
    trigger: str = "submit-message"
    message_id: str | None = None
    unbroken: Extension | None = None
