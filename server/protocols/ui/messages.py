"""A conversation as a page shows it: a list of UI messages."""

from __future__ import annotations

from collections.abc import Mapping

from unbroken.server.protocols.ui.chunks import SERVERS, Fields, chunks_of, question_parts, steps_of
from unbroken.server.protocols.ui.history import message_id_of
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import Item, Message
from unbroken.sessions.session import Session

__all__ = ["messages_of"]


def messages_of(session: Session) -> list[Fields]:
    """Return the conversation up to what is being answered now: that comes as a stream, all of it."""
    ids = {item_id: message_id_of(session, each.id) for each in session.endings for item_id in each.output}
    running = {
        output.item_id
        for response in session.responses.values()
        if response.request.in_conversation
        for output in response.outputs
    }
    messages: list[Fields] = []
    answer: list[Item] = []
    for item in session.items():
        if item.id in running:
            continue
        if isinstance(item, Message) and item.role != "assistant":
            _close(messages, answer, ids)
            messages.append({"id": item.id, "role": item.role, "parts": question_parts(item)})
        else:
            answer.append(item)
    _close(messages, answer, ids)
    return messages


def _close(messages: list[Fields], answer: list[Item], ids: Mapping[ItemId, str]) -> None:
    """Have the items of an *answer* be a message, and begin another."""
    if not answer:
        return
    message_id = next((ids[item.id] for item in answer if item.id in ids), answer[0].id)
    parts: list[Fields] = []
    for step in steps_of(answer):
        parts.append({"type": "step-start"})
        for item in step:
            for chunk in chunks_of(item):
                _take(parts, chunk)
    answer.clear()
    messages.append({"id": message_id, "role": "assistant", "parts": parts})


def _take(parts: list[Fields], chunk: Fields) -> None:
    """Have a chunk make the parts what it would make them in a page."""
    match chunk["type"]:
        case "text-delta":
            parts.append({"type": "text", "text": chunk["delta"], "state": "done"})
        case "tool-input-available" | "tool-input-error":
            parts.append(_called(chunk))
        case "tool-approval-request":
            _change(parts, chunk, state="approval-requested", approval={"id": chunk["approvalId"]})
        case "tool-approval-response":
            approval = {"id": chunk["approvalId"], "approved": chunk["approved"]}
            if "reason" in chunk:
                approval["reason"] = chunk["reason"]
            _change(parts, {"toolCallId": chunk["approvalId"]}, state="approval-responded", approval=approval)
        case "tool-output-denied":
            _change(parts, chunk, state="output-denied")
        case "tool-output-available":
            _change(parts, chunk, state="output-available", output=chunk["output"])
        case "tool-output-error":
            _change(parts, chunk, state="output-error", errorText=chunk["errorText"])


def _called(chunk: Fields) -> Fields:
    is_dynamic = chunk.get("dynamic", False)
    part: Fields = {"type": "dynamic-tool" if is_dynamic else f"tool-{chunk['toolName']}"}
    if is_dynamic:
        part |= {"toolName": chunk["toolName"], "providerExecuted": SERVERS["providerExecuted"]}
    part |= {"toolCallId": chunk["toolCallId"], "input": chunk["input"], "state": "input-available"}
    if chunk["type"] == "tool-input-error":
        part |= {"state": "output-error", "errorText": chunk["errorText"]}
    return part


def _change(parts: list[Fields], chunk: Fields, **fields: object) -> None:
    for part in reversed(parts):
        if part.get("toolCallId") == chunk["toolCallId"]:
            part |= fields
            return
