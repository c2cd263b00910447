"""An attempt that hasn't ended, and how one ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from unbroken.sessions.entries import Failure, Status
from unbroken.sessions.ids import ItemId, ResponseId
from unbroken.sessions.items import Message, ResponseRequest, Usage
from unbroken.sessions.turn import Attempt

__all__ = ["Ongoing", "Outcome", "Response", "Standing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended, as its driver saw it."""

    status: Status
    reason: str | None = None
    failure: Failure | None = None
    usage: Usage | None = None


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
    """The last item that it answers, and behind which its own belongs. None: there was none."""
    item_id: ItemId | None = None
    """Of its output, once begun."""
    previous: ItemId | None = None
    handle: str | None = None
    parts: list[str] = field(default_factory=list)
    cancel_reason: str | None = None

    @property
    def id(self) -> ResponseId:
        """The attempt's id."""
        return self.attempt.id


@dataclass(frozen=True, slots=True)
class Ongoing:
    """A response that is being said, as far as it has been said."""

    response_id: ResponseId
    request: ResponseRequest
    item_id: ItemId | None
    """None: it has said nothing yet."""
    text: str

    @property
    def in_conversation(self) -> bool:
        """Whether its item is part of the conversation."""
        return self.request.in_conversation

    @classmethod
    def of(cls, response: Response) -> Ongoing:
        """Return what *response* has come to by now."""
        return cls(response.id, response.request, response.item_id, "".join(response.parts))


Standing: TypeAlias = Message | Ongoing
"""What there is to show to somebody who has seen nothing."""
