"""The frames of ``WS /v1/realtime`` that this client reads and writes. No I/O, no state.

What comes in is read once, into the few events below; what isn't of interest is none of them, and only
its place counts. What goes out is made here too, so that a frame that is sent again is the same to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import orjson

from unbroken.client.errors import ProtocolError, Refused, refusal

__all__ = [
    "ErrorShown",
    "Item",
    "ItemShown",
    "ResponseBegun",
    "ResponseEnded",
    "ServerEvent",
    "SessionShown",
    "TextSaid",
    "TextWhole",
    "Usage",
    "cancel_frame",
    "decode",
    "item_frame",
    "message_item",
    "output_item",
    "probe_frame",
    "question_frame",
    "response_frame",
]

_TURN_KEY: Final = "unbroken_turn"
"""The response's metadata that says which turn of whose it answers."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was billed for a turn, all its responses together."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of the input's, those that the model's provider had at hand."""

    @property
    def total_tokens(self) -> int:
        """Those of the input and of the output."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the conversation, as far as it matters here."""

    id: str
    kind: str
    status: str = ""
    role: str = ""
    text: str = field(default="", repr=False)
    call_id: str = ""
    name: str = ""
    arguments: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SessionShown:
    """``session.created``, or ``session.updated``."""

    is_new_connection: bool
    session_id: str
    token: str | None = field(repr=False)
    resumed: bool | None
    concurrency: str
    is_durable: bool | None
    """None: it says nothing of it."""


@dataclass(frozen=True, slots=True)
class ItemShown:
    """``conversation.item.added``: the item is there, whole or begun."""

    item: Item


@dataclass(frozen=True, slots=True)
class ResponseBegun:
    """``response.created``."""

    response_id: str
    turn: str | None
    """What it was named by whoever asked for it; None: it wasn't by a client such as this."""
    in_conversation: bool


@dataclass(frozen=True, slots=True)
class TextSaid:
    """``response.output_text.delta``."""

    response_id: str
    item_id: str
    delta: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TextWhole:
    """``response.output_text.done``: what the deltas of an item make."""

    response_id: str
    item_id: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ResponseEnded:
    """``response.done``."""

    response_id: str
    status: str
    reason: str | None
    code: str | None
    """Why it failed; None: it didn't."""
    message: str
    retry_after: float | None
    usage: Usage | None
    output: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class ErrorShown:
    """``error``: something was refused."""

    error: Refused
    event_id: str | None
    """The name of the client's event that it is about; None: of none, or of one that couldn't be read."""


ServerEvent: TypeAlias = (
    SessionShown | ItemShown | ResponseBegun | TextSaid | TextWhole | ResponseEnded | ErrorShown | None
)
"""None: nothing that matters here."""


def decode(data: str | bytes) -> tuple[str, ServerEvent]:
    """Return the place of a frame, and what it says.

    Raises:
        ProtocolError: It isn't a frame of this protocol.

    """
    try:
        frame = orjson.loads(data)
        event_id = frame["event_id"]
        event = _event(frame["type"], frame)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ProtocolError("The server has sent what is no event of this protocol.") from exc
    if not isinstance(event_id, str):
        raise ProtocolError("The server has sent an event without an id.")
    return event_id, event


def _event(kind: str, frame: Any) -> ServerEvent:
    match kind:
        case "response.output_text.delta":
            return TextSaid(_text(frame["response_id"]), _text(frame["item_id"]), _text(frame["delta"]))
        case "response.output_text.done":
            return TextWhole(_text(frame["response_id"]), _text(frame["item_id"]), _text(frame["text"]))
        case "conversation.item.added":
            return ItemShown(_item(frame["item"]))
        case "response.created":
            response = frame["response"]
            turn = (response.get("metadata") or {}).get(_TURN_KEY)
            return ResponseBegun(_text(response["id"]), turn, "conversation_id" in response)
        case "response.done":
            return _ended(frame["response"])
        case "session.created" | "session.updated":
            session, ours = frame["session"], frame["session"]["unbroken"]
            return SessionShown(
                kind == "session.created",
                session["id"],
                ours.get("resume"),
                ours.get("resumed"),
                ours["concurrency"],
                ours.get("durable"),
            )
        case "error":
            return ErrorShown(refusal(frame["error"]), frame["error"].get("event_id"))
        case _:
            return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value))
    return value


def _item(item: Any) -> Item:
    parts = item.get("content") or ()
    return Item(
        _text(item["id"]),
        _text(item["type"]),
        _text(item.get("status", "")),
        _text(item.get("role", "")),
        "".join(part.get("text") or "" for part in parts),
        _text(item.get("call_id", "")),
        _text(item.get("name", "")),
        _text(item.get("arguments", "")),
    )


def _ended(response: Any) -> ResponseEnded:
    details, ours = response.get("status_details") or {}, response.get("unbroken") or {}
    used = response.get("usage")
    error = details.get("error")
    usage = None
    if used is not None:
        cached = (used.get("input_token_details") or {}).get("cached_tokens", 0)
        usage = Usage(used["input_tokens"], used["output_tokens"], cached)
    return ResponseEnded(
        _text(response["id"]),
        _text(response["status"]),
        ours.get("reason") or details.get("reason"),
        None if error is None else error["code"],
        ours.get("message") or "The answer failed.",
        ours.get("retry_after"),
        usage,
        tuple(map(_item, response["output"])),
    )


# What the client says. Every event is named twice where that can be: by what the server knows it again by,
# and by its `event_id`, which a refusal names.


def message_item(item_id: str, text: str) -> dict[str, Any]:
    """Return a user's message."""
    content = [{"type": "input_text", "text": text}]
    return {"id": item_id, "type": "message", "role": "user", "content": content}


def output_item(item_id: str, call_id: str, output: str) -> dict[str, Any]:
    """Return what a function call came to."""
    return {"id": item_id, "type": "function_call_output", "call_id": call_id, "output": output}


def item_frame(item: Mapping[str, Any]) -> bytes:
    """Return what adds *item* to the conversation, once: it is known again by its id."""
    return orjson.dumps({"type": "conversation.item.create", "event_id": item["id"], "item": item})


def response_frame(
    name: str, turn: str, wishes: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]
) -> bytes:
    """Return what asks for an answer, once for each *name*; *turn* is found again in the response."""
    metadata = {**wishes.get("metadata", {}), _TURN_KEY: turn}
    response = {**wishes, "metadata": metadata, **({"tools": tools} if tools else {})}
    named = {"event_id": name, "unbroken": {"message_id": name}}
    return orjson.dumps({"type": "response.create", **named, "response": response})


def cancel_frame(name: str, response_id: str | None) -> bytes:
    """Return what stops a response; without an id, whatever is being answered or waits for it."""
    named: dict[str, Any] = {"event_id": name, "unbroken": {"message_id": name}}
    if response_id is not None:
        named["response_id"] = response_id
    return orjson.dumps({"type": "response.cancel", **named})


def question_frame(name: str) -> bytes:
    """Return what changes nothing, and is refused when all before it has been told."""
    return _about_nothing("conversation.item.retrieve", name)


def probe_frame(name: str) -> bytes:
    """Return what changes nothing, and is refused in the log, behind all that was sent before."""
    return _about_nothing("conversation.item.delete", name)


def _about_nothing(
    kind: Literal["conversation.item.retrieve", "conversation.item.delete"], name: str
) -> bytes:
    return orjson.dumps({"type": kind, "event_id": name, "item_id": f"no_{name}"})
