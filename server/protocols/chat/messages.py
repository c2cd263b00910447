"""A conversation as Chat Completions writes it, and what its messages are here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from unbroken.server.protocols.chat.frames import CallParam, ContentParam, MessageParam
from unbroken.server.protocols.items import DecodeError, ItemParam, item_of
from unbroken.server.protocols.references import PartParam
from unbroken.sessions.items import Item

__all__ = ["items_of", "new_in"]

_MOST_MESSAGES: Final = 2048
"""That one request may bring: all of a conversation, each time."""

_MOST_CALLS: Final = 128
"""Of one answer."""

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def new_in(messages: Sequence[MessageParam]) -> list[MessageParam]:
    """Return the messages behind the last of the assistant's.

    Raises:
        DecodeError: There are none.

    """
    begin = len(messages)
    while begin and messages[begin - 1].role != "assistant":
        begin -= 1
    if begin == len(messages):
        message = "Nothing is new to the session: the last message has to be behind the assistant's."
        raise DecodeError("invalid_request", message, param="messages")
    return list(messages[begin:])


def items_of(messages: Sequence[MessageParam], first: int = 0) -> tuple[Item, ...]:
    """Return the items that *messages* are, the first of which is number *first* of the request's.

    Raises:
        DecodeError: They can't be.

    """
    if len(messages) > _MOST_MESSAGES:
        text = f"`messages` takes up to {_MOST_MESSAGES} messages."
        raise DecodeError("invalid_request", text, param="messages")
    items: list[Item] = []
    for index, message in enumerate(messages, first):
        items += _items(message, f"messages[{index}]")
    return tuple(items)


def _items(message: MessageParam, param: str) -> Iterator[Item]:
    """Yield what a message is: itself, and the calls that came with it."""
    if message.role == "tool":
        output = _text(message.content, f"{param}.content")
        returned = ItemParam(type="function_call_output", call_id=message.tool_call_id, output=output)
        yield _item(returned, param)
        return
    role = _ROLES.get(message.role or "")
    if role is None:
        text = f"`role` must be one of: {', '.join(_ROLES)}, tool."
        raise DecodeError("invalid_request", text, param=f"{param}.role")
    if message.function_call:
        text = "`function_call` isn't offered. Send `tool_calls`."
        raise DecodeError("unsupported_parameter", text, param=f"{param}.function_call")
    calls = (message.tool_calls or []) if role == "assistant" else []
    content = message.content
    if content is None and role == "assistant":
        content = message.refusal
        if content is None and not calls and message.tool_calls is None:
            text = "The message needs a `content`, or `tool_calls`."
            raise DecodeError("invalid_request", text, param=f"{param}.content")
    if content or (content is not None and not calls):
        said = ItemParam(type="message", role=role, content=_parts(content, role, f"{param}.content"))
        yield _item(said, param)
    elif content is None and role != "assistant":
        raise DecodeError("invalid_request", "The message needs a `content`.", param=f"{param}.content")
    if len(calls) > _MOST_CALLS:
        text = f"`tool_calls` takes up to {_MOST_CALLS} calls."
        raise DecodeError("invalid_request", text, param=f"{param}.tool_calls")
    for index, call in enumerate(calls):
        yield _call(call, f"{param}.tool_calls[{index}]")


def _item(item: ItemParam, param: str) -> Item:
    try:
        return item_of(item, param)
    except DecodeError as exc:
        if exc.param == f"{param}.call_id":  # by the name that it has in the other protocols
            message = exc.message.replace("call_id", "tool_call_id")
            raise DecodeError(exc.code, message, param=f"{param}.tool_call_id") from None
        raise


def _call(call: CallParam, param: str) -> Item:
    if call.type not in (None, "function"):
        text = f"Tools of type {call.type[:64]!r} aren't supported. Only `function` is."
        raise DecodeError("unsupported_tool", text, param=f"{param}.type")
    name, arguments = (None, None) if call.function is None else (call.function.name, call.function.arguments)
    called = ItemParam(
        type="function_call", call_id=call.id, name=name, arguments="" if arguments is None else arguments
    )
    try:
        return item_of(called, param)
    except DecodeError as exc:
        where = f"{param}.id" if exc.param == f"{param}.call_id" else f"{param}.function.name"
        raise DecodeError(exc.code, exc.message.replace("call_id", "id"), param=where) from None


def _text(content: str | list[ContentParam] | None, param: str) -> str | None:
    """Return what a tool returned, all parts joined."""
    if not isinstance(content, list):
        return content
    for index, part in enumerate(content):
        if part.type != "text":
            text = f"What a tool returns takes `text` parts, not {part.type[:64]!r}."
            raise DecodeError("unsupported_content", text, param=f"{param}[{index}].type")
    return "".join(part.text or "" for part in content)


def _parts(content: str | list[ContentParam], role: str, param: str) -> list[PartParam]:
    """Return content in the words that all protocols share."""
    kind = "output_text" if role == "assistant" else "input_text"
    if isinstance(content, str):
        return [PartParam(type=kind, text=content)]
    return [_part(part, kind, f"{param}[{index}]") for index, part in enumerate(content)]


def _part(part: ContentParam, kind: str, param: str) -> PartParam:
    match part.type:
        case "text":
            return PartParam(type=kind, text=part.text)
        case "refusal" if kind == "output_text":
            return PartParam(type=kind, text=part.refusal)
        case "image_url":
            image = part.image_url
            if image is None:
                raise DecodeError("invalid_request", "The part needs an `image_url`.", param=param)
            return PartParam(type="input_image", image_url=image.url, detail=image.detail)
        case "file":
            file = part.file
            if file is None:
                raise DecodeError("invalid_request", "The part needs a `file`.", param=param)
            return PartParam(
                type="input_file", file_id=file.file_id, file_data=file.file_data, filename=file.filename
            )
        case _:
            return PartParam(type=part.type, text=part.text)  # it is refused by its type
