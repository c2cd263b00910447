"""What a client may send: the client events of OpenAI Realtime, as far as text goes.

Only shapes; what the values may be is checked where they are used. Fields that
aren't listed are skipped: clients send many that don't apply to text.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from unbroken.server.protocols.items import ItemParam, ToolChoiceParam, ToolParam

__all__ = [
    "ClientEvent",
    "Extension",
    "ItemCreate",
    "ItemDelete",
    "ItemRetrieve",
    "ItemTruncate",
    "ResponseCancel",
    "ResponseCreate",
    "ResponseParam",
    "SessionExtension",
    "SessionParam",
    "SessionUpdate",
]


class Extension(Struct, frozen=True):
    """What this server adds to an event, under its key ``unbroken``."""

    message_id: str | None = None
    """The client's own name for a message; the same one sent again, on whatever connection, runs once."""


class SessionExtension(Struct, frozen=True):
    """What this server adds to a session."""

    concurrency: Literal["reject", "queue", "interrupt", "merge"] | UnsetType = UNSET
    reasoning: bool | UnsetType = UNSET
    """Whether what models think is shown, in events that only this server has."""


class SessionParam(Struct, frozen=True):
    """What a client may want of a session."""

    type: str = "realtime"
    model: str | UnsetType | None = UNSET
    """Looked at where it is settled; elsewhere the address says it."""
    instructions: str | UnsetType = UNSET
    max_output_tokens: int | Literal["inf"] | UnsetType = UNSET
    tools: list[ToolParam] | UnsetType | None = UNSET
    tool_choice: str | ToolChoiceParam | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    prompt: Any = None
    unbroken: SessionExtension | None = None


class ResponseParam(Struct, frozen=True):
    """What a client may want of a response."""

    conversation: str | None = None
    instructions: str | None = None
    max_output_tokens: int | Literal["inf"] | None = None
    metadata: dict[str, str] | None = None
    tools: list[ToolParam] | None = None
    tool_choice: str | ToolChoiceParam | None = None
    parallel_tool_calls: bool | None = None
    prompt: Any = None
    input: list[ItemParam] | None = None


class SessionUpdate(Struct, frozen=True, tag="session.update"):
    """Change the session's configuration."""

    session: SessionParam
    event_id: str | None = None
    unbroken: Extension | None = None


class ItemCreate(Struct, frozen=True, tag="conversation.item.create"):
    """Add an item to the conversation."""

    item: ItemParam
    previous_item_id: str | None = None
    event_id: str | None = None
    unbroken: Extension | None = None


class ItemRetrieve(Struct, frozen=True, tag="conversation.item.retrieve"):
    """Show an item."""

    item_id: str
    event_id: str | None = None


class ItemDelete(Struct, frozen=True, tag="conversation.item.delete"):
    """Remove an item from the conversation."""

    item_id: str
    event_id: str | None = None
    unbroken: Extension | None = None


class ItemTruncate(Struct, frozen=True, tag="conversation.item.truncate"):
    """Say how much of an answer was heard before it was interrupted."""

    item_id: str
    content_index: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    audio_end_ms: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    event_id: str | None = None
    unbroken: Extension | None = None


class ResponseCreate(Struct, frozen=True, tag="response.create"):
    """Ask for a response."""

    response: ResponseParam | None = None
    event_id: str | None = None
    unbroken: Extension | None = None


class ResponseCancel(Struct, frozen=True, tag="response.cancel"):
    """Stop a response."""

    response_id: str | None = None
    event_id: str | None = None
    unbroken: Extension | None = None


ClientEvent: TypeAlias = (
    SessionUpdate | ItemCreate | ItemRetrieve | ItemDelete | ItemTruncate | ResponseCreate | ResponseCancel
)
