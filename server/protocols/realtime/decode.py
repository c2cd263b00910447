"""From bytes to a client event, and from a client event to a command.

Whatever a client sends, the outcome is an event or a :class:`DecodeError` that
says what to do: nothing here raises anything else.
"""

from __future__ import annotations

import re
from typing import Any, Final, assert_never

import msgspec
from msgspec import UNSET, Struct

from unbroken.server.protocols.items import (
    NAME,
    DecodeError,
    ItemParam,
    approval_of,
    check_name,
    check_pairs,
    item_of,
    tool_choice_of,
    tools_of,
)
from unbroken.server.protocols.nesting import too_deep
from unbroken.server.protocols.realtime.frames import (
    ClientEvent,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    ResponseCancel,
    ResponseCreate,
    ResponseParam,
    SessionParam,
    SessionUpdate,
)
from unbroken.sessions.entries import (
    CancelResponse,
    Command,
    CreateItem,
    CreateResponse,
    DeleteItem,
    TruncateItem,
    UpdateConfig,
)
from unbroken.sessions.ids import new_response_id
from unbroken.sessions.items import (
    Concurrency,
    Item,
    ResponseRequest,
)
from unbroken.sessions.session import Session

__all__ = ["command_of", "decode_event", "update_of"]

_MOST_TOKENS: Final = 2**31 - 1
"""JSON has numbers of any size; what comes in must fit what goes out again, and what agents take."""

_MOST_INPUT: Final = 256
"""Items that one response may be given to answer."""

_MOST_REFERRED: Final = 512 * 1024
"""Bytes of items that one response may refer to: a reference is short, what it stands for is written out."""

_MOST_WORDS: Final = 200
"""Characters of what is said to be wrong with an event."""

_UNSUPPORTED: Final = {
    "input_audio_buffer.append": "audio_input_unsupported",
    "input_audio_buffer.commit": "audio_input_unsupported",
    "input_audio_buffer.clear": "audio_input_unsupported",
    "output_audio_buffer.clear": "unsupported_event",
}

_PATH: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)


class _Head(Struct, frozen=True):
    """As much as can be said of any event."""

    type: Any = None
    event_id: Any = None


_DECODER: Final = msgspec.json.Decoder(ClientEvent)
_HEAD_DECODER: Final = msgspec.json.Decoder(_Head)


def decode_event(data: bytes, *, max_depth: int) -> ClientEvent:
    """Return the event that *data* holds.

    Raises:
        DecodeError: It holds none.

    """
    if (why := too_deep(data, max_depth, "The event")) is not None:
        raise DecodeError("invalid_json", why)
    try:
        event: ClientEvent = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _explain(data, exc) from None
    if event.event_id is not None:
        check_name(event.event_id, "event_id", None)
    message_id = (
        None if isinstance(event, ItemRetrieve) or event.unbroken is None else event.unbroken.message_id
    )
    if message_id is not None:
        check_name(message_id, "unbroken.message_id", event.event_id)
    return event


def _explain(data: bytes, exc: Exception) -> DecodeError:
    """Return why *data* isn't an event, in words that help."""
    try:
        head = _HEAD_DECODER.decode(data)
    except msgspec.ValidationError:
        return DecodeError("invalid_json", "The frame must hold a JSON object.")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return DecodeError("invalid_json", "The frame isn't valid JSON.")
    event_id = head.event_id if isinstance(head.event_id, str) and NAME.fullmatch(head.event_id) else None
    if not isinstance(head.type, str):
        return DecodeError(
            "invalid_event", "The event needs a `type`, a string.", param="type", event_id=event_id
        )
    if (code := _UNSUPPORTED.get(head.type)) is not None:
        message = (
            "This server takes no audio. Send text: `conversation.item.create` with an `input_text` part."
            if code == "audio_input_unsupported"
            else f"This server doesn't offer `{head.type}`."
        )
        return DecodeError(code, message, param="type", event_id=event_id)
    if isinstance(exc, msgspec.ValidationError) and str(exc).endswith("at `$.type`"):
        message = f"There is no event of type {head.type[:64]!r}."
        return DecodeError("unknown_event_type", message, param="type", event_id=event_id)
    match = _PATH.match(str(exc))
    what, path = (match["what"], match["path"]) if match else (str(exc), None)
    if len(what) > _MOST_WORDS:  # it quotes a value, which may be as long as a frame
        what = f"{what[:_MOST_WORDS]}.."
    return DecodeError("invalid_event", f"{what}.", param=path or None, event_id=event_id)


def command_of(
    event: SessionUpdate | ItemCreate | ItemDelete | ItemTruncate | ResponseCreate | ResponseCancel,
    session: Session,
    *,
    most_tokens: int | None = None,
    plan: str | None = None,
    now: float = 0.0,
) -> Command:
    """Return what *event* asks of *session*, in which no answer may have more than *most_tokens*.

    *plan* is that of whoever asks, *now* the time in seconds since 1970.

    Raises:
        DecodeError: It asks for what can't be.

    """
    try:
        match event:
            case SessionUpdate():
                return update_of(event.session, most_tokens)
            case ItemCreate():
                previous = event.previous_item_id
                if event.item.type == "mcp_approval_response":
                    return CreateItem(approval_of(event.item, "item"), previous)
                return CreateItem(item_of(event.item, "item"), previous)
            case ItemDelete():
                return DeleteItem(event.item_id)
            case ItemTruncate():
                return TruncateItem(event.item_id, event.content_index, event.audio_end_ms)
            case ResponseCreate():
                request = _request(event.response or ResponseParam(), session, plan)
                return CreateResponse(new_response_id(session.id, now), request)
            case ResponseCancel():
                return CancelResponse(event.response_id)
            case _:
                assert_never(event)
    except DecodeError as exc:
        exc.event_id = event.event_id
        raise


def update_of(wanted: SessionParam, most_tokens: int | None) -> UpdateConfig:
    """Return the change of a session's configuration that is *wanted*.

    Raises:
        DecodeError: It asks for what can't be.

    """
    if wanted.type != "realtime":
        raise DecodeError(
            "unsupported_session_type",
            f"Sessions of type {wanted.type[:64]!r} aren't offered. Use `realtime`.",
            param="session.type",
        )
    _check_prompt(wanted.prompt, "session.prompt")
    extension = wanted.unbroken
    return UpdateConfig(
        instructions=wanted.instructions,
        max_output_tokens=(
            UNSET
            if wanted.max_output_tokens is UNSET
            else _capped(_tokens(wanted.max_output_tokens, "session.max_output_tokens"), most_tokens)
        ),
        concurrency=(
            UNSET
            if extension is None or extension.concurrency is UNSET
            else Concurrency(extension.concurrency)
        ),
        tools=UNSET if wanted.tools is UNSET else tools_of(wanted.tools or [], "session.tools"),
        tool_choice=(
            UNSET
            if wanted.tool_choice is UNSET
            else tool_choice_of(
                "auto" if wanted.tool_choice is None else wanted.tool_choice, "session.tool_choice"
            )
        ),
        parallel_tool_calls=wanted.parallel_tool_calls,
        reasoning=UNSET if extension is None else extension.reasoning,
    )


def _request(wanted: ResponseParam, session: Session, plan: str | None) -> ResponseRequest:
    if wanted.conversation not in (None, "auto", "none"):
        raise DecodeError(
            "invalid_event",
            "`conversation` must be `auto` or `none`.",
            param="response.conversation",
        )
    metadata = wanted.metadata
    if metadata is not None and (
        len(metadata) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in metadata.items())
    ):
        raise DecodeError(
            "invalid_event",
            "`metadata` takes up to 16 pairs, keys of up to 64 and values of up to 512 characters.",
            param="response.metadata",
        )
    _check_prompt(wanted.prompt, "response.prompt")
    return ResponseRequest(
        in_conversation=wanted.conversation != "none",
        instructions=wanted.instructions,
        max_output_tokens=_tokens(wanted.max_output_tokens, "response.max_output_tokens"),
        metadata=metadata or None,
        input=None if wanted.input is None else _input(wanted.input, session),
        tools=None if wanted.tools is None else tools_of(wanted.tools, "response.tools"),
        tool_choice=(
            None if wanted.tool_choice is None else tool_choice_of(wanted.tool_choice, "response.tool_choice")
        ),
        parallel_tool_calls=wanted.parallel_tool_calls,
        plan=plan,
    )


def _input(items: list[ItemParam], session: Session) -> tuple[Item, ...]:
    if len(items) > _MOST_INPUT:
        message = f"`input` takes up to {_MOST_INPUT} items."
        raise DecodeError("invalid_event", message, param="response.input")
    given: list[Item] = []
    referred = 0
    for index, item in enumerate(items):
        param = f"response.input[{index}]"
        if item.type != "item_reference":
            given.append(item_of(item, param))
            continue
        found = session.item(item.id or "")
        if found is None:
            raise DecodeError("item_not_found", "The item referred to doesn't exist.", param=f"{param}.id")
        referred += found.size
        if referred > _MOST_REFERRED:
            message = f"The items referred to hold more than {_MOST_REFERRED} bytes. Refer to fewer."
            raise DecodeError("invalid_event", message, param=param)
        given.append(found)
    check_pairs(given)
    return tuple(given)


def _check_prompt(wanted: object, param: str) -> None:
    """Refuse a prompt template: who asks for one counts on what it says."""
    if wanted is not None:
        message = "This server keeps no prompt templates. Send `instructions`."
        raise DecodeError("unsupported_prompt", message, param=param)


def _tokens(value: int | str | None, param: str) -> int | None:
    if value is None or isinstance(value, str):
        return None  # "inf"
    if not 1 <= value <= _MOST_TOKENS:
        message = f"`max_output_tokens` must be from 1 to {_MOST_TOKENS}, or `inf`."
        raise DecodeError("invalid_event", message, param=param)
    return value


def _capped(tokens: int | None, most: int | None) -> int | None:
    """Return how many *tokens* an answer may have where the operator allows *most*; None: any number."""
    if tokens is None or most is None:
        return most if tokens is None else tokens
    return min(tokens, most)
