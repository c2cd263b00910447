"""An attempt that hasn't ended, and how one ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import UNSET, UnsetType

from unbroken.sessions.entries import Failure, Status
from unbroken.sessions.ids import ItemId, ResponseId
from unbroken.sessions.items import (
    CallHead,
    FunctionCall,
    Item,
    ItemStatus,
    Message,
    Produced,
    ResponseRequest,
    Text,
    Usage,
)
from unbroken.sessions.turn import Attempt

__all__ = ["Ongoing", "Outcome", "Response", "ResponseOutput", "Standing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended, as its driver saw it."""

    status: Status
    reason: str | None = None
    failure: Failure | None = None
    usage: Usage | None = None


@dataclass(slots=True)
class ResponseOutput:
    """An item that a response has begun to produce."""

    item_id: ItemId
    previous: ItemId | None
    call: CallHead | None = None
    """None: it is a message."""
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What there is of it: text, or arguments."""
        return "".join(self.parts)

    def item(self, status: ItemStatus) -> Produced:
        """Return the item, as far as it has come."""
        if self.call is None:
            return Message(self.item_id, "assistant", (Text(self.text),) if self.parts else (), status)
        return FunctionCall(self.item_id, self.call.call_id, self.call.name, self.text, status)


@dataclass(slots=True)
class Response:
    """One attempt that hasn't ended, and what it has produced."""

    attempt: Attempt
    request: ResponseRequest
    turn: int
    """The input it answers."""
    number: int = 1
    """Which attempt at the turn it is."""
    started_at: int = 0
    """The sequence number of its first entry."""
    ordinal: int = 0
    """Of its next entry."""
    anchor: ItemId | None = None
    """The last item that it answers, and behind which its own belong. None: there was none."""
    handle: str | None = None
    outputs: list[ResponseOutput] = field(default_factory=list)
    """In the order in which they began."""
    cancel_reason: str | None = None
    requests: tuple[str, ...] | UnsetType = UNSET
    """Set: it answers what has been said when it starts. The event ids of the requests it answers."""

    @property
    def id(self) -> ResponseId:
        """The attempt's id."""
        return self.attempt.id

    @property
    def merged(self) -> tuple[str, ...] | UnsetType:
        """The event ids of the requests it answers, if they are several."""
        return UNSET if self.requests is UNSET or len(self.requests) < 2 else self.requests


@dataclass(frozen=True, slots=True)
class Ongoing:
    """An output of a response that is being said, as far as it has been said."""

    response_id: ResponseId
    request: ResponseRequest
    item_id: ItemId | None
    """None: the response has said nothing yet."""
    text: str
    output_index: int = 0
    """0: nothing of the response has been shown before."""
    call: CallHead | None = None
    """None: it is a message."""
    requests: tuple[str, ...] | UnsetType = UNSET
    """As of :class:`~unbroken.sessions.entries.ResponseStarted`."""

    @property
    def in_conversation(self) -> bool:
        """Whether its item is part of the conversation."""
        return self.request.in_conversation

    @classmethod
    def of(cls, response: Response) -> list[Ongoing]:
        """Return what *response* has come to by now: each of its outputs, in order, or that there is none."""
        return [
            cls(
                response.id,
                response.request,
                output.item_id,
                output.text,
                index,
                output.call,
                response.merged,
            )
            for index, output in enumerate(response.outputs)
        ] or [cls(response.id, response.request, None, "", requests=response.merged)]


Standing: TypeAlias = Item | Ongoing
"""What there is to show to somebody who has seen nothing."""
