"""An attempt that hasn't ended, and how one ends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, assert_never

from msgspec import UNSET, UnsetType

from unbroken.sessions.entries import Failure, Status
from unbroken.sessions.ids import ItemId, ResponseId
from unbroken.sessions.items import (
    ApprovalHead,
    ApprovalRequest,
    CallHead,
    FunctionCall,
    Head,
    Item,
    ItemStatus,
    Message,
    Note,
    Produced,
    Reasoning,
    ReasoningHead,
    ResponseRequest,
    Text,
    ToolCall,
    ToolError,
    ToolHead,
    Usage,
)
from unbroken.sessions.turn import Attempt

__all__ = ["Ongoing", "Outcome", "Response", "ResponseOutput", "Standing"]


_NOT_RUN: Final = ToolError("The tool was not run: the response ended first.")
_UNKNOWN: Final = ToolError(
    "The result isn't known: the tool was stopped while it ran. It may have done its work."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended, as its driver saw it."""

    status: Status
    reason: str | None = None
    failure: Failure | None = None
    usage: Usage | None = None
    notes: dict[str, Note] | None = None


@dataclass(slots=True)
class ResponseOutput:
    """An item that a response has begun to produce."""

    item_id: ItemId
    previous: ItemId | None
    head: Head | None = None
    """None: it is a message."""
    parts: list[str] = field(default_factory=list)
    in_conversation: bool = True
    is_run: bool = False
    """Whether it is a tool's call that may have been run."""
    done: Produced | None = None
    """The item, once it is whole. None: it is being produced."""

    @property
    def text(self) -> str:
        """What there is of it: text, or arguments."""
        return "".join(self.parts)

    def item(self, status: ItemStatus, output: str | None = None, error: ToolError | None = None) -> Produced:
        """Return the item, as far as it has come. *output* or *error* are what came of a tool's call."""
        head, item_id = self.head, self.item_id
        match head:
            case None:
                text = self.text  # as a restored response has it: of empty pieces, none are left
                return Message(item_id, "assistant", (Text(text),) if text else (), status)
            case CallHead():
                return FunctionCall(item_id, head.call_id, head.name, self.text, status)
            case ReasoningHead():
                return Reasoning(item_id, self.text, status)
            case ToolHead():
                return ToolCall(
                    item_id, head.name, head.label, self.text, output, error, head.approval, status
                )
            case ApprovalHead():
                return ApprovalRequest(item_id, head.name, head.label, head.arguments, status)
            case _:
                assert_never(head)

    def cut(self, status: ItemStatus) -> Produced:
        """Return the item as it is when its response ends with *status*."""
        if isinstance(self.head, ToolHead):
            return self.item("incomplete", error=_UNKNOWN if self.is_run else _NOT_RUN)
        return self.item(status)


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
    """The upstream's own name for it."""
    takeovers: int = 0
    """How often another owner has gone on with that."""
    in_vain: int = 0
    """How often in a row, without a piece more of the answer between two."""
    taken_at: int = 0
    """The ordinal behind the last of them."""
    outputs: list[ResponseOutput] = field(default_factory=list)
    """In the order in which they began."""
    cancel_reason: str | None = None
    requests: tuple[str, ...] | UnsetType = UNSET
    """Set: it answers what has been said when it starts. The event ids of the requests it answers."""

    @property
    def id(self) -> ResponseId:
        """The attempt's id."""
        return self.attempt.id

    def note_handle(self, handle: str) -> None:
        """Take in what the log says of the upstream's name for it: the same once more is a takeover."""
        if handle and handle == self.handle:
            self.takeovers += 1
            self.in_vain = self.in_vain + 1 if self.ordinal == self.taken_at else 1
            self.taken_at = self.ordinal + 1
        self.handle = handle or None
        self.ordinal += 1

    @property
    def merged(self) -> tuple[str, ...] | UnsetType:
        """The event ids of the requests it answers, if they are several."""
        return UNSET if self.requests is UNSET or len(self.requests) < 2 else self.requests


@dataclass(frozen=True, slots=True)
class Ongoing:
    """An output of a response that hasn't ended, as far as it has been said."""

    response_id: ResponseId
    request: ResponseRequest
    output: ResponseOutput | None
    """None: the response has nothing to show yet."""
    index: int = 0
    requests: tuple[str, ...] | UnsetType = UNSET
    """As of :class:`~unbroken.sessions.entries.ResponseStarted`."""

    @property
    def item_id(self) -> ItemId | None:
        """Of the item in the conversation; None: there is none."""
        output = self.output
        return output.item_id if output is not None and output.in_conversation else None

    @property
    def text(self) -> str:
        """What has been said."""
        return "" if self.output is None else self.output.text

    @classmethod
    def of(cls, response: Response) -> list[Ongoing]:
        """Return what *response* has come to by now: each of its outputs, in order, or that there is none.

        They no longer change.
        """
        return [
            cls(response.id, response.request, replace(output, parts=[output.text]), index, response.merged)
            for index, output in enumerate(response.outputs)
        ] or [cls(response.id, response.request, None, requests=response.merged)]


Standing: TypeAlias = Item | Ongoing
"""What there is to show to somebody who has seen nothing."""
