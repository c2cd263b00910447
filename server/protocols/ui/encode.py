"""From log entries to the chunks of a UI message stream.

Chunks are numbered from 0, without a gap, by whoever sends them. How many an entry becomes depends on
nothing but the entries before it in the same response, and pieces are never merged: so the same answer is
the same chunks, on each node and at any time. An answer that goes on behind a call is one message with
several steps: who has the first ones is told the new ones alone, who has none is told all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import orjson
from msgspec import UNSET

from unbroken.server.protocols.attempts import TurnEncoder
from unbroken.server.protocols.ui.chunks import (
    SERVERS,
    Fields,
    chunks_of,
    denial_of,
    input_of,
    outcome_of,
    steps_of,
)
from unbroken.server.protocols.ui.decode import MESSAGE_ID
from unbroken.sessions.entries import (
    Body,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseQueued,
    ResponseStarted,
    ToolStarted,
)
from unbroken.sessions.event_log import Slice
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.items import (
    ApprovalHead,
    ApprovalRequest,
    ApprovalResponse,
    CallHead,
    FunctionCall,
    Head,
    Item,
    Message,
    Reasoning,
    ReasoningHead,
    ResponseRequest,
    ToolCall,
    ToolHead,
    Usage,
)

__all__ = ["DATA", "UiEncoder", "account_of"]

DATA: Final = "data-unbroken"
"""The type of what this server tells beside: of a kind that pages may read, and that becomes no part."""

_FINISH_REASONS: Final = {"max_output_tokens": "length", "content_filter": "content-filter"}


class UiEncoder(TurnEncoder):
    """Encodes one answer for one client. See :class:`TurnEncoder`.

    Args:
        response_id: See there.
        told: What is told of the response at its beginning.
        earlier: The items of the same answer that are ahead of it.
        replays: Whether the client is told these too, as it may not have them.

    """

    def __init__(
        self,
        response_id: ResponseId,
        *,
        told: Fields | None = None,
        earlier: Sequence[Item] = (),
        replays: bool = False,
    ) -> None:
        super().__init__(response_id)
        self._names = told or {}
        self._earlier = earlier
        self._replays = replays
        self._is_begun = False
        self._heads: dict[str, Head | None] = {}  # of the outputs that have begun
        self._has_calls = False  # whether something is left to the page
        self._item_id = ""  # of the output whose pieces are encoded
        self._before: bytes | None = b""  # what stands ahead of the text in these; None: they aren't shown

    def error(self, message: str) -> bytes:
        """Return a chunk that says why no more comes, although the response may go on."""
        return orjson.dumps({"type": "error", "errorText": message})

    def _begun_anew(self, body: ResponseStarted) -> Iterator[bytes]:
        self._heads.clear()
        self._has_calls, self._item_id = False, ""
        yield orjson.dumps({"type": "reset-step"})
        yield orjson.dumps(self._data({"response_id": self._id, "attempt": body.attempt}))

    def _told(self, body: Body) -> Iterator[bytes]:
        yield from map(orjson.dumps, self._fields(body))
        if isinstance(body, ResponseDone):
            yield from self._over(body, list(map(orjson.dumps, self._end(body))))

    def _fields(self, body: Body) -> Iterator[Fields]:
        match body:
            case ResponseQueued():
                yield from self._begun(body.request)
            case ResponseStarted():
                yield from self._begun(body.request)
                yield {"type": "start-step"}
            case OutputStarted():
                yield from self._output_begun(body)
            case ToolStarted():
                head = self._heads.get(body.item_id)
                if isinstance(head, ToolHead) and head.approval is None:
                    called = {"toolCallId": body.item_id, "toolName": head.name, **SERVERS}
                    yield input_of(called, body.arguments)
            case OutputDone():
                yield from self._output_ended(body)
            case ResponseDone():
                if not self._is_begun:  # it ended while it waited, and more was forgotten
                    yield from self._begun(None)
                yield self._data(account_of(body))
            case _:
                pass

    def _data(self, fields: Fields) -> Fields:
        return {"type": DATA, "data": fields, "transient": True}

    def _begun(self, request: ResponseRequest | None) -> Iterator[Fields]:
        if self._is_begun:
            return
        self._is_begun = True
        metadata = (None if request is None else request.metadata) or {}
        yield {"type": "start", "messageId": metadata.get(MESSAGE_ID, self._id)}
        yield self._data({"response_id": self._id, **self._names})
        if self._replays:
            for step in steps_of(self._earlier):
                yield {"type": "start-step"}
                for item in step:
                    yield from chunks_of(item)
                yield {"type": "finish-step"}
            return
        for item in reversed(self._earlier):
            if not isinstance(item, ApprovalResponse):
                break
            if not item.approve:
                yield denial_of(item)

    def _output_begun(self, body: OutputStarted) -> Iterator[Fields]:
        head: Head | None = None
        if body.head is not UNSET:
            head = body.head
        elif body.call is not UNSET:
            head = body.call
        self._heads[body.item_id] = head
        match head:
            case None:
                yield {"type": "text-start", "id": body.item_id}
            case ReasoningHead():
                yield {"type": "reasoning-start", "id": body.item_id}
            case CallHead():
                yield {"type": "tool-input-start", "toolCallId": head.call_id, "toolName": head.name}
            case ToolHead() if head.approval is None:
                called = {"toolCallId": body.item_id, "toolName": head.name, **SERVERS}
                yield {"type": "tool-input-start", **called}
            case _:
                pass  # the page has its part already, or has it as a whole

    def _output_ended(self, body: OutputDone) -> Iterator[Fields]:
        item = body.item
        match item:
            case Message():
                yield {"type": "text-end", "id": item.id}
            case Reasoning():
                yield {"type": "reasoning-end", "id": item.id}
            case FunctionCall() if item.status == "completed":
                self._has_calls = True
                yield input_of({"toolCallId": item.call_id, "toolName": item.name}, item.arguments)
            case ToolCall():
                yield outcome_of(item)
            case ApprovalRequest() if item.status == "completed":
                self._has_calls = True
                yield from chunks_of(item)
            case _:
                pass  # cut short: nobody is to act on it

    def _end(self, body: ResponseDone) -> Iterator[Fields]:
        if body.status == "cancelled":
            yield {"type": "abort", **({} if body.reason is None else {"reason": body.reason})}
            return
        if body.status == "completed":
            reason = "tool-calls" if self._has_calls else "stop"
        elif body.status == "incomplete":
            reason = _FINISH_REASONS.get(body.reason or "", "other")
        else:
            text = "The answer failed." if body.failure is None else body.failure.message
            yield {"type": "error", "errorText": text}
            reason = "error"
        yield {"type": "finish-step"}
        yield {"type": "finish", "finishReason": reason}

    def _pieces(self, piece: Slice) -> Iterator[bytes]:
        if self._item_id != piece.item_id:
            self._turn_to(piece.item_id)
        if (before := self._before) is None:
            return
        for text in piece.parts:
            yield b"%b%b}" % (before, orjson.dumps(text))

    def _turn_to(self, item_id: str) -> None:
        """Encode what all pieces of an output have in common."""
        self._item_id = item_id
        match self._heads.get(item_id):
            case None:
                self._before = _ahead({"type": "text-delta", "id": item_id}, "delta")
            case ReasoningHead():
                self._before = _ahead({"type": "reasoning-delta", "id": item_id}, "delta")
            case CallHead(call_id=call_id):
                called = {"type": "tool-input-delta", "toolCallId": call_id}
                self._before = _ahead(called, "inputTextDelta")
            case ToolHead(approval=None):
                called = {"type": "tool-input-delta", "toolCallId": item_id}
                self._before = _ahead(called, "inputTextDelta")
            case ToolHead() | ApprovalHead():
                self._before = None


def _ahead(place: Fields, name: str) -> bytes:
    """Return what stands ahead of the text of a piece, which is called *name*."""
    return b'%b,"%b":' % (orjson.dumps(place)[:-1], name.encode())


def account_of(body: ResponseDone) -> Fields:
    """Return what is known of how a response ended, and the protocol has no place for."""
    fields: Fields = {"response_id": body.response_id, "status": body.status}
    if body.reason is not None:
        fields["reason"] = body.reason
    if body.failure is not None:
        fields["code"] = body.failure.code
        if body.failure.retry_after is not UNSET:
            fields["retry_after"] = body.failure.retry_after
    if body.usage is not None:
        fields["usage"] = _usage(body.usage)
    if body.notes is not UNSET:
        fields["notes"] = body.notes
    return fields


def _usage(usage: Usage) -> Fields:
    fields: Fields = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    fields |= {"cached_tokens": usage.cached_tokens, "total_tokens": usage.total_tokens}
    if usage.reused is not UNSET:
        fields["cache"] = {"tier": usage.reused.tier, "age": usage.reused.age}
    return fields
