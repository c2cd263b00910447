"""What the server's tools, and reasoning, are in OpenAI Realtime's terms.

Whoever runs a tool is an "MCP server" there, with a label, whatever it really
is: the only server-side tools that the protocol knows. It knows no reasoning;
that is in events of our own, for sessions that asked for it.
"""

from __future__ import annotations

from typing import Any

from unbroken.sessions.entries import ToolStarted
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import (
    ApprovalHead,
    ApprovalRequest,
    ApprovalResponse,
    ToolCall,
    ToolError,
    ToolHead,
)

__all__ = ["Frame", "begun_fields", "tool_ended", "tool_fields", "tool_started"]

Frame = dict[str, Any]
"""A server event without its ``event_id``."""


def begun_fields(item_id: ItemId, head: ToolHead | ApprovalHead) -> Frame:
    """Return an item as it begins."""
    if isinstance(head, ApprovalHead):
        return tool_fields(ApprovalRequest(item_id, head.name, head.label, head.arguments))
    return tool_fields(ToolCall(item_id, head.name, head.label, "", approval=head.approval))


def tool_fields(item: ToolCall | ApprovalRequest | ApprovalResponse) -> Frame:
    """Return an item as clients see it."""
    match item:
        case ApprovalResponse():
            fields: Frame = {
                "id": item.id,
                "type": "mcp_approval_response",
                "approval_request_id": item.request_id,
                "approve": item.approve,
            }
            return fields if item.reason is None else {**fields, "reason": item.reason}
        case ApprovalRequest():
            return {"id": item.id, "type": "mcp_approval_request", **_call_of(item)}
        case ToolCall():
            # The one null on the wire: @openai/agents-realtime throws where it is left out.
            fields = {"id": item.id, "type": "mcp_call", **_call_of(item), "output": item.output}
            if item.approval is not None:
                fields["approval_request_id"] = item.approval
            if item.error is not None:
                fields["error"] = _error_fields(item.error)
            return fields


def _call_of(item: ToolCall | ApprovalRequest) -> Frame:
    return {"server_label": item.label, "name": item.name, "arguments": item.arguments}


def _error_fields(error: ToolError) -> Frame:
    if error.code is None:
        return {"type": "tool_execution_error", "message": error.message}
    return {"type": "protocol_error", "code": error.code, "message": error.message}


def tool_started(body: ToolStarted) -> list[Frame]:
    """Return the events that say that a tool is run."""
    call = {"item_id": body.item_id, "output_index": body.output_index}
    arguments = {"response_id": body.response_id, **call, "arguments": body.arguments}
    return [
        {"type": "response.mcp_call_arguments.done", **arguments},
        {"type": "response.mcp_call.in_progress", **call},
    ]


def tool_ended(item: ToolCall, output_index: int) -> Frame:
    """Return the event that says whether a call brought anything."""
    kind = "completed" if item.output is not None else "failed"
    return {"type": f"response.mcp_call.{kind}", "item_id": item.id, "output_index": output_index}
