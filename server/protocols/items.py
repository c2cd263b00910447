"""Items and functions as clients of OpenAI's protocols write them, and what they are here.

Realtime and Responses say nearly the same of them. Only shapes and bounds; no I/O.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson
from msgspec import Struct

from unbroken.server.protocols.references import BadReference, PartParam, reference_of, refers
from unbroken.sessions.ids import ItemId, new_item_id
from unbroken.sessions.items import (
    ApprovalResponse,
    FunctionCall,
    FunctionOutput,
    FunctionTool,
    Item,
    Message,
    NamedTool,
    Part,
    Role,
    Text,
    ToolChoice,
)

__all__ = [
    "MAX_ID_LENGTH",
    "NAME",
    "DecodeError",
    "ItemParam",
    "ToolChoiceParam",
    "ToolParam",
    "approval_of",
    "check_name",
    "check_pairs",
    "item_of",
    "tool_choice_of",
    "tools_of",
]

MAX_ID_LENGTH: Final = 128
"""Characters that a client's own names may have."""

_MOST_PARTS: Final = 64
"""Of one message."""

_MOST_TOOLS: Final = 128

_MOST_TOOL_BYTES: Final = 48 * 1024
"""That all tools together may have, as JSON."""

_MOST_REASON: Final = 2048
"""Characters of why a call was approved of, or not."""

_PARTS_OF_ROLE: Final[dict[str, tuple[str, ...]]] = {
    "user": ("input_text", "input_image", "input_file"),
    "system": ("input_text",),
    "assistant": ("output_text", "text"),
}

NAME: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_ID_LENGTH}}}")

_FUNCTION_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


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


class ItemParam(Struct, frozen=True):
    """An item, or a reference to one."""

    type: str = "message"
    id: str | None = None
    role: str | None = None
    content: list[PartParam] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None
    approval_request_id: str | None = None
    approve: bool | None = None
    reason: str | None = None


class ToolParam(Struct, frozen=True):
    """A tool."""

    type: str | None = "function"
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolChoiceParam(Struct, frozen=True):
    """The choice of one tool."""

    type: str = "function"
    name: str | None = None


def item_of(item: ItemParam, param: str) -> Item:
    """Return the item that *item* is; *param* names it in an error.

    Raises:
        DecodeError: It can't be.

    """
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
        check_name(item.id, f"{param}.id", None)
        if item.id == "root":
            message = "`root` is what the beginning of the conversation is called. Give the item another id."
            raise DecodeError("invalid_event", message, param=f"{param}.id")
    return new_item_id() if item.id is None else ItemId(item.id)


def approval_of(item: ItemParam, param: str) -> ApprovalResponse:
    """Return the answer to a request for approval that *item* is.

    Raises:
        DecodeError: It can't be.

    """
    request_id = _required(item.approval_request_id, f"{param}.approval_request_id")
    check_name(request_id, f"{param}.approval_request_id", None)
    if item.approve is None:
        message = "The item needs an `approve`, `true` or `false`."
        raise DecodeError("invalid_event", message, param=f"{param}.approve")
    if item.reason is not None and len(item.reason) > _MOST_REASON:
        message = f"`reason` takes up to {_MOST_REASON} characters."
        raise DecodeError("invalid_event", message, param=f"{param}.reason")
    return ApprovalResponse(_item_id(item, param), ItemId(request_id), item.approve, item.reason or None)


def _call_id(item: ItemParam, param: str) -> str:
    call_id = _required(item.call_id, f"{param}.call_id")
    check_name(call_id, f"{param}.call_id", None)
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


def check_name(name: str, param: str, event_id: str | None) -> None:
    """Refuse what can't be a name of the client's own.

    Raises:
        DecodeError: It can't be.

    """
    if NAME.fullmatch(name) is None:
        raise DecodeError(
            "invalid_event",
            f"`{param}` must be 1 to {MAX_ID_LENGTH} printable ASCII characters without spaces.",
            param=param,
            event_id=event_id,
        )


def check_pairs(items: list[Item]) -> None:
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


def tools_of(wanted: list[ToolParam], param: str) -> tuple[FunctionTool, ...]:
    """Return the functions that *wanted* are.

    Raises:
        DecodeError: It can't be.

    """
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


def tool_choice_of(wanted: str | ToolChoiceParam, param: str) -> ToolChoice:
    """Return the choice among functions that *wanted* is.

    Raises:
        DecodeError: It can't be.

    """
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
