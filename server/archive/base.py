"""What keeps finished turns for good, and what every implementation guarantees.

Guarantees:

Once
    A turn is known by its session and its response: written again, it changes nothing.
Whole or not at all
    What one call writes, with the webhooks that are to be sent of it, is there as a whole, or nothing is.
Erased is erased
    What was erased doesn't come back with a turn that is of it, and is written late.
Several nodes
    All of them may write and read at once. What is done by one at a time says so.

::

    Exception
    +-- ArchiveUnavailable    it can't be used for the moment. The text says why, and names no address
    +-- ArchiveUnusable       it can't be used as it is set up: one line, with the fix
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from unbroken.sessions.finished import FinishedTurn
from unbroken.sessions.ids import PrincipalId, ResponseId, SessionId

__all__ = [
    "AnnounceEnd",
    "Archive",
    "ArchiveUnavailable",
    "ArchiveUnusable",
    "ArchivedSession",
    "Delivery",
    "Due",
    "NewTurn",
    "Owned",
    "Queue",
]


class ArchiveUnavailable(Exception):
    """It can't be used for the moment."""


class ArchiveUnusable(Exception):
    """It can't be used as it is set up."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook that is to be sent to one endpoint."""

    message_id: str
    """The same for all that say the same, however often they are made."""
    endpoint: str
    """Its name in the settings."""
    kind: str
    body: str


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that it is time for, and that the caller alone has for a while."""

    delivery: Delivery
    tries: int
    """How often it was tried before."""
    made_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """A turn that is to be archived."""

    turn: FinishedTurn
    principal: PrincipalId
    tenant: str
    user: str
    plan: str
    is_kept: bool = True
    """False: nothing is kept of it, and only the webhooks are to be sent."""
    check_at: float
    """When to look whether its session has ended."""
    deliveries: Sequence[Delivery] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedSession:
    """A session of which turns are kept, or were."""

    id: SessionId
    principal: PrincipalId
    tenant: str
    user: str
    model: str
    began_at: float
    """When what was archived first of it was asked for. All times are in seconds since 1970."""
    active_at: float
    """When its latest turn ended."""
    ended_at: float | None
    """When it was found to be gone from the store; None: it wasn't yet."""
    turns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """Whose sessions are looked for. None: anybody's."""

    principal: PrincipalId | None = None
    tenant: str | None = None
    user: str | None = None


AnnounceEnd: TypeAlias = Callable[[ArchivedSession, float], Sequence[Delivery]]
"""Says who is to be told that a session has ended, at that time."""


class Archive(Protocol):
    """Keeps finished turns. The module's text says what is guaranteed.

    All calls may raise :class:`ArchiveUnavailable`: what was to be written may have been.
    """

    async def write(self, turns: Sequence[NewTurn], at: float) -> int:
        """Keep *turns*, and queue their webhooks, to be sent from *at* on. Return how many weren't known."""

    async def sessions(
        self, owned: Owned, limit: int, *, after: SessionId | None = None
    ) -> list[ArchivedSession]:
        """Return sessions, the one that was active last first, behind *after*.

        Behind one that isn't there any more, or isn't *owned*, there is nothing.
        """

    async def session(
        self, session_id: SessionId, principal: PrincipalId | None = None
    ) -> ArchivedSession | None:
        """Return one session; None: there is none, or it is another's than *principal*'s."""

    async def turns(
        self, session_id: SessionId, limit: int, *, after: str | None = None
    ) -> list[FinishedTurn]:
        """Return a session's turns in order, behind the response *after*."""

    async def turn(
        self, session_id: SessionId, response_id: ResponseId, principal: PrincipalId
    ) -> FinishedTurn | None:
        """Return one turn; None: there is none, or it is another's than *principal*'s."""

    async def erase(self, principal: PrincipalId, at: float) -> int:
        """Forget all turns of *principal* that ended before *at*, and webhooks of them that weren't sent yet.

        Return how many turns there were. None comes late from its beginning on, and what there was goes in
        parts: whoever is cut off asks again, and the rest goes.
        """

    async def erase_session(
        self, session_id: SessionId, at: float, announce: AnnounceEnd | None = None
    ) -> int:
        """Forget a session likewise, with whatever was asked for in it until *at*, also if it ends later.

        What is asked for since is of another that came to the same id.
        *announce* says who is to be told that it has ended, unless they were before.
        """

    async def erase_answer(self, session_id: SessionId, response_id: ResponseId, at: float) -> None:
        """Forget what a response said, also if it is written later, and what of it webhooks still say.

        What else there is of the session stays, and of the turn what isn't said: status, model, times, usage;
        and what was said to it as part of the conversation, which has that still.
        """

    async def expire(self, cutoffs: Mapping[str, float | None], limit: int, *, default: float | None) -> int:
        """Forget turns that ended before their plan's cutoff, or before *default*; None: these stay.

        Up to *limit*, by one node at a time. Return how many were forgotten; less than *limit*: there are
        no more, or another node is at it.
        """

    async def unchecked(self, now: float, limit: int) -> list[ArchivedSession]:
        """Return sessions of which it is time to look whether they have ended."""

    async def still_there(self, session_ids: Sequence[SessionId], check_at: float) -> None:
        """Note that sessions haven't ended, and when to look again."""

    async def ended(self, session: ArchivedSession, at: float, deliveries: Sequence[Delivery]) -> bool:
        """Note that a session has ended, and queue its webhooks. False: another node did, or it goes on."""


class Queue(Protocol):
    """The webhooks that are to be sent, in the archive's database. Calls may raise as the archive's do."""

    async def due(self, endpoint: str, now: float, limit: int, *, until: float) -> list[Due]:
        """Return what is due, the oldest first. Until *until* nobody else is given it."""

    async def sent(self, due: Due) -> None:
        """Forget what was delivered."""

    async def put_off(self, due: Due, at: float) -> None:
        """Note one try more, and when the next one is due."""

    async def bury(self, due: Due, now: float) -> None:
        """Note that it isn't tried any more."""

    async def forget(self, before: float, endpoints: Sequence[str], limit: int) -> int:
        """Forget what was buried before that time, or waits for none of *endpoints* since then."""

    async def waiting(self) -> Mapping[str, int]:
        """Return how many wait for each endpoint."""
