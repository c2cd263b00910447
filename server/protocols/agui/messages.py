"""A conversation as a client of AG-UI keeps it: a list of messages."""

from __future__ import annotations

from collections.abc import Iterator

from unbroken.server.protocols.references import SCHEME
from unbroken.server.protocols.ui.chunks import Fields
from unbroken.sessions.items import (
    ApprovalRequest,
    ApprovalResponse,
    FunctionCall,
    FunctionOutput,
    Image,
    Item,
    Message,
    Text,
    ToolCall,
)
from unbroken.sessions.session import Session

__all__ = ["messages_of"]


def messages_of(session: Session) -> list[Fields]:
    """Return the conversation up to what is being answered now: that comes as a stream, all of it."""
    running = {
        output.item_id
        for response in session.responses.values()
        if response.request.in_conversation
        for output in response.outputs
    }
    return [fields for item in session.items() if item.id not in running for fields in _messages(item)]


def _messages(item: Item) -> Iterator[Fields]:
    match item:
        case Message(role="assistant"):
            yield {"id": item.id, "role": "assistant", "content": item.text}
        case Message():
            yield {"id": item.id, "role": item.role, "content": _content(item)}
        case FunctionCall() if item.status == "completed":
            yield _call(item.call_id, item.call_id, item.name, item.arguments)
        case FunctionOutput():
            yield {"id": item.id, "role": "tool", "toolCallId": item.call_id, "content": item.output}
        case ToolCall():
            if item.approval is None:
                yield _call(item.id, item.id, item.name, item.arguments)
            called = item.approval or item.id
            yield {"id": f"{item.id}.result", "role": "tool", "toolCallId": called, "content": item.result}
        case ApprovalRequest() if item.status == "completed":
            yield _call(item.id, item.id, item.name, item.arguments)
        case ApprovalResponse(approve=False):
            content = "The user doesn't want this."
            yield {"id": item.id, "role": "tool", "toolCallId": item.request_id, "content": content}
        case _:
            pass  # cut short, or said by what follows


def _call(message_id: str, call_id: str, name: str, arguments: str) -> Fields:
    function = {"name": name, "arguments": arguments}
    call = {"id": call_id, "type": "function", "function": function}
    return {"id": message_id, "role": "assistant", "toolCalls": [call]}


def _content(item: Message) -> str | list[Fields]:
    if not item.references or item.role != "user":
        return item.text
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {
            "type": "image" if isinstance(part, Image) else "document",
            "source": {
                "type": "file",
                "value": SCHEME + part.file_id,
                **({"mimeType": part.media_type} if part.media_type else {}),
            },
            "metadata": {"filename": part.name},
        }
        for part in item.content
    ]
