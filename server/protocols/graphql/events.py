"""From log entries to the events of a subscription.

Each entry becomes one event at most, so that its place in the log is the event's cursor, and who comes back
with that gets what follows, exactly.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import strawberry
from msgspec import UNSET

from unbroken.server.protocols.cursor import format_cursor
from unbroken.server.protocols.graphql.types import Item, Response, ResponseStatus, Session
from unbroken.sessions.entries import (
    ConfigUpdated,
    Deltas,
    Entry,
    ItemAdded,
    ItemDeleted,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseQueued,
    ResponseStarted,
    ToolStarted,
)
from unbroken.sessions.event_log import Record, Slice
from unbroken.sessions.ids import ItemId, Nonce, ResponseId, SessionId
from unbroken.sessions.items import (
    ApprovalHead,
    ApprovalRequest,
    CallHead,
    FunctionCall,
    Head,
    Message,
    Produced,
    Reasoning,
    ReasoningHead,
    ToolCall,
    ToolHead,
)
from unbroken.sessions.production import standing_entries
from unbroken.sessions.response import Ongoing, Standing

__all__ = ["DeltaKind", "Event", "EventEncoder", "EventType", "Piece", "Said"]


@strawberry.enum(description="What an event tells of.")
class EventType(enum.Enum):
    """What an event tells of."""

    OPENED = "opened"
    SESSION_UPDATED = "session_updated"
    ITEM_ADDED = "item_added"
    ITEM_DELETED = "item_deleted"
    RESPONSE_QUEUED = "response_queued"
    RESPONSE_STARTED = "response_started"
    OUTPUT_STARTED = "output_started"
    DELTA = "delta"
    TOOL_STARTED = "tool_started"
    OUTPUT_DONE = "output_done"
    RESPONSE_DONE = "response_done"


@strawberry.enum(description="What a piece is of.")
class DeltaKind(enum.Enum):
    """What a piece is of."""

    TEXT = "text"
    ARGUMENTS = "arguments"
    REASONING = "reasoning"


@strawberry.type(description="Something that has happened in a session.")
class Event:
    """Something that has happened in a session."""

    type: EventType
    cursor: str | None = strawberry.field(
        default=None,
        description="Behind which to go on, with `after`. Null: there is no going on here; begin anew.",
    )
    resumed: bool | None = strawberry.field(
        default=None,
        description="Of OPENED: whether what follows goes on where `after` said. False: it begins anew.",
    )
    session: Session | None = strawberry.field(default=None, description="Of OPENED and SESSION_UPDATED.")
    response_id: strawberry.ID | None = None
    response: Response | None = strawberry.field(
        default=None, description="Of RESPONSE_QUEUED, RESPONSE_STARTED and RESPONSE_DONE."
    )
    item_id: strawberry.ID | None = None
    output_index: int | None = None
    item: Item | None = strawberry.field(
        default=None, description="Of ITEM_ADDED, OUTPUT_STARTED and OUTPUT_DONE."
    )
    kind: DeltaKind | None = strawberry.field(default=None, description="Of DELTA.")
    delta: str | None = strawberry.field(default=None, description="Of DELTA: what was said.")


@dataclass(slots=True)
class Piece:
    """What there is most of: an event of type DELTA, before it is one."""

    cursor: str | None
    response_id: ResponseId
    item_id: ItemId
    output_index: int
    kind: DeltaKind
    text: str

    @property
    def fields(self) -> dict[str, Any]:
        """Its fields by their names in the schema, as JSON has them. Those that aren't here are null."""
        return {
            "__typename": "Event",
            "type": "DELTA",
            "cursor": self.cursor,
            "responseId": self.response_id,
            "itemId": self.item_id,
            "outputIndex": self.output_index,
            "kind": self.kind.name,
            "delta": self.text,
        }

    @property
    def event(self) -> Event:
        """The event that it is."""
        return Event(
            type=EventType.DELTA,
            cursor=self.cursor,
            response_id=strawberry.ID(self.response_id),
            item_id=strawberry.ID(self.item_id),
            output_index=self.output_index,
            kind=self.kind,
            delta=self.text,
        )


Said: TypeAlias = Event | Piece


class EventEncoder:
    """Says what is in one session's log, to one client. Feed it records in order.

    Args:
        session_id: The session.
        incarnation: Its log's.
        response_id: The response that is told of alone. None: all.
        later_attempt: Knows the attempt that stands for one that was cut off; None: there is none.

    """

    def __init__(
        self,
        session_id: SessionId,
        incarnation: str,
        response_id: ResponseId | None = None,
        *,
        later_attempt: Callable[[ResponseId], ResponseId | None],
    ) -> None:
        self._session_id = session_id
        self._incarnation = incarnation
        self._response_id: Final = response_id
        self._later_attempt = later_attempt
        self.is_done = False
        """Whether the response that is told of has ended."""

    def cursor(self, seq: int, nonce: int) -> str:
        """Return the cursor of a place in this log."""
        return format_cursor(self._incarnation, seq, nonce)

    def encode(self, records: Iterable[Record]) -> Iterator[Said]:
        """Yield what *records* tell of."""
        for record in records:
            if isinstance(record, Slice):
                if self._response_id in (None, record.response_id):
                    yield self._piece(record)
            elif (event := self._event(record)) is not None:
                event.cursor = self.cursor(record.seq, record.nonce)
                yield event

    def standing(self, shown: Iterable[Standing]) -> Iterator[Said]:
        """Yield how things stand, for who has seen none of it. It has no cursors: half of it is no place."""
        begun: set[str] = set()
        for each in shown:
            if not isinstance(each, Ongoing):
                yield Event(type=EventType.ITEM_ADDED, item_id=strawberry.ID(each.id), item=Item.of(each))
                continue
            if each.response_id not in begun:
                begun.add(each.response_id)
                yield self._begun(each.response_id, ResponseStatus.IN_PROGRESS, each.request.metadata)
            if each.output is None:
                continue
            for body in standing_entries(each.response_id, each.output, each.index, None):
                if isinstance(body, Deltas):
                    kind = _kind(isinstance(each.output.head, ReasoningHead), each.output.head is not None)
                    text = "".join(body.parts)
                    yield Piece(None, body.response_id, body.item_id, body.output_index, kind, text)
                elif (event := self._event(Entry(0, Nonce(0), body))) is not None:
                    yield event

    def _piece(self, piece: Slice) -> Piece:
        kind = _kind(piece.kind == "reasoning", piece.call_id is not UNSET or piece.kind is not UNSET)
        cursor = self.cursor(piece.last, piece.nonces[-1])
        text = "".join(piece.parts)
        return Piece(cursor, piece.response_id, piece.item_id, piece.output_index, kind, text)

    def _event(self, entry: Entry) -> Event | None:
        """Return what an entry is to the client. None: nothing."""
        body = entry.body
        if self._response_id is not None and getattr(body, "response_id", None) != self._response_id:
            return None
        match body:
            case ConfigUpdated():
                session = Session.of(self._session_id, body.config)
                return Event(type=EventType.SESSION_UPDATED, session=session)
            case ItemAdded():
                item = body.item
                return Event(type=EventType.ITEM_ADDED, item_id=strawberry.ID(item.id), item=Item.of(item))
            case ItemDeleted():
                return Event(type=EventType.ITEM_DELETED, item_id=strawberry.ID(body.item_id))
            case ResponseQueued():
                return self._begun(body.response_id, ResponseStatus.QUEUED, body.request.metadata)
            case ResponseStarted():
                return self._begun(body.response_id, ResponseStatus.IN_PROGRESS, body.request.metadata)
            case OutputStarted():
                head = body.head if body.call is UNSET else body.call
                begun = _begun_item(body.item_id, None if head is UNSET else head)
                return self._of_output(EventType.OUTPUT_STARTED, body.response_id, body.output_index, begun)
            case ToolStarted():
                return Event(
                    type=EventType.TOOL_STARTED,
                    response_id=strawberry.ID(body.response_id),
                    item_id=strawberry.ID(body.item_id),
                    output_index=body.output_index,
                )
            case OutputDone():
                return self._of_output(EventType.OUTPUT_DONE, body.response_id, body.output_index, body.item)
            case ResponseDone():
                self.is_done = self._response_id is not None
                response_id = strawberry.ID(body.response_id)
                response = Response.done(body, self._later_attempt(body.response_id))
                return Event(type=EventType.RESPONSE_DONE, response_id=response_id, response=response)
            case _:
                return None

    @staticmethod
    def _begun(response_id: ResponseId, status: ResponseStatus, metadata: dict[str, str] | None) -> Event:
        kind = EventType.RESPONSE_STARTED
        if status is ResponseStatus.QUEUED:
            kind = EventType.RESPONSE_QUEUED
        response = Response.begun(response_id, status, metadata)
        return Event(type=kind, response_id=strawberry.ID(response_id), response=response)

    @staticmethod
    def _of_output(kind: EventType, response_id: ResponseId, index: int, item: Produced) -> Event:
        return Event(
            type=kind,
            response_id=strawberry.ID(response_id),
            item_id=strawberry.ID(item.id),
            output_index=index,
            item=Item.of(item),
        )


def _kind(is_reasoning: bool, is_call: bool) -> DeltaKind:
    if is_reasoning:
        return DeltaKind.REASONING
    return DeltaKind.ARGUMENTS if is_call else DeltaKind.TEXT


def _begun_item(item_id: ItemId, head: Head | None) -> Produced:
    """Return an item of a response as it begins."""
    match head:
        case None:
            return Message(item_id, "assistant", (), "in_progress")
        case CallHead():
            return FunctionCall(item_id, head.call_id, head.name, "", "in_progress")
        case ReasoningHead():
            return Reasoning(item_id, "", "in_progress")
        case ToolHead():
            return ToolCall(item_id, head.name, head.label, "", approval=head.approval, status="in_progress")
        case ApprovalHead():
            return ApprovalRequest(item_id, head.name, head.label, head.arguments)
