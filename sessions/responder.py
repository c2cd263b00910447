"""The seam between the halves: sessions say when a turn runs, a responder says how."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from unbroken.sessions.ids import PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import Message, ResponseRequest, SessionConfig, Usage

__all__ = ["Finish", "Handle", "Output", "Responder", "Turn", "Working"]


@dataclass(frozen=True, slots=True)
class Working:
    """Nothing to show yet, but work goes on: restarts the no-progress timer."""


@dataclass(frozen=True, slots=True)
class Handle:
    """The upstream's own name for the response that is being produced."""

    value: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Why the responder stopped. One that just ends has completed."""

    reason: Literal["completed", "max_output_tokens", "content_filter"] = "completed"


Output: TypeAlias = str | Working | Usage | Handle | Finish


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
    messages: tuple[Message, ...]
    """What to answer, oldest first."""


class Responder(Protocol):
    """Produces answers. Raises :class:`~unbroken.sessions.errors.ResponderError` for what it can name."""

    def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
        """Answer *turn*, piece by piece.

        The generator is closed, or the task that iterates it cancelled once,
        when the answer isn't wanted any more; it may then clean up, within the
        stop timeout. Turns of many sessions run at once.
        """
