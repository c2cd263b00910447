"""Items in OpenAI Responses' words."""

from __future__ import annotations

from typing import Any, Final, TypeAlias, assert_never

from unbroken.server.protocols.references import reference_fields
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import (
    ApprovalHead,
    ApprovalRequest,
    ApprovalResponse,
    CallHead,
    FunctionCall,
    FunctionOutput,
    Head,
    Item,
    Message,
    Produced,
    Reasoning,
    ReasoningHead,
    Text,
    ToolCall,
    ToolError,
    ToolHead,
)

__all__ = ["Fields", "begun_fields", "item_fields", "padding", "text_part"]

Fields: TypeAlias = dict[str, Any]

_PADDING: Final = b"0123456789abcdef"


def text_part(text: str) -> Fields:
    """Return the text of an answer as a part of it."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def begun_fields(item_id: ItemId, head: Head | None) -> Fields:
    """Return an item of a response as it begins."""
    match head:
        case None:
            return item_fields(Message(item_id, "assistant", (), "in_progress"))
        case CallHead():
            return item_fields(FunctionCall(item_id, head.call_id, head.name, "", "in_progress"))
        case ReasoningHead():
            return {"id": item_id, "type": "reasoning", "status": "in_progress", "summary": []}
        case ToolHead():
            call = ToolCall(item_id, head.name, head.label, "", approval=head.approval, status="in_progress")
            return item_fields(call)
        case ApprovalHead():
            return item_fields(ApprovalRequest(item_id, head.name, head.label, head.arguments))
        case _:
            assert_never(head)


def item_fields(item: Item | Produced) -> Fields:
    """Return an item as clients see it."""
    match item:
        case Message():
            return _message(item)
        case FunctionCall():
            called = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
            return {"id": item.id, "type": "function_call", "status": item.status, **called}
        case FunctionOutput():
            answer = {"call_id": item.call_id, "output": item.output}
            return {"id": item.id, "type": "function_call_output", "status": item.status, **answer}
        case Reasoning():
            thought = [{"type": "reasoning_text", "text": item.text}]
            return {
                "id": item.id,
                "type": "reasoning",
                "status": item.status,
                "summary": [],
                "content": thought,
            }
        case ToolCall():
            fields: Fields = {"id": item.id, "type": "mcp_call", "status": _tool_status(item)}
            fields |= {"server_label": item.label, "name": item.name, "arguments": item.arguments}
            fields |= {"output": item.output, "error": None if item.error is None else _error(item.error)}
            if item.approval is not None:
                fields["approval_request_id"] = item.approval
            return fields
        case ApprovalRequest():
            call = {"server_label": item.label, "name": item.name, "arguments": item.arguments}
            return {"id": item.id, "type": "mcp_approval_request", **call}
        case ApprovalResponse():
            fields = {"id": item.id, "type": "mcp_approval_response"}
            fields |= {"approval_request_id": item.request_id, "approve": item.approve}
            return fields if item.reason is None else {**fields, "reason": item.reason}
        case _:
            assert_never(item)


def _message(item: Message) -> Fields:
    content: list[Fields] = []
    for part in item.content:
        if not isinstance(part, Text):
            content.append(reference_fields(part))
        elif item.role == "assistant":
            content.append(text_part(part.text))
        else:
            content.append({"type": "input_text", "text": part.text})
    return {
        "id": item.id,
        "type": "message",
        "status": item.status,
        "role": item.role,
        "content": content,
    }


def _tool_status(item: ToolCall) -> str:
    return "failed" if item.status == "completed" and item.error is not None else item.status


def _error(error: ToolError) -> Fields:
    if error.code is None:
        return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": error.message}]}
    return {"type": "mcp_protocol_error", "code": error.code, "message": error.message}


def padding(said: bytes) -> bytes:
    """Return what hides how long *said* is, a text as JSON: together they are a multiple of 16 bytes."""
    return _PADDING[: -len(said) % 16]
