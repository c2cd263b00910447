"""From log entries to the server events of OpenAI Realtime.

Each body becomes a fixed number of frames, which depends on nothing but the
body; so frames can be shared among connections, and a cursor inside an entry
always means the same. Fields that don't apply are left out, never null: some
clients drop an event with a null they don't expect.
"""

from __future__ import annotations

from typing import Final, assert_never

import orjson
from msgspec import UNSET, UnsetType

from unbroken.server.protocols.conversation_names import conversation_id
from unbroken.server.protocols.cursor import format_cursor
from unbroken.server.protocols.realtime.deltas import DeltaEncoder, delta_frame
from unbroken.server.protocols.realtime.tools import (
    Frame,
    begun_fields,
    tool_ended,
    tool_fields,
    tool_started,
)
from unbroken.server.protocols.references import reference_fields
from unbroken.sessions.entries import (
    ConfigUpdated,
    Deltas,
    Entry,
    ItemAdded,
    ItemDeleted,
    OutputDone,
    OutputStarted,
    Refused,
    ResponseDone,
    ResponseStarted,
    ToolStarted,
)
from unbroken.sessions.event_log import Record, Slice
from unbroken.sessions.ids import ItemId, Nonce, SessionId
from unbroken.sessions.items import (
    ApprovalRequest,
    ApprovalResponse,
    CallHead,
    FunctionCall,
    FunctionOutput,
    FunctionTool,
    Item,
    ItemStatus,
    Message,
    NamedTool,
    Reasoning,
    ReasoningHead,
    ResponseRequest,
    SessionConfig,
    Text,
    ToolCall,
    Usage,
)
from unbroken.sessions.production import standing_entries
from unbroken.sessions.response import Ongoing

__all__ = [
    "Frame",
    "RealtimeEncoder",
    "error_frame",
    "item_fields",
    "item_frame",
    "refusal_frame",
    "session_fields",
]


class RealtimeEncoder:
    """Encodes one session's log, for all connections that see it.

    Args:
        session_id: The session.
        incarnation: Its log's.
        merge_above: With more consecutive pieces than this in one go, the connection is
            behind, and they are merged into fewer, larger deltas.

    """

    __slots__ = ("__weakref__", "_incarnation", "_session_id", "deltas")

    def __init__(self, session_id: SessionId, incarnation: str, *, merge_above: int = 32) -> None:
        self._session_id = session_id
        self._incarnation = incarnation
        self.deltas: Final = DeltaEncoder(incarnation, merge_above=merge_above)
        """Encodes what there is most of."""

    def cursor(self, seq: int, nonce: int, remaining: int = 0) -> str:
        """Return the cursor of a place in this log."""
        return format_cursor(self._incarnation, seq, nonce, remaining)

    def encode(self, record: Record) -> list[bytes]:
        """Return the frames of *record*, in order, as UTF-8."""
        if isinstance(record, Slice):
            return self.deltas.encode(record)
        frames = self.frames(record)
        remaining = len(frames)
        encoded: list[bytes] = []
        for frame in frames:
            remaining -= 1
            frame["event_id"] = self.cursor(record.seq, record.nonce, remaining)
            encoded.append(orjson.dumps(frame))
        return encoded

    def frames(self, entry: Entry) -> list[Frame]:
        """Return what an entry is in this protocol; a refusal is nothing here: see :func:`error_frame`."""
        body = entry.body
        match body:
            case ConfigUpdated():
                return [{"type": "session.updated", "session": session_fields(self._session_id, body.config)}]
            case ItemAdded():
                return [
                    item_frame("conversation.item.added", body.item, body.previous),
                    item_frame("conversation.item.done", body.item, body.previous),
                ]
            case ItemDeleted():
                return [{"type": "conversation.item.deleted", "item_id": body.item_id}]
            case ResponseStarted():
                return [self._created(body.response_id, body.request, body.requests)]
            case OutputStarted():
                return self._output_started(body)
            case ToolStarted():
                return tool_started(body)
            case OutputDone():
                return self._output_done(body)
            case ResponseDone():
                return self._response_done(body)
            case _:
                return []

    def ongoing(self, part: Ongoing, previous: str | None, *, is_first: bool) -> list[Frame]:
        """Return an output of a response that hasn't ended, as far as it has been said, in few frames.

        *is_first*: nothing of the response has been shown before.
        """
        request, output = part.request, part.output
        frames: list[Frame] = []
        if is_first:
            frames.append(self._created(part.response_id, request, part.requests))
        if output is None:
            return frames
        behind = None if previous is None else ItemId(previous)
        bodies = standing_entries(part.response_id, output, part.index, behind)
        for body in bodies:
            if isinstance(body, Deltas):
                frames.append({**delta_frame(body), "delta": "".join(body.parts)})
            else:
                frames += self.frames(Entry(0, Nonce(0), body))
        return frames

    def _output_started(self, body: OutputStarted) -> list[Frame]:
        added = {"response_id": body.response_id, "output_index": body.output_index}
        if isinstance(body.head, ReasoningHead):
            return [{"type": "unbroken.reasoning.added", **added, "item_id": body.item_id}]
        if body.head is not UNSET:
            item = begun_fields(body.item_id, body.head)
        elif body.call is UNSET:
            item = item_fields(Message(body.item_id, "assistant", (), "in_progress"))
        else:
            item = _call_fields(body.item_id, body.call, "", "in_progress")
        frames: list[Frame] = [{"type": "response.output_item.added", **added, "item": item}]
        if body.in_conversation:
            frames.append({"type": "conversation.item.added", **_behind(body.previous), "item": item})
        if body.call is UNSET and body.head is UNSET:
            part = {"item_id": body.item_id, "content_index": 0, "part": {"type": "text", "text": ""}}
            frames.append({"type": "response.content_part.added", **added, **part})
        return frames

    def _output_done(self, body: OutputDone) -> list[Frame]:
        done = {"response_id": body.response_id, "output_index": body.output_index}
        content = {**done, "item_id": body.item.id}
        if isinstance(body.item, Reasoning):
            said = {"text": body.item.text, "status": body.item.status}
            return [{"type": "unbroken.reasoning.done", **content, **said}]
        item = item_fields(body.item)
        frames: list[Frame] = []
        match body.item:
            case FunctionCall(call_id=call_id, name=name, arguments=arguments):
                call = {"call_id": call_id, "name": name, "arguments": arguments}
                frames.append({"type": "response.function_call_arguments.done", **content, **call})
            case ToolCall():
                frames.append(tool_ended(body.item, body.output_index))
            case ApprovalRequest():
                pass
            case Message(text=text):
                content["content_index"] = 0
                part = {"type": "text", "text": text}
                frames.append({"type": "response.output_text.done", **content, "text": text})
                frames.append({"type": "response.content_part.done", **content, "part": part})
        frames.append({"type": "response.output_item.done", **done, "item": item})
        if body.in_conversation:
            frames.append({"type": "conversation.item.done", **_behind(body.previous), "item": item})
        return frames

    def _response_done(self, body: ResponseDone) -> list[Frame]:
        status = "failed" if body.status == "interrupted" else body.status
        asked = ResponseRequest(in_conversation=body.in_conversation, metadata=body.metadata)
        response = self._response(body.response_id, status, asked, body.requests)
        # The protocol has no item for reasoning, which has been told in events of its own.
        response["output"] = [item_fields(item) for item in body.output if not isinstance(item, Reasoning)]
        if (usage := body.usage) is not None:
            response["usage"] = _usage(usage)
            if usage.reused is not UNSET:
                cached = {"tier": usage.reused.tier, "age": usage.reused.age}
                response.setdefault("unbroken", {})["cache"] = cached
        match status:
            case "cancelled":
                response["status_details"] = {"type": "cancelled", "reason": "client_cancelled"}
                if body.reason == "superseded":
                    response.setdefault("unbroken", {})["reason"] = "superseded"
            case "incomplete":
                # The protocol's reasons are a closed list.
                is_quota = body.reason == "quota_exceeded"
                reason = "max_output_tokens" if is_quota else body.reason
                response["status_details"] = {"type": "incomplete", "reason": reason}
                if is_quota:
                    response.setdefault("unbroken", {})["reason"] = "quota_exceeded"
            case "failed" if body.failure is not None:
                failure = body.failure
                response["status_details"] = {
                    "type": "failed",
                    "error": {"type": failure.type, "code": failure.code},
                }
                # The protocol has no room for these, nor a word for `interrupted`.
                added = response.setdefault("unbroken", {})
                added |= {"status": body.status, "message": failure.message}
                if failure.retry_after is not UNSET:
                    added["retry_after"] = failure.retry_after
            case _:
                pass
        if body.notes is not UNSET:
            response.setdefault("unbroken", {}).update(body.notes)
        done: Frame = {"type": "response.done", "response": response}
        if body.ordinal > 0:
            return [done]
        # It ended while it waited for its turn: the client has not heard of it yet.
        return [self._created(body.response_id, asked, body.requests), done]

    def _created(
        self, response_id: str, asked: ResponseRequest, requests: tuple[str, ...] | UnsetType
    ) -> Frame:
        response = self._response(response_id, "in_progress", asked, requests)
        return {"type": "response.created", "response": response}

    def _response(
        self,
        response_id: str,
        status: str,
        asked: ResponseRequest,
        requests: tuple[str, ...] | UnsetType,
    ) -> Frame:
        response: Frame = {
            "object": "realtime.response",
            "id": response_id,
            "status": status,
            "output": [],
            "output_modalities": ["text"],
        }
        if asked.in_conversation:
            response["conversation_id"] = self._conversation_id
        if asked.metadata is not None:
            response["metadata"] = asked.metadata
        if requests is not UNSET:
            named = [{"event_id": event_id} if event_id else {} for event_id in requests]
            response["unbroken"] = {"requests": named}
        return response

    @property
    def _conversation_id(self) -> str:
        return conversation_id(self._session_id)


def session_fields(session_id: SessionId, config: SessionConfig) -> Frame:
    """Return a session as clients see it: what really holds, whatever was asked for."""
    fields: Frame = {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": config.model,
        "output_modalities": ["text"],
        "instructions": config.instructions,
        "max_output_tokens": "inf" if config.max_output_tokens is None else config.max_output_tokens,
        "tools": [] if config.tools is UNSET else [_tool_fields(tool) for tool in config.tools],
        "tool_choice": _choice_fields(config),
        "unbroken": {"concurrency": config.concurrency.value, "reasoning": config.reasoning is True},
    }
    if config.parallel_tool_calls is not UNSET:
        fields["parallel_tool_calls"] = config.parallel_tool_calls
    return fields


def _tool_fields(tool: FunctionTool) -> Frame:
    fields: Frame = {"type": "function", "name": tool.name}
    if tool.description is not None:
        fields["description"] = tool.description
    if tool.parameters is not None:
        fields["parameters"] = tool.parameters
    return fields


def _choice_fields(config: SessionConfig) -> str | Frame:
    match config.tool_choice:
        case NamedTool(name=name):
            return {"type": "function", "name": name}
        case str() as choice:
            return choice
        case _:
            return "auto"


def item_fields(item: Item) -> Frame:
    """Return an item as clients see it."""
    match item:
        case FunctionCall():
            head = CallHead(item.call_id, item.name)
            return _call_fields(item.id, head, item.arguments, item.status)
        case FunctionOutput():
            return {
                "id": item.id,
                "object": "realtime.item",
                "type": "function_call_output",
                "status": item.status,
                "call_id": item.call_id,
                "output": item.output,
            }
        case ToolCall() | ApprovalRequest() | ApprovalResponse():
            return tool_fields(item)
        case Message():
            pass
        case _:
            assert_never(item)
    kind = "output_text" if item.role == "assistant" else "input_text"
    return {
        "id": item.id,
        "object": "realtime.item",
        "type": "message",
        "status": item.status,
        "role": item.role,
        "content": [
            {"type": kind, "text": part.text} if isinstance(part, Text) else reference_fields(part)
            for part in item.content
        ],
    }


def _call_fields(item_id: ItemId, call: CallHead, arguments: str, status: ItemStatus) -> Frame:
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "function_call",
        "status": status,
        "call_id": call.call_id,
        "name": call.name,
        "arguments": arguments,
    }


def item_frame(kind: str, item: Item, previous: str | None) -> Frame:
    """Return a ``conversation.item`` event."""
    return {"type": kind, **_behind(previous), "item": item_fields(item)}


def error_frame(
    code: str,
    message: str,
    *,
    type: str = "invalid_request_error",
    param: str | None = None,
    event_id: str | None = None,
    retry_after: int | None = None,
) -> Frame:
    """Return an ``error`` event.

    *event_id* is the client's own name for the event at fault; *retry_after* the
    seconds after which the same may be taken, where it asks to be left alone.
    """
    error: Frame = {"type": type, "code": code, "message": message}
    if param is not None:
        error["param"] = param
    if event_id is not None:
        error["event_id"] = event_id
    if retry_after is not None:
        error["unbroken"] = {"retry_after": retry_after}
    return {"type": "error", "error": error}


def refusal_frame(refused: Refused) -> Frame:
    """Return a refusal as its submitter sees it."""
    return error_frame(refused.code, refused.message, param=refused.param, event_id=refused.event_id)


def _behind(previous: str | None) -> Frame:
    return {} if previous is None else {"previous_item_id": previous}


def _usage(usage: Usage) -> Frame:
    return {
        "total_tokens": usage.total_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": {
            "text_tokens": usage.input_tokens,
            "audio_tokens": 0,
            "cached_tokens": usage.cached_tokens,
        },
        "output_token_details": {"text_tokens": usage.output_tokens, "audio_tokens": 0},
    }
