"""From log entries to the events of a run.

Events are numbered from 0, without a gap, and how many an entry becomes depends on nothing but the entries
before it in the same response; pieces are never merged. So the same run is the same events under the same
numbers, on each node and at any time, and whoever has seen some goes on behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import orjson
from msgspec import UNSET

from unbroken.server.protocols.agui.decode import RUN_ID, THREAD_ID
from unbroken.server.protocols.agui.events import (
    CUT_SHORT,
    EXTENSION,
    input_of,
    interrupt_of,
    outcome_of,
    result,
    usage_of,
)
from unbroken.server.protocols.attempts import TurnEncoder
from unbroken.server.protocols.ui.chunks import Fields
from unbroken.server.protocols.ui.encode import account_of
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
    CallHead,
    FunctionCall,
    Head,
    ReasoningHead,
    ResponseRequest,
    ToolCall,
    ToolHead,
)

__all__ = ["RESTARTED", "RunEncoder"]

_VERSION: Final = "1.0"

RESTARTED: Final = "unbroken.restarted"
"""The name of the event that says that an answer was begun anew: what was said of it no longer counts."""

_CALLED: Final = "tool-input-available"
"""The name of the event on which TanStack's client runs a function of its own."""

_FINISH_REASONS: Final = {
    "max_output_tokens": "length",
    "quota_exceeded": "length",
    "content_filter": "content_filter",
}


class RunEncoder(TurnEncoder):
    """Encodes one run for one client. See :class:`TurnEncoder`.

    Args:
        response_id: See there.
        thread_id: What the client calls the conversation. None: as it was called when the run was begun.
        run_id: What the client calls the run. None: likewise.
        told: What is told of the response at its beginning.

    """

    def __init__(
        self,
        response_id: ResponseId,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        told: Fields | None = None,
    ) -> None:
        super().__init__(response_id)
        self._thread_id = thread_id
        self._run_id = run_id
        self._names = told or {}
        self._is_begun = False
        self._model: str | None = None
        self._heads: dict[str, Head | None] = {}  # of the outputs that have begun
        self._open: dict[str, list[Fields]] = {}  # the outputs that haven't ended, and what would end each
        self._calls: list[str] = []  # what is left to the page
        self._interrupts: list[Fields] = []  # what its user is asked
        self._said: list[str] = []  # the messages that an attempt has begun
        self._item_id = ""  # of the output whose pieces are encoded
        self._before: bytes | None = b""  # what stands ahead of the text in these; None: they aren't shown

    def _told(self, body: Body) -> Iterator[bytes]:
        yield from map(orjson.dumps, self._fields(body))
        if isinstance(body, ResponseDone):
            yield from self._over(body, [orjson.dumps(self._end(body))])

    def _fields(self, body: Body) -> Iterator[Fields]:
        match body:
            case ResponseQueued() | ResponseStarted():
                yield from self._begun(body.request)
            case OutputStarted():
                yield from self._output_begun(body)
            case ToolStarted() if body.item_id in self._open:
                yield from self._open.pop(body.item_id)
            case OutputDone():
                yield from self._output_ended(body)
            case ResponseDone():
                if not self._is_begun:  # it ended while it waited, and more was forgotten
                    yield from self._begun(None)
                for ends in self._open.values():
                    yield from ends
                self._open.clear()
            case _:
                pass

    def _begun(self, request: ResponseRequest | None) -> Iterator[Fields]:
        if self._is_begun:
            return
        self._is_begun = True
        metadata = (None if request is None else request.metadata) or {}
        self._run_id = self._run_id or metadata.get(RUN_ID, self._id)
        named = metadata.get(THREAD_ID, self._names.get("conversation", self._id))
        self._thread_id = self._thread_id or named
        self._model = None if request is None else request.model
        told = {"response_id": self._id, **self._names}
        yield {
            "type": "RUN_STARTED",
            "threadId": self._thread_id,
            "runId": self._run_id,
            "protocolVersion": _VERSION,
            "metadata": {EXTENSION: told},
        }

    def _begun_anew(self, body: ResponseStarted) -> Iterator[bytes]:
        """Go on with a further attempt. Nothing takes back what was said: what no longer counts is told."""
        value = {"response_id": self._id, "attempt": body.attempt, "discarded": self._said}
        self._heads.clear()
        self._calls, self._interrupts, self._said = [], [], []
        self._item_id = ""
        yield orjson.dumps({"type": "CUSTOM", "name": RESTARTED, "value": value})

    def _output_begun(self, body: OutputStarted) -> Iterator[Fields]:
        head: Head | None = None
        if body.head is not UNSET:
            head = body.head
        elif body.call is not UNSET:
            head = body.call
        item_id = body.item_id
        self._heads[item_id] = head
        match head:
            case None:
                self._said.append(item_id)
                yield {"type": "TEXT_MESSAGE_START", "messageId": item_id, "role": "assistant"}
                self._open[item_id] = [{"type": "TEXT_MESSAGE_END", "messageId": item_id}]
            case ReasoningHead():
                yield {"type": "REASONING_START", "messageId": item_id}
                yield {"type": "REASONING_MESSAGE_START", "messageId": item_id, "role": "reasoning"}
                ends = ("REASONING_MESSAGE_END", "REASONING_END")
                self._open[item_id] = [{"type": kind, "messageId": item_id} for kind in ends]
            case CallHead():
                yield self._call_begun(head.call_id, head.name)
                self._open[item_id] = [{"type": "TOOL_CALL_END", "toolCallId": head.call_id}]
            case ToolHead() if head.approval is None:
                yield self._call_begun(item_id, head.name)
                self._open[item_id] = [{"type": "TOOL_CALL_END", "toolCallId": item_id}]
            case _:
                pass  # the page has it already, or has it as a whole

    def _call_begun(self, call_id: str, name: str) -> Fields:
        fields: Fields = {"type": "TOOL_CALL_START", "toolCallId": call_id, "toolCallName": name}
        if self._said:
            fields["parentMessageId"] = self._said[-1]
        return fields

    def _output_ended(self, body: OutputDone) -> Iterator[Fields]:
        item = body.item
        yield from self._open.pop(item.id, ())
        match item:
            case FunctionCall() if item.status == "completed":
                self._calls.append(item.call_id)
                value = {"toolCallId": item.call_id, "toolName": item.name, "input": input_of(item.arguments)}
                yield {"type": "CUSTOM", "name": _CALLED, "value": value}
            case FunctionCall():  # nobody is to act on it
                yield result(item.id, item.call_id, CUT_SHORT)
            case ToolCall():
                yield result(item.id, item.approval or item.id, outcome_of(item))
            case ApprovalRequest() if item.status == "completed":
                yield self._call_begun(item.id, item.name)
                yield {"type": "TOOL_CALL_ARGS", "toolCallId": item.id, "delta": item.arguments}
                yield {"type": "TOOL_CALL_END", "toolCallId": item.id}
                self._interrupts.append(interrupt_of(item))
            case _:
                pass  # it is whole as it was said, or was cut short and asks nobody

    def _end(self, body: ResponseDone) -> Fields:
        metadata: Fields = {EXTENSION: account_of(body)}
        usage = None if body.usage is None else [usage_of(body.usage, self._model)]
        fields: Fields
        if body.status in ("failed", "interrupted"):
            failure = body.failure
            fields = {"type": "RUN_ERROR", "message": "The answer failed.", "metadata": metadata}
            if failure is not None:
                fields |= {"message": failure.message, "code": failure.code}
            metadata["tanstack"] = {"runId": self._run_id, "threadId": self._thread_id}
        else:
            fields = {"type": "RUN_FINISHED", "threadId": self._thread_id, "runId": self._run_id}
            fields |= {"outcome": self._outcome(body), "metadata": metadata}
            metadata["tanstack"] = {"finishReason": _FINISH_REASONS.get(body.reason or "", "stop")}
        if usage is not None:
            fields["usage"] = usage
        return fields

    def _outcome(self, body: ResponseDone) -> Fields:
        if body.status == "cancelled":
            return {"type": "cancelled"}
        if body.status == "completed" and self._interrupts:
            return {"type": "interrupt", "interrupts": self._interrupts}
        outcome: Fields = {"type": "success"}
        if body.status == "completed" and self._calls:
            outcome["pendingToolCallIds"] = self._calls
        return outcome

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
                self._before = _ahead({"type": "TEXT_MESSAGE_CONTENT", "messageId": item_id})
            case ReasoningHead():
                self._before = _ahead({"type": "REASONING_MESSAGE_CONTENT", "messageId": item_id})
            case CallHead(call_id=call_id):
                self._before = _ahead({"type": "TOOL_CALL_ARGS", "toolCallId": call_id})
            case ToolHead(approval=None):
                self._before = _ahead({"type": "TOOL_CALL_ARGS", "toolCallId": item_id})
            case ToolHead() | ApprovalHead():
                self._before = None


def _ahead(place: Fields) -> bytes:
    """Return what stands ahead of the text of a piece."""
    return b'%b,"delta":' % orjson.dumps(place)[:-1]
