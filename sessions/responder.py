"""The seam between the halves: sessions say when a turn runs, a responder says how."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from unbroken.sessions.ids import PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import Item, ResponseRequest, SessionConfig, Usage

__all__ = ["Finish", "FunctionCallPiece", "Handle", "Output", "Responder", "Turn", "Working"]


@dataclass(frozen=True, slots=True)
class Working:
    """Nothing to show yet, but work goes on: restarts the no-progress timer."""


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
class Handle:
    """The upstream's own name for the response that is being produced."""

    value: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Why the responder stopped. One that just ends has completed."""

    reason: Literal["completed", "max_output_tokens", "content_filter"] = "completed"


Output: TypeAlias = str | FunctionCallPiece | Working | Usage | Handle | Finish


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


class Responder(Protocol):
    """Produces answers. Raises :class:`~unbroken.sessions.errors.ResponderError` for what it can name."""

    def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
        """Answer *turn*, piece by piece.

        The generator is closed, or the task that iterates it cancelled once,
        when the answer isn't wanted any more; it may then clean up, within the
        stop timeout. Turns of many sessions run at once.
        """
