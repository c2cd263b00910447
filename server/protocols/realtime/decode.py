"""From bytes to a client event, and from a client event to a command.

Whatever a client sends, the outcome is an event or a :class:`DecodeError` that
says what to do: nothing here raises anything else.
"""

from __future__ import annotations

import re
from typing import Any, Final, assert_never

import msgspec
import orjson
from msgspec import UNSET, Struct

from unbroken.server.protocols.realtime.frames import (
    ClientEvent,
    ItemCreate,
    ItemDelete,
    ItemParam,
    ItemRetrieve,
    ItemTruncate,
    ResponseCancel,
    ResponseCreate,
    ResponseParam,
    SessionParam,
    SessionUpdate,
    ToolChoiceParam,
    ToolParam,
)
from unbroken.server.protocols.realtime.references import BadReference, reference_of, refers
from unbroken.sessions.entries import (
    CancelResponse,
    Command,
    CreateItem,
    CreateResponse,
    DeleteItem,
    TruncateItem,
    UpdateConfig,
)
from unbroken.sessions.ids import ItemId, new_item_id, new_response_id
from unbroken.sessions.items import (
    ApprovalResponse,
    Concurrency,
    FunctionCall,
    FunctionOutput,
    FunctionTool,
    Item,
    Message,
    NamedTool,
    Part,
    ResponseRequest,
    Role,
    Text,
    ToolChoice,
)
from unbroken.sessions.session import Session

__all__ = ["MAX_ID_LENGTH", "DecodeError", "command_of", "decode_event", "update_of"]

MAX_ID_LENGTH: Final = 128
"""Characters that a client's own names may have."""

_MOST_TOKENS: Final = 2**31 - 1
"""JSON has numbers of any size; what comes in must fit what goes out again, and what agents take."""

_MOST_INPUT: Final = 256
"""Items that one response may be given to answer."""

_MOST_REFERRED: Final = 512 * 1024
"""Bytes of items that one response may refer to: a reference is short, what it stands for is written out."""

_MOST_PARTS: Final = 64
"""Of one message."""

_MOST_TOOLS: Final = 128

_MOST_TOOL_BYTES: Final = 48 * 1024
"""That all tools together may have, as JSON."""

_MOST_REASON: Final = 2048
"""Characters of why a call was approved of, or not."""

_MOST_WORDS: Final = 200
"""Characters of what is said to be wrong with an event."""

_PARTS_OF_ROLE: Final[dict[str, tuple[str, ...]]] = {
    "user": ("input_text", "input_image", "input_file"),
    "system": ("input_text",),
    "assistant": ("output_text", "text"),
}

_UNSUPPORTED: Final = {
    "input_audio_buffer.append": "audio_input_unsupported",
    "input_audio_buffer.commit": "audio_input_unsupported",
    "input_audio_buffer.clear": "audio_input_unsupported",
    "output_audio_buffer.clear": "unsupported_event",
}

_NAME: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_ID_LENGTH}}}")
_FUNCTION_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PATH: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
# A string that never ends takes in the rest, and no step is taken back: it would cost a square.
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class DecodeError(Exception):
    """What the client sent can't be taken. The connection goes on.

    Attributes:
        code: One of :data:`unbroken.server.errors.ERROR_MEANINGS`.
        message: What is wrong and what to do.
        param: The field at fault, where there is one.
        event_id: The client's own name for the event, where it could be read.

    """

    def __init__(
        self, code: str, message: str, *, param: str | None = None, event_id: str | None = None
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.param = param
        self.event_id = event_id

    def __str__(self) -> str:
        return self.message


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
    if data.count(b"[") + data.count(b"{") > max_depth and _depth(data) > max_depth:
        raise DecodeError("invalid_json", f"The event is nested more than {max_depth} levels deep.")
    try:
        event: ClientEvent = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _explain(data, exc) from None
    if event.event_id is not None:
        _check_name(event.event_id, "event_id", None)
    message_id = (
        None if isinstance(event, ItemRetrieve) or event.unbroken is None else event.unbroken.message_id
    )
    if message_id is not None:
        _check_name(message_id, "unbroken.message_id", event.event_id)
    return event


def _explain(data: bytes, exc: Exception) -> DecodeError:
    """Return why *data* isn't an event, in words that help."""
    try:
        head = _HEAD_DECODER.decode(data)
    except msgspec.ValidationError:
        return DecodeError("invalid_json", "The frame must hold a JSON object.")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return DecodeError("invalid_json", "The frame isn't valid JSON.")
    event_id = head.event_id if isinstance(head.event_id, str) and _NAME.fullmatch(head.event_id) else None
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


def _depth(data: bytes) -> int:
    """Return how deeply *data* is nested, brackets inside strings aside."""
    depth = deepest = 0
    for token in _STRUCTURE.findall(data):
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest


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
                    return CreateItem(_approval(event.item, "item"), previous)
                return CreateItem(_item(event.item, "item"), previous)
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
        tools=UNSET if wanted.tools is UNSET else _tools(wanted.tools or [], "session.tools"),
        tool_choice=(
            UNSET
            if wanted.tool_choice is UNSET
            else _tool_choice(wanted.tool_choice or "auto", "session.tool_choice")
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
        tools=None if wanted.tools is None else _tools(wanted.tools, "response.tools"),
        tool_choice=(
            None if wanted.tool_choice is None else _tool_choice(wanted.tool_choice, "response.tool_choice")
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
            given.append(_item(item, param))
            continue
        found = session.item(item.id or "")
        if found is None:
            raise DecodeError("item_not_found", "The item referred to doesn't exist.", param=f"{param}.id")
        referred += found.size
        if referred > _MOST_REFERRED:
            message = f"The items referred to hold more than {_MOST_REFERRED} bytes. Refer to fewer."
            raise DecodeError("invalid_event", message, param=param)
        given.append(found)
    _check_pairs(given)
    return tuple(given)


def _check_pairs(items: list[Item]) -> None:
    """Refuse in `input` a second call of one id, and outputs that belong to no call, or an answered one."""
    called: set[str] = set()  # the calls that have no output yet
    known: set[str] = set()
    for index, item in enumerate(items):
        if isinstance(item, FunctionCall):
            if item.call_id in known:
                message = f"There are two function calls {item.call_id[:64]!r} in `input`."
                raise DecodeError("item_id_taken", message, param=f"response.input[{index}].call_id")
            known.add(item.call_id)
            called.add(item.call_id)
        elif isinstance(item, FunctionOutput):
            if item.call_id not in called:
                message = (
                    f"No function call {item.call_id[:64]!r} without an output is ahead of it in `input`."
                )
                raise DecodeError("item_not_found", message, param=f"response.input[{index}].call_id")
            called.remove(item.call_id)


def _tools(wanted: list[ToolParam], param: str) -> tuple[FunctionTool, ...]:
    if len(wanted) > _MOST_TOOLS:
        raise DecodeError("invalid_event", f"There may be up to {_MOST_TOOLS} tools.", param=param)
    tools: list[FunctionTool] = []
    size = 0
    for index, tool in enumerate(wanted):
        where = f"{param}[{index}]"
        if tool.type not in (None, "function"):
            message = f"Tools of type {tool.type[:64]!r} aren't supported. Only `function` is."
            raise DecodeError("unsupported_tool", message, param=f"{where}.type")
        name = _function_name(tool.name, f"{where}.name")
        if any(name == other.name for other in tools):
            message = f"There are two tools of the name {name!r}."
            raise DecodeError("invalid_event", message, param=f"{where}.name")
        try:
            size += len(orjson.dumps([name, tool.description, tool.parameters]))
        except (TypeError, ValueError):  # such as numbers that nobody could read again
            message = "`parameters` can't be written as JSON again."
            raise DecodeError("invalid_event", message, param=f"{where}.parameters") from None
        tools.append(FunctionTool(name, tool.description, tool.parameters))
    if size > _MOST_TOOL_BYTES:
        message = f"All tools together may have up to {_MOST_TOOL_BYTES} bytes."
        raise DecodeError("invalid_event", message, param=param)
    return tuple(tools)


def _tool_choice(wanted: str | ToolChoiceParam, param: str) -> ToolChoice:
    match wanted:
        case "auto" | "none" | "required":
            return wanted
        case ToolChoiceParam(type="function", name=name):
            return NamedTool(_function_name(name, f"{param}.name"))
        case ToolChoiceParam(type=kind):
            message = f"Tools of type {kind[:64]!r} aren't supported. Only `function` is."
            raise DecodeError("unsupported_tool", message, param=f"{param}.type")
        case _:
            message = "`tool_choice` must be `auto`, `none`, `required`, or a function by its name."
            raise DecodeError("invalid_event", message, param=param)


def _function_name(name: str | None, param: str) -> str:
    if name is None or _FUNCTION_NAME.fullmatch(name) is None:
        message = "A function's `name` must be 1 to 64 letters, digits, underscores and dashes."
        raise DecodeError("invalid_event", message, param=param)
    return name


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


def _item(item: ItemParam, param: str) -> Item:
    item_id = _item_id(item, param)
    match item.type:
        case "message":
            return _message(item, item_id, param)
        case "function_call":
            name = _function_name(item.name, f"{param}.name")
            arguments = _required(item.arguments, f"{param}.arguments")
            return FunctionCall(item_id, _call_id(item, param), name, arguments)
        case "function_call_output":
            return FunctionOutput(item_id, _call_id(item, param), _required(item.output, f"{param}.output"))
        case _:
            raise DecodeError(
                "unsupported_item",
                f"Items of type {item.type[:64]!r} aren't supported. "
                "Send a `message`, `function_call`, `function_call_output` or `mcp_approval_response`.",
                param=f"{param}.type",
            )


def _item_id(item: ItemParam, param: str) -> ItemId:
    if item.id is not None:
        _check_name(item.id, f"{param}.id", None)
        if item.id == "root":
            message = "`root` is what the beginning of the conversation is called. Give the item another id."
            raise DecodeError("invalid_event", message, param=f"{param}.id")
    return new_item_id() if item.id is None else ItemId(item.id)


def _approval(item: ItemParam, param: str) -> ApprovalResponse:
    request_id = _required(item.approval_request_id, f"{param}.approval_request_id")
    _check_name(request_id, f"{param}.approval_request_id", None)
    if item.approve is None:
        message = "The item needs an `approve`, `true` or `false`."
        raise DecodeError("invalid_event", message, param=f"{param}.approve")
    if item.reason is not None and len(item.reason) > _MOST_REASON:
        message = f"`reason` takes up to {_MOST_REASON} characters."
        raise DecodeError("invalid_event", message, param=f"{param}.reason")
    return ApprovalResponse(_item_id(item, param), ItemId(request_id), item.approve, item.reason or None)


def _call_id(item: ItemParam, param: str) -> str:
    call_id = _required(item.call_id, f"{param}.call_id")
    _check_name(call_id, f"{param}.call_id", None)
    return call_id


def _required(text: str | None, param: str) -> str:
    if text is None:
        name = param.rpartition(".")[2]
        raise DecodeError("invalid_event", f"The item needs a `{name}`, a string.", param=param)
    return text


def _message(item: ItemParam, item_id: ItemId, param: str) -> Message:
    role = item.role
    if role is None or role not in _PARTS_OF_ROLE:
        raise DecodeError(
            "invalid_event", "`role` must be `user`, `system` or `assistant`.", param=f"{param}.role"
        )
    if not item.content:
        raise DecodeError("invalid_event", "`content` needs at least one part.", param=f"{param}.content")
    if len(item.content) > _MOST_PARTS:
        message = f"`content` takes up to {_MOST_PARTS} parts."
        raise DecodeError("invalid_event", message, param=f"{param}.content")
    parts: list[Part] = []
    for index, part in enumerate(item.content):
        where = f"{param}.content[{index}]"
        if part.type == "input_audio":
            message = "This server takes no audio. Send an `input_text` part."
            raise DecodeError("audio_input_unsupported", message, param=f"{where}.type")
        if part.type not in _PARTS_OF_ROLE[role]:
            expected = _PARTS_OF_ROLE[role][0]
            message = f"A {role} message takes `{expected}` parts, not {part.type[:64]!r}."
            raise DecodeError("unsupported_content", message, param=f"{where}.type")
        if role == "user" and refers(part):
            try:
                parts.append(reference_of(part))
            except BadReference as exc:
                raise DecodeError(exc.code, exc.message, param=f"{where}.{exc.field}") from None
            continue
        if part.text is None:
            raise DecodeError("invalid_event", "The part needs a `text`.", param=f"{where}.text")
        parts.append(Text(part.text))
    return Message(item_id, _role(role), tuple(parts))


def _role(role: str) -> Role:
    match role:
        case "user" | "system" | "assistant":
            return role
        case _:
            raise AssertionError("can't happen: checked by the caller")


def _check_name(name: str, param: str, event_id: str | None) -> None:
    if _NAME.fullmatch(name) is None:
        raise DecodeError(
            "invalid_event",
            f"`{param}` must be 1 to {MAX_ID_LENGTH} printable ASCII characters without spaces.",
            param=param,
            event_id=event_id,
        )
