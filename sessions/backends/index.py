"""Which sessions a principal has: an index beside the store, in which they are listed.

It is no part of what a session is. The two are written one after the other, at least once: what a failure
leaves out is written when something happens in the session next. An entry says that there was such a
session; whoever finds it gone drops the entry. So the index may lag behind, and never lies for long.

It is bounded, and forgets what nobody says again. It also knows when somebody had everything erased: whoever
notes a session is told, so that one which the index didn't know of in that moment is erased after all. And
it keeps when that was asked for while something is left, so that asking again means the same moment, and how
far the store was looked through for what is somebody's and isn't listed: that may take longer than whoever
asked for it waits, and than the node lasts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from unbroken.sessions.ids import PrincipalId, SessionId

__all__ = ["LISTED", "Asked", "Listed", "Search", "SessionIndex"]

LISTED: Final = 10_000
"""Sessions of one principal that are listed: of more, those that began last."""


class Listed(NamedTuple):
    """A session that there was when it was noted last."""

    session_id: SessionId
    at: int
    """When it began, in milliseconds since 1970."""


class Asked(Struct, frozen=True, kw_only=True):
    """That everything of somebody's is to be erased, and isn't yet. Times are milliseconds since 1970."""

    at: int
    """When that was asked for first: what had begun by then goes."""
    noted_at: int
    """When it was asked for last."""


class Search(Struct, frozen=True, kw_only=True):
    """How far a store was looked through for all that is somebody's. Times are milliseconds since 1970."""

    at: int
    """When it was begun: what had begun by then is looked for."""
    noted_at: int
    """When it was gone on with last."""
    place: str = ""
    """Where it goes on: see :class:`~unbroken.sessions.backends.walk.Stretch`."""
    looked_at: int = 0
    """How many sessions, anybody's, lie behind it."""
    is_whole: bool = True
    """Whether each of theirs could be read."""
    is_over: bool = False


class SessionIndex(Protocol):
    """Lists sessions by principals. Every method may raise StoreUnavailable; each may be repeated."""

    async def note(self, principal: PrincipalId, sessions: Mapping[SessionId, int]) -> int:
        """Have *sessions* listed, each with when it began, for as long as sessions last and a while longer.

        Return up to when everything of *principal*'s was erased, in milliseconds since 1970; 0: nothing was.
        """

    async def page(
        self,
        principal: PrincipalId,
        limit: int,
        *,
        after: SessionId | None = None,
        oldest_first: bool = False,
    ) -> list[Listed] | None:
        """Return up to *limit* sessions, those that began last first, or the oldest; behind *after*.

        None: *after* isn't listed.
        """

    async def count(self, principal: PrincipalId) -> int:
        """Return how many are listed: as many as may be says that there may be more."""

    async def admit(self, principal: PrincipalId, session_id: SessionId, at: int, most: int) -> int:
        """Have a session listed that is about to begin, unless *most* others are; return how many others are.

        It is one step: of any number that ask at once, on all nodes, no more than *most* are listed.
        """

    async def drop(self, principal: PrincipalId, session_ids: Collection[SessionId]) -> None:
        """List these no more. Harmless if they aren't."""

    async def note_erased(self, principal: PrincipalId, at: int) -> None:
        """Note that what of *principal*'s began by then is erased. What is listed stays so until dropped."""

    async def asked(self, principal: PrincipalId, *, is_thorough: bool) -> Asked | None:
        """Return what was noted last, in the last hour at least. None: nothing was, or it is over.

        What is asked for thoroughly, by an operator, is apart from what is not.
        """

    async def note_asked(self, principal: PrincipalId, asked: Asked | None, *, is_thorough: bool) -> None:
        """Note that something is left, in place of what was noted before; None: nothing is."""

    async def search(self, principal: PrincipalId) -> Search | None:
        """Return what was noted last, in the last hour at least. None: nothing was, or it is forgotten."""

    async def note_search(self, principal: PrincipalId, search: Search) -> None:
        """Note how far it is, in place of what was noted before."""
