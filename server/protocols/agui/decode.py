"""From the body of a request to the run that it asks for.

Clients send the whole conversation each time, as clients of the AI SDK do: so it is put into their words, and
what is new of it is found out in the same place. A function's output is a message of its own here, and an
answer several; there they are parts of one message.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from unbroken.server.protocols.agui.frames import ContentParam, MessageParam, RunParam, SourceParam
from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.items import DecodeError, check_name
from unbroken.server.protocols.items import ToolParam as FunctionToolParam
from unbroken.server.protocols.nesting import read_within
from unbroken.server.protocols.references import SCHEME
from unbroken.server.protocols.ui.decode import Chat, chat_of, check_messages
from unbroken.server.protocols.ui.frames import ApprovalParam, ChatParam, Extension, UiPart
from unbroken.server.protocols.ui.frames import MessageParam as UiMessage

__all__ = ["RUN_ID", "THREAD_ID", "Run", "decode_run", "run_of"]

RUN_ID: Final = "agui_run_id"
"""In a response's metadata: what the client calls the run."""

THREAD_ID: Final = "agui_thread_id"
"""In a response's metadata: what the client calls the conversation."""

_MOST_CONTEXT: Final = 32 * 1024
"""Characters of what a page lets the agent know beside the conversation."""

_DECODER: Final = msgspec.json.Decoder(RunParam)


@dataclass(frozen=True, slots=True)
class Run:
    """What a client asks for, read."""

    id: str
    chat: Chat
    context: str
    """What the page knows, for the agent to read. Empty: nothing."""

    @property
    def thread_id(self) -> str:
        """What the client calls the conversation."""
        return self.chat.id


def decode_run(data: bytes, *, max_depth: int) -> Run:
    """Return what the body of a request asks for.

    Raises:
        DecodeError: It asks for nothing of the kind.

    """
    return run_of(decoded(data, _DECODER, max_depth=max_depth))


def run_of(wanted: RunParam) -> Run:
    """Return what *wanted* asks for.

    Raises:
        DecodeError: It can't be had.

    """
    for name, param in ((wanted.thread_id, "threadId"), (wanted.run_id, "runId")):
        try:
            check_name(name, param, None)
        except DecodeError as exc:
            raise DecodeError("invalid_request", exc.message, param=param) from None
    chat = ChatParam(wanted.thread_id, _messages(wanted), unbroken=_extension(wanted))
    return Run(wanted.run_id, chat_of(chat), _context(wanted))


def _extension(wanted: RunParam) -> Extension:
    props = wanted.forwarded_props
    given = props.get("unbroken") if isinstance(props, dict) else None
    try:
        extension = Extension() if given is None else msgspec.convert(given, Extension)
    except msgspec.ValidationError as exc:
        raise DecodeError("invalid_request", f"{exc}.", param="forwardedProps.unbroken") from None
    if not wanted.tools:
        return extension
    tools = [
        FunctionToolParam("function", each.name, each.description, each.parameters) for each in wanted.tools
    ]
    return msgspec.structs.replace(extension, tools=tools)


def _context(wanted: RunParam) -> str:
    text = "\n\n".join(f"{each.description}:\n{each.value}" for each in wanted.context or ())
    if len(text) > _MOST_CONTEXT:
        message = f"`context` takes up to {_MOST_CONTEXT} characters in all."
        raise DecodeError("invalid_request", message, param="context")
    return text


def _messages(wanted: RunParam) -> list[UiMessage]:
    """Return the conversation in the words of the AI SDK: what an answer consists of is one message."""
    check_messages(len(wanted.messages))
    outputs = {
        each.tool_call_id: each
        for each in wanted.messages
        if each.role == "tool" and each.tool_call_id is not None
    }
    messages: list[UiMessage] = []
    called: set[str] = set()
    for each in wanted.messages:
        match each.role:
            case "assistant":
                parts = list(_answer(each, outputs))
                called |= {part.tool_call_id for part in parts if part.tool_call_id is not None}
                if parts:  # else it is what a client shows of a question that nobody answered
                    _join(messages, each.id, parts)
            case "tool" if each.tool_call_id is not None and each.tool_call_id not in called:
                _join(messages, each.id, [_called("", each.tool_call_id, None, each)])
            case "user" | "system" | "developer":
                role = "user" if each.role == "user" else "system"
                messages.append(UiMessage(each.id, role, list(_said(each))))
            case _:
                pass  # what was thought, or shown beside
    if wanted.resume:
        parts = [_settled(each.interrupt_id, each.status, each.payload) for each in wanted.resume]
        _join(messages, wanted.run_id, parts)
    return messages


def _join(messages: list[UiMessage], message_id: str, parts: list[UiPart]) -> None:
    """Have *parts* be what the last answer goes on with, or a new one."""
    if messages and messages[-1].role == "assistant":
        messages[-1].parts.extend(parts)
    else:
        messages.append(UiMessage(message_id, "assistant", parts))


def _answer(message: MessageParam, outputs: dict[str, MessageParam]) -> Iterator[UiPart]:
    if isinstance(message.content, str) and message.content:
        yield UiPart("text", text=message.content)
    for call in message.tool_calls or ():
        yield _called(call.function.name, call.id, call.function.arguments, outputs.get(call.id))


def _called(name: str, call_id: str, arguments: str | None, output: MessageParam | None) -> UiPart:
    """Return a call, and what came of it: nothing yet if there is no *output*."""
    given = _read(arguments or "{}")
    if output is None:
        return UiPart(f"tool-{name}", tool_call_id=call_id, input=given, state="input-available")
    if output.error is not None:
        return UiPart(
            f"tool-{name}", tool_call_id=call_id, input=given, state="output-error", error_text=output.error
        )
    returned = "".join(part.text or "" for part in _said(output))
    return UiPart(
        f"tool-{name}", tool_call_id=call_id, input=given, state="output-available", output=returned
    )


def _read(arguments: str) -> Any:
    try:
        return read_within(arguments)
    except ValueError:
        return arguments


def _settled(interrupt_id: str, status: str, payload: Any) -> UiPart:
    """Return what became of a request for approval."""
    fields = payload if isinstance(payload, dict) else {"approved": payload}
    approved = fields.get("approved", fields.get("approve"))
    if status == "cancelled":
        approved = False
    if not isinstance(approved, bool):
        message = (
            'Say of each interrupt whether it is approved of: `"payload": {"approved": true}`, or false.'
        )
        raise DecodeError("invalid_request", message, param="resume")
    reason = fields.get("reason")
    approval = ApprovalParam(interrupt_id, approved, reason if isinstance(reason, str) else None)
    return UiPart("dynamic-tool", tool_call_id=interrupt_id, tool_name="approval", approval=approval)


def _said(message: MessageParam) -> Iterator[UiPart]:
    """Yield what a message says."""
    content = message.content
    if isinstance(content, str):
        yield UiPart("text", text=content)
        return
    for part in content if isinstance(content, list) else ():
        if part.type == "text":
            yield UiPart("text", text=part.text)
        elif part.source is not None:
            yield _file(part, part.source)


def _file(part: ContentParam, source: SourceParam) -> UiPart:
    filename = part.metadata.get("filename") if isinstance(part.metadata, dict) else None
    media_type = source.mime_type or ("image/*" if part.type == "image" else None)
    match source.type:
        case "data":
            url = f"data:{source.mime_type or 'application/octet-stream'};base64,{source.value}"
        case "file" if not source.value.startswith(SCHEME):
            url = SCHEME + source.value
        case _:
            url = source.value
    name = filename if isinstance(filename, str) else None
    return UiPart("file", media_type=media_type, url=url, filename=name)
