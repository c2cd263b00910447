"""From log entries to the events of OpenAI Responses.

A response's events are numbered from 0, without a gap. How many an entry becomes depends on nothing but
the entries before it in the same response: so each node, at whatever time, gives the same event the same
number, and who has seen one goes on behind it. Pieces are never merged here: clients count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import orjson
from msgspec import UNSET

from unbroken.server.protocols.attempts import is_next_attempt
from unbroken.server.protocols.responses.items import Fields, begun_fields, item_fields, padding, text_part
from unbroken.server.protocols.responses.whole import Whole
from unbroken.sessions.entries import (
    Entry,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseQueued,
    ResponseStarted,
    ToolStarted,
)
from unbroken.sessions.event_log import Record, Slice
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.items import (
    CallHead,
    FunctionCall,
    Head,
    Message,
    Reasoning,
    ReasoningHead,
    ToolCall,
    ToolHead,
)

__all__ = ["NOTHING_NEW", "Event", "ResponseEncoder"]

NOTHING_NEW: Final = 2**53
"""Behind every event: with it, all that is wanted is how the response stands."""


class Event:
    """An event, with its number and as JSON."""

    __slots__ = ("data", "number", "type")

    def __init__(self, type: str, number: int, data: bytes) -> None:
        self.type: Final = type
        self.number: Final = number
        self.data: Final = data


class ResponseEncoder:
    """Encodes one response for one client: feed it what the log says of it, from its beginning on.

    Args:
        whole: What the response is as an object.
        after: The last event that the client has seen; what comes up to it is counted and not encoded.
        obfuscates: Whether pieces are padded.
        extra: Fields of every event, such as the lane it belongs to.

    """

    def __init__(
        self,
        whole: Whole,
        *,
        after: int = -1,
        obfuscates: bool = True,
        extra: Fields | None = None,
    ) -> None:
        self._whole = whole
        self._after = after
        self._obfuscates = obfuscates
        self._extra = extra or {}
        self._tail = b"" if extra is None else b"," + orjson.dumps(extra)[1:-1]
        self._next = 0
        self._is_created = False
        self._turn = 0
        self._cut_off: ResponseDone | None = None  # an end that another attempt may follow
        self._heads: dict[str, Head | None] = {}  # of the outputs that have begun
        self._item_id = ""  # of the output whose pieces are encoded
        self._kind = ""  # what these are called
        self._before = b""  # what stands ahead of the number in these
        self._after_number = b""  # and between it and the text
        self.final: Fields | None = None
        """The response as it ended. None: it hasn't, as far as was fed."""
        self.superseded_by: ResponseId | None = None
        """The next attempt at the same turn. None: there is none, as far as was fed."""
        self.is_waiting = False
        """Whether it waits for its turn, as far as was fed."""

    @property
    def is_done(self) -> bool:
        """Whether the response has ended: nothing follows."""
        return self.final is not None

    def encode(self, records: Iterable[Record], *, is_last: bool = True) -> Iterator[Event]:
        """Yield the events of *records*, those of other responses aside.

        *is_last*: nothing follows these so far. A further attempt would have: it is written with the end of
        the one before.
        """
        for record in records:
            if isinstance(record, Slice):
                if record.response_id == self._whole.id:
                    yield from self._pieces(record)
            elif self._cut_off is not None and is_next_attempt(record.body, self._turn):
                self.superseded_by = record.body.response_id
                yield from self._events(self._over(self._cut_off))
            elif getattr(record.body, "response_id", None) == self._whole.id:
                yield from self._events(self._fields(record))
        if is_last and self._cut_off is not None:
            yield from self._events(self._over(self._cut_off))

    def error(self, code: str, message: str, param: str | None = None) -> Event:
        """Return an event that says why no more comes, although the response may go on.

        It is none of the response's: it has the number of the one before, behind which to go on.
        """
        number = max(0, self._next - 1)
        fields = {"type": "error", "code": code, "message": message, "param": param}
        data = orjson.dumps({**fields, "sequence_number": number, **self._extra})
        return Event("error", number, data)

    def _event(self, fields: Fields) -> Event:
        number = self._next
        self._next += 1
        data = orjson.dumps({**fields, "sequence_number": number, **self._extra})
        return Event(fields["type"], number, data)

    def _events(self, said: Iterable[Fields]) -> Iterator[Event]:
        """Yield what an entry becomes. The order and number are the same at any time."""
        for fields in said:
            if self._next <= self._after:
                self._next += 1
            else:
                yield self._event(fields)

    def _fields(self, entry: Entry) -> Iterator[Fields]:
        body = entry.body
        match body:
            case ResponseQueued():
                self._is_created = self.is_waiting = True
                self._whole.asked = body.request
                yield {"type": "response.created", "response": self._whole.fields("queued")}
                yield {"type": "response.queued", "response": self._whole.fields("queued")}
            case ResponseStarted():
                self.is_waiting = False
                self._turn = body.turn
                self._whole.asked = body.request
                fields = self._whole.fields("in_progress")
                if not self._is_created:
                    self._is_created = True
                    yield {"type": "response.created", "response": fields}
                yield {"type": "response.in_progress", "response": fields}
            case OutputStarted():
                yield from self._begun(body)
            case ToolStarted():
                place = {"item_id": body.item_id, "output_index": body.output_index}
                yield {"type": "response.mcp_call_arguments.done", **place, "arguments": body.arguments}
                yield {"type": "response.mcp_call.in_progress", **place}
            case OutputDone():
                yield from self._ended(body)
            case ResponseDone(status="interrupted"):
                self._cut_off = body
            case ResponseDone():
                yield from self._over(body)
            case _:
                pass

    def _over(self, body: ResponseDone) -> Iterator[Fields]:
        self._cut_off = None
        if not self._is_created:  # it ended while it waited, and more was forgotten
            yield {"type": "response.created", "response": self._whole.fields("in_progress")}
        self.final = fields = self._whole.done(body, self.superseded_by)
        yield {"type": _TERMINALS[fields["status"]], "response": fields}

    def _begun(self, body: OutputStarted) -> Iterator[Fields]:
        head: Head | None = None
        if body.head is not UNSET:
            head = body.head
        elif body.call is not UNSET:
            head = body.call
        self._heads[body.item_id] = head
        item = begun_fields(body.item_id, head)
        yield {"type": "response.output_item.added", "output_index": body.output_index, "item": item}
        if head is None or isinstance(head, ReasoningHead):
            part = text_part("") if head is None else {"type": "reasoning_text", "text": ""}
            place = {"item_id": body.item_id, "output_index": body.output_index, "content_index": 0}
            yield {"type": "response.content_part.added", **place, "part": part}

    def _ended(self, body: OutputDone) -> Iterator[Fields]:
        place: Fields = {"item_id": body.item.id, "output_index": body.output_index}
        match body.item:
            case Message(text=text):
                place["content_index"] = 0
                yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
                yield {"type": "response.content_part.done", **place, "part": text_part(text)}
            case Reasoning(text=text):
                place["content_index"] = 0
                part = {"type": "reasoning_text", "text": text}
                yield {"type": "response.reasoning_text.done", **place, "text": text}
                yield {"type": "response.content_part.done", **place, "part": part}
            case FunctionCall(name=name, arguments=arguments):
                said = {"name": name, "arguments": arguments}
                yield {"type": "response.function_call_arguments.done", **place, **said}
            case ToolCall(output=output):
                yield {"type": f"response.mcp_call.{'failed' if output is None else 'completed'}", **place}
            case _:
                pass
        item = item_fields(body.item)
        yield {"type": "response.output_item.done", "output_index": body.output_index, "item": item}

    def _pieces(self, piece: Slice) -> Iterator[Event]:
        if self._item_id != piece.item_id:
            self._turn_to(piece)
        kind = self._kind
        skipped = min(len(piece.parts), max(0, self._after + 1 - self._next))
        self._next += skipped
        for text in piece.parts[skipped:]:
            number = self._next
            self._next += 1
            said = orjson.dumps(text)
            data = b"%b%d%b%b" % (self._before, number, self._after_number, said)
            if self._obfuscates:
                data += b',"obfuscation":"%b"' % padding(said)
            yield Event(kind, number, b"%b%b}" % (data, self._tail))

    def _turn_to(self, piece: Slice) -> None:
        """Encode what all pieces of an output have in common."""
        head = self._heads.get(piece.item_id)
        place: Fields = {"item_id": piece.item_id, "output_index": piece.output_index}
        if head is None or isinstance(head, ReasoningHead):
            place["content_index"] = piece.content_index
        if head is None:
            place["logprobs"] = []
        self._item_id, self._kind = piece.item_id, _kind(head)
        self._before = b'{"type":"%b","sequence_number":' % self._kind.encode()
        self._after_number = b"," + orjson.dumps(place)[1:-1] + b',"delta":'


def _kind(head: Head | None) -> str:
    match head:
        case CallHead():
            return "response.function_call_arguments.delta"
        case ToolHead():
            return "response.mcp_call_arguments.delta"
        case ReasoningHead():
            return "response.reasoning_text.delta"
        case _:
            return "response.output_text.delta"


_TERMINALS: Final = {
    "completed": "response.completed",
    "failed": "response.failed",
    "incomplete": "response.incomplete",
    # The protocol has no event for it: the object says what happened.
    "cancelled": "response.incomplete",
}
