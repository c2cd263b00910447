"""What the schema asks of the server: for one speaker, and for as long as they are answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from unbroken.server.protocols.graphql.types import Response, Session
from unbroken.server.protocols.responses.frames import CreateParam

__all__ = ["Begun", "Desk"]


@dataclass(frozen=True, slots=True)
class Begun:
    """A response that was asked for."""

    session_id: str
    response_id: str
    resume: str | None
    """The token with which its session is gone on with over Realtime. None: it can't be."""


class Desk(Protocol):
    """Answers one speaker. Whatever can't be had is an exception that the transport knows."""

    async def session(self, session_id: str) -> Session | None:
        """Return a session of theirs. None: there is none, or it is another's."""

    async def sessions(self, first: int, after: str | None) -> tuple[list[Session], bool]:
        """Return so many of their sessions behind *after*, the newest first, and whether there are more."""

    async def response(self, response_id: str) -> Response | None:
        """Return a response of theirs. None: there is none, or it is another's."""

    async def usage(self, turns: int) -> dict[str, Any] | None:
        """Return what they have used, with so many of their turns. None: nobody counts."""

    def models(self) -> list[str]:
        """Return the models that they may name."""

    async def send(self, wanted: CreateParam) -> Begun:
        """Have a response be begun."""

    async def cancel(self, response_id: str) -> Response:
        """Have a response stop, and return what it came to."""
