"""Events of a run as a whole, and how they are numbered."""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import orjson

from unbroken.server.protocols.nesting import read_within
from unbroken.server.protocols.ui.chunks import Fields
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.items import ApprovalRequest, ToolCall, Usage

__all__ = [
    "ABORT_FAILED",
    "CUT_SHORT",
    "EXTENSION",
    "Offset",
    "abort_failed_event",
    "error_event",
    "input_of",
    "interrupt_of",
    "offset_of",
    "outcome_of",
    "result",
    "usage_of",
]

EXTENSION: Final = "unbroken"
"""What this server's own fields are under, in an event's metadata."""

ABORT_FAILED: Final = "unbroken.abort_failed"
"""The name of the event that tells that a run goes on, although it was to be stopped."""

CUT_SHORT: Final = "Error: the call was cut short."
"""What came of a call that isn't whole."""

_APPROVAL_SCHEMA: Final = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["approved"],
}

Offset: TypeAlias = tuple[ResponseId, int]
"""A response, and the number of an event of it."""

_OFFSET: Final = re.compile(r"(resp_[0-9a-f]{1,64}t?[0-9a-f]{0,64})\.(\d{1,9})")


def offset_of(text: str) -> Offset | None:
    """Return which event an offset stands for; None: none."""
    match = _OFFSET.fullmatch(text)
    return None if match is None else (ResponseId(match[1]), int(match[2]))


def error_event(
    code: str, message: str, *, run_id: str | None = None, retry_after: int | None = None
) -> bytes:
    """Return why no more comes of a run, or why there is none. *run_id*: for clients of several at once."""
    told: Fields = {"code": code}
    if retry_after is not None:
        told["retry_after"] = retry_after
    metadata: Fields = {EXTENSION: told}
    if run_id is not None:
        metadata["tanstack"] = {"runId": run_id}
    return orjson.dumps({"type": "RUN_ERROR", "message": message, "code": code, "metadata": metadata})


def abort_failed_event(code: str, message: str, *, run_id: str) -> bytes:
    """Return why a run that was to be stopped goes on."""
    value = {"runId": run_id, "code": code, "message": message}
    metadata = {"tanstack": {"runId": run_id}}
    return orjson.dumps({"type": "CUSTOM", "name": ABORT_FAILED, "value": value, "metadata": metadata})


def input_of(arguments: str) -> Any:
    """Return what a tool is called with, read; as it stands, if it isn't JSON, or nested too deeply."""
    try:
        return read_within(arguments or "{}")
    except ValueError:
        return arguments


def result(item_id: str, call_id: str, content: str) -> Fields:
    """Return what came of a call."""
    fields = {"type": "TOOL_CALL_RESULT", "messageId": f"{item_id}.result", "toolCallId": call_id}
    return {**fields, "content": content, "role": "tool"}


def outcome_of(item: ToolCall) -> str:
    """Return what came of a call of one of the server's tools, in words."""
    if item.output is not None:
        return item.output
    return CUT_SHORT if item.error is None else f"Error: {item.error.message}"


def interrupt_of(item: ApprovalRequest) -> Fields:
    """Return what the user is asked about a call of one of the server's tools."""
    told = {"kind": "approval", "toolName": item.name, "input": input_of(item.arguments)}
    return {
        "id": item.id,
        "reason": "approval_required",
        "message": f"May {item.name} be called?",
        "toolCallId": item.id,
        "responseSchema": _APPROVAL_SCHEMA,
        "metadata": told,
    }


def usage_of(usage: Usage, model: str | None) -> Fields:
    """Return what a run cost, of a *model* if one was asked for."""
    fields: Fields = {} if model is None else {"model": model}
    fields |= {"inputTokens": usage.input_tokens, "outputTokens": usage.output_tokens}
    return fields | {"totalTokens": usage.total_tokens, "cachedInputTokens": usage.cached_tokens}
