"""The seam between the halves: sessions say when a turn runs, a responder says how."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from unbroken.sessions.custody import Custody
from unbroken.sessions.ids import ItemId, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import (
    ApprovalHead,
    ApprovalRequest,
    Item,
    Note,
    ResponseRequest,
    SessionConfig,
    ToolError,
    ToolHead,
    Usage,
)

__all__ = [
    "Abandoning",
    "AsksApproval",
    "Finish",
    "FunctionCallPiece",
    "Handle",
    "Interjection",
    "Notes",
    "Output",
    "ReasoningPiece",
    "Responder",
    "Resuming",
    "Resumption",
    "RunsTools",
    "ToolCallPiece",
    "ToolEnded",
    "Turn",
    "Unbilled",
    "Working",
]


@dataclass(frozen=True, slots=True)
class Working:
    """Nothing to show yet, but work goes on: restarts the no-progress timer."""

    thought: int = field(default=0, kw_only=True)
    """Bytes that the model has thought meanwhile, and that nobody is shown."""
    spent: Usage | None = field(default=None, kw_only=True)
    """What an attempt took that has failed, and that another one follows. It comes on top of the bill."""


@dataclass(frozen=True, slots=True)
class FunctionCallPiece:
    """A piece of a call of one of the client's functions. The response's calls are numbered from 0, in order.

    The first piece of a call names the function. A ``call_id`` that is left out, or can't be used
    because another call has it, is made up.
    """

    index: int
    arguments: str = ""
    """The next piece of the arguments, which together are JSON. May be empty."""
    call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ReasoningPiece:
    """A piece of what the model thinks. Dropped, unless the session wants to see it."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A piece of a call of one of the server's tools. The first piece of a call has its *head*."""

    item_id: ItemId
    """Of the call, made up by the responder: the key under which the tool is run."""
    arguments: str = ""
    head: ToolHead | None = None


@dataclass(frozen=True, slots=True)
class RunsTools:
    """Says that the responder is about to run these calls, whose arguments are whole.

    It is not asked for more until that is in the log: whoever reads the log
    later knows that they may have been run. When it is never asked again, it must not run them.
    """

    item_ids: tuple[ItemId, ...]


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """What came of a call: an output, or why there is none. Ends the call."""

    item_id: ItemId
    output: str | None = None
    error: ToolError | None = None


@dataclass(frozen=True, slots=True)
class AsksApproval:
    """A call that its user has to approve of first."""

    item_id: ItemId
    head: ApprovalHead


@dataclass(frozen=True, slots=True)
class Handle:
    """The upstream's own name for the response that is being produced.

    An empty one takes back the one before: the rest comes from elsewhere. What was left with the turn's
    custody until then is done once the log says so.
    """

    value: str


@dataclass(frozen=True, slots=True)
class Unbilled:
    """Takes back the usage that was told: who pays has changed, and the bill hasn't come yet."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Why the responder stopped. One that just ends has completed."""

    reason: Literal["completed", "max_output_tokens", "content_filter", "quota_exceeded"] = "completed"


@dataclass(frozen=True, slots=True)
class Notes:
    """What the response's end says beside, for whoever knows the words. The last ones count.

    Sessions don't look into it. It is small, and nothing in it was said by a user or a model.
    """

    values: dict[str, Note]


Output: TypeAlias = (
    str
    | FunctionCallPiece
    | ReasoningPiece
    | ToolCallPiece
    | RunsTools
    | ToolEnded
    | AsksApproval
    | Working
    | Usage
    | Unbilled
    | Handle
    | Notes
    | Finish
)


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where to go on with a response that another owner began, and that its upstream keeps alive."""

    handle: str
    """The upstream's name for it."""
    offset: int
    """Characters of its text that are in the log already."""
    calls: tuple[int, ...] = ()
    """For each function call that has begun, the characters of its arguments that are."""
    text: str = ""
    """That text."""
    arguments: tuple[str, ...] = ()
    """Those arguments."""


class Interjection:
    """Lets a responder say something while it waits for what comes next, and when it is stopped.

    What is put here comes before whatever the responder yields later. Once the attempt has ended, or its
    user has cancelled it, it is dropped, as is what nobody takes.
    """

    __slots__ = ("take",)

    def __init__(self) -> None:
        self.take: Callable[[Output], None] | None = None
        """Set by whoever takes what is put here."""

    @property
    def is_heard(self) -> bool:
        """Whether anybody takes what is put here."""
        return self.take is not None

    def put(self, output: Output) -> None:
        """Say *output* now."""
        if self.take is not None:
            self.take(output)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One attempt, as handed to the responder."""

    session_id: SessionId
    response_id: ResponseId
    principal: PrincipalId
    attempt: int
    number: int = 0
    """The input that it answers, by its place in the log; the same for each attempt."""
    config: SessionConfig
    request: ResponseRequest
    items: tuple[Item, ...]
    """What to answer, oldest first."""
    approved: tuple[ApprovalRequest, ...] = ()
    """The calls of tools that the user has approved of, and that were never begun: to be run first."""
    resumption: Resumption | None = None
    """Set: the response is resumed."""
    custody: Custody = field(default_factory=Custody)
    """Takes what would stop an upstream's work."""
    interjection: Interjection = field(default_factory=Interjection)


class Responder(Protocol):
    """Produces answers. Raises :class:`~unbroken.sessions.errors.ResponderError` for what it can name."""

    def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
        """Answer *turn*, piece by piece.

        The generator is closed, or the task that iterates it cancelled once,
        when the answer isn't wanted any more; it may then clean up, within the
        stop timeout. Turns of many sessions run at once.
        """


@runtime_checkable
class Resuming(Protocol):
    """A responder that can go on with what another process began."""

    @property
    def can_resume(self) -> bool:
        """Whether :meth:`Responder.respond` takes turns with a resumption. It may still fail to go on."""


@runtime_checkable
class Abandoning(Protocol):
    """A responder whose upstreams may work on when nobody is there any more who asked them."""

    async def abandon(self, handle: str) -> None:
        """Have an upstream stop what it does under *handle*: nobody will fetch it. Never raises for that."""
