"""Whole items as chunks of a stream of UI messages, and as parts of a message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias, assert_never

from unbroken.server.protocols.nesting import MOST_LEVELS, read_within
from unbroken.server.protocols.references import SCHEME
from unbroken.sessions.items import (
    ApprovalRequest,
    ApprovalResponse,
    FunctionCall,
    FunctionOutput,
    Item,
    Message,
    Text,
    ToolCall,
)

__all__ = [
    "SERVERS",
    "Fields",
    "chunks_of",
    "denial_of",
    "input_of",
    "outcome_of",
    "question_parts",
    "steps_of",
]

Fields: TypeAlias = dict[str, Any]

SERVERS: Final[Fields] = {"providerExecuted": True, "dynamic": True}
"""Says of a call that the server runs it, and that the page has no type for it."""

_CUT_SHORT: Final = "The call was cut short."


def steps_of(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield an answer's items step by step: each step ends with what came of the calls in it."""
    step: list[Item] = []
    has_outcome = False
    for item in items:
        is_outcome = isinstance(item, FunctionOutput | ApprovalResponse)
        if step and has_outcome and not is_outcome:
            yield step
            step = []
        has_outcome = is_outcome
        step.append(item)
    if step:
        yield step


def chunks_of(item: Item) -> Iterator[Fields]:
    """Yield the chunks that a part of an answer is made of again."""
    match item:
        case Message():
            yield {"type": "text-start", "id": item.id}
            yield {"type": "text-delta", "id": item.id, "delta": item.text}
            yield {"type": "text-end", "id": item.id}
        case FunctionCall():
            called = {"toolCallId": item.call_id, "toolName": item.name}
            if item.status == "completed":
                yield input_of(called, item.arguments)
        case FunctionOutput():
            yield {"type": "tool-output-available", "toolCallId": item.call_id, "output": _read(item.output)}
        case ToolCall():
            if item.approval is None:
                called = {"toolCallId": item.id, "toolName": item.name, **SERVERS}
                yield input_of(called, item.arguments)
            yield outcome_of(item)
        case ApprovalRequest():
            called = {"toolCallId": item.id, "toolName": item.name, **SERVERS}
            yield input_of(called, item.arguments)
            yield {"type": "tool-approval-request", "approvalId": item.id, "toolCallId": item.id}
        case ApprovalResponse():
            answer: Fields = {"type": "tool-approval-response", "approvalId": item.request_id}
            answer["approved"] = item.approve
            if item.reason is not None:
                answer["reason"] = item.reason
            yield answer
            if not item.approve:
                yield denial_of(item)
        case _:
            assert_never(item)


def denial_of(item: ApprovalResponse) -> Fields:
    """Return the chunk that says that a call isn't made, as its user doesn't want it."""
    return {"type": "tool-output-denied", "toolCallId": item.request_id}


def input_of(called: Fields, arguments: str) -> Fields:
    """Return the chunk that says with what a tool is *called*."""
    try:
        return {"type": "tool-input-available", **called, "input": read_within(arguments or "{}")}
    except ValueError:
        error = f"The arguments aren't valid JSON, or are nested more than {MOST_LEVELS} levels deep."
        return {"type": "tool-input-error", **called, "input": arguments, "errorText": error}


def outcome_of(item: ToolCall) -> Fields:
    """Return the chunk that says what came of a call of a server's tool."""
    called = {"toolCallId": item.approval or item.id, **SERVERS}
    if item.output is not None:
        return {"type": "tool-output-available", **called, "output": item.output}
    text = _CUT_SHORT if item.error is None else item.error.message
    return {"type": "tool-output-error", **called, "errorText": text}


def _read(output: str) -> Any:
    """Return what a page returned, which may have been more than a text."""
    if output[:1] in ("{", "["):
        try:
            return read_within(output)
        except ValueError:
            pass
    return output


def question_parts(item: Message) -> list[Fields]:
    """Return the parts of a user's message."""
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {
            "type": "file",
            "mediaType": part.media_type or "application/octet-stream",
            "filename": part.name,
            "url": SCHEME + part.file_id,
        }
        for part in item.content
    ]
