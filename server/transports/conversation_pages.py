"""All conversations that somebody has, page by page: as a list shows them, or as they stand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Generic, NamedTuple, TypeVar

from unbroken.server.auth.base import Grant
from unbroken.server.protocols.items import DecodeError
from unbroken.server.transports.beginning import Speaker
from unbroken.server.transports.exchange import soon
from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.index import Listed, SessionIndex
from unbroken.sessions.errors import LostTail, SessionGone, StoreUnavailable, UnknownFormat
from unbroken.sessions.ids import PrincipalId, SessionId, belongs_to
from unbroken.sessions.looking import look_at
from unbroken.sessions.node import Node
from unbroken.sessions.session import Session

__all__ = ["ConversationPages", "ConversationRow", "check_own"]

_LOOKS: Final = 4
"""How often a page of the index is read for one that is shown, as what is listed there may have gone. While
there is nothing to show it goes on, for as long as such a request may take: what has gone is dropped.
"""

_LISTED: Final = 100
"""Sessions on a page of the index, or as many more as are shown."""

_AT_ONCE: Final = 16
"""Sessions of which it is read together what is noted of them."""

_PAGE_BYTES: Final = 512 * 1024
"""What may be shown on one page: it ends with the conversation that goes beyond."""

_OWN_KEY: Final = "This key is good for some conversations only. Use the user's own."


class ConversationRow(NamedTuple):
    """What a list shows of a conversation."""

    session_id: SessionId
    at: int
    """When it began, in milliseconds since 1970."""
    metadata: Mapping[str, str]

    @property
    def size(self) -> int:
        """Characters that are noted of it."""
        return sum(len(name) + len(value) for name, value in self.metadata.items())


_Shown = TypeVar("_Shown", ConversationRow, Session)


class _Seen(NamedTuple, Generic[_Shown]):
    """What has been found of a session that is listed."""

    session_id: SessionId
    shown: _Shown | None
    is_gone: bool
    """Else, where there is nothing to show, a later release has written it."""


_Look = Callable[[PrincipalId, Sequence[Listed]], AsyncGenerator[_Seen[_Shown], None]]


class ConversationPages:
    """Those of all speakers.

    Args:
        node: Has those that are in use here.
        store: Where they are.
        index: Where they are listed.

    """

    def __init__(self, *, node: Node, store: SessionStore, index: SessionIndex) -> None:
        self._node = node
        self._store = store
        self._index = index

    async def rows(
        self, speaker: Speaker, limit: int, *, after: SessionId | None, oldest_first: bool
    ) -> tuple[list[ConversationRow], bool] | None:
        """Return up to *limit* conversations behind *after*, and whether there are more; None: *after* isn't.

        Those that aren't stored are in no list, nor are those in which nothing was said yet. What was said in
        them isn't read.

        Raises:
            DecodeError: The key is good for some only.
            SessionError: They can't be had now.

        """
        async with soon():
            return await self._page(
                speaker, limit, self._rows, lambda row: row.size, after=after, oldest_first=oldest_first
            )

    async def whole(
        self, speaker: Speaker, limit: int, *, after: SessionId | None
    ) -> tuple[list[Session], bool] | None:
        """As :meth:`rows`, the latest first, as they stand: with all that was said in them."""
        async with soon():
            return await self._page(
                speaker,
                limit,
                self._sessions,
                lambda session: session.conversation_bytes,
                after=after,
                oldest_first=False,
            )

    async def _page(
        self,
        speaker: Speaker,
        limit: int,
        look: _Look[_Shown],
        size_of: Callable[[_Shown], int],
        *,
        after: SessionId | None,
        oldest_first: bool,
    ) -> tuple[list[_Shown], bool] | None:
        check_own(speaker.grant, speaker.resume)
        principal, found, room = speaker.principal, list[_Shown](), _PAGE_BYTES
        looks, most = 0, max(limit, _LISTED) + 1
        kept: list[SessionId] = []
        first = after
        while looks < _LOOKS or not found:
            looks += 1
            await asyncio.sleep(0)  # an index in memory is never waited for
            page = await self._index.page(principal, most, after=after, oldest_first=oldest_first)
            if page is None and after != first:  # another request has dropped what this one goes on behind
                if found:
                    break
                after = first
                continue
            if page is None:
                return None
            gone, kept = kept, []
            async with aclosing(look(principal, page)) as looking:
                async for seen in looking:
                    after = seen.session_id
                    if seen.shown is not None:
                        found.append(seen.shown)
                        room -= size_of(seen.shown)
                    elif seen.is_gone:
                        gone.append(seen.session_id)
                    if len(found) == limit or room <= 0:
                        break
            is_full = len(found) == limit or room <= 0
            is_over = is_full or len(page) < most
            if after in gone and not is_over:
                gone.remove(after)  # until what follows it has been asked for, by its name
                kept = [after]
            has_more = not is_over or (bool(page) and await self._is_followed(principal, after, oldest_first))
            await self._index.drop(principal, gone)
            if is_over:
                return found, has_more
        return found, True

    async def _is_followed(self, principal: PrincipalId, last: SessionId | None, oldest_first: bool) -> bool:
        """Return whether anything is listed behind *last*."""
        return bool(await self._index.page(principal, 1, after=last, oldest_first=oldest_first))

    async def _rows(
        self, principal: PrincipalId, listed: Sequence[Listed]
    ) -> AsyncGenerator[_Seen[ConversationRow], None]:
        for first in range(0, len(listed), _AT_ONCE):
            some = listed[first : first + _AT_ONCE]
            noted = await self._store.metadata([each.session_id for each in some])
            for (session_id, at), metadata in zip(some, noted, strict=True):
                if metadata is None and (actor := self._here(session_id)) is not None:
                    metadata = actor.session.config.metadata or {}  # the store has lost it, for the moment
                if metadata is None or not belongs_to(session_id, principal):
                    yield _Seen[ConversationRow](session_id, None, is_gone=True)
                else:
                    yield _Seen(session_id, ConversationRow(session_id, at, metadata), is_gone=False)

    async def _sessions(
        self, principal: PrincipalId, listed: Sequence[Listed]
    ) -> AsyncGenerator[_Seen[Session], None]:
        for session_id, _ in listed:
            try:
                session = await self._look(principal, session_id)
            except UnknownFormat:  # it is there, and for others to tell of
                yield _Seen[Session](session_id, None, is_gone=False)
            else:
                yield _Seen(session_id, session, is_gone=session is None)

    def _here(self, session_id: SessionId) -> Actor | None:
        actor = self._node.hub.get(session_id)
        return None if actor is None or actor.feed.ended is not None or not actor.is_opened else actor

    async def _look(self, principal: PrincipalId, session_id: SessionId) -> Session | None:
        """Return how a conversation stands; None: it has gone.

        Raises:
            UnknownFormat: A later release has written it.
            StoreUnavailable: It can't be looked up for the moment.

        """
        if (actor := self._here(session_id)) is not None:
            return actor.session if actor.principal == principal else None
        if not belongs_to(session_id, principal):
            return None
        try:
            session = await look_at(self._store, session_id, self._node.limits.session)
        except SessionGone:
            return None
        except LostTail:
            raise StoreUnavailable from None
        return session if session.principal == principal else None


def check_own(grant: Grant, resume: str | None) -> None:
    """Refuse what concerns all of somebody's to a key that is good for less.

    Raises:
        DecodeError: It is.

    """
    if grant.pins is not None or resume is not None:
        raise DecodeError("session_pinned", _OWN_KEY)
