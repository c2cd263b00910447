"""What of a user's is erased: conversations, wherever they are, and however many.

Those that are listed go one after the other, and each leaves the list as soon as it is gone. Where the list
may not have all, the whole store is looked through. How far that is, is noted beside the list: whoever asks
again, on whichever node, has it gone on with there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from msgspec.structs import replace

from unbroken.server.auth.principal import Principal
from unbroken.server.erasing.base import Progress, Unerased
from unbroken.server.erasing.transcripts import Transcripts
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.index import LISTED, Search, SessionIndex
from unbroken.sessions.backends.walk import WalkThrough
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import LostTail, NodeDraining, SessionGone, StoreUnavailable, UnknownFormat
from unbroken.sessions.ids import PrincipalId, SessionId, belongs_to
from unbroken.sessions.looking import look_at
from unbroken.sessions.node import Node

__all__ = ["SessionEraser"]

_PAGE: Final = 100

_GONE_ON_WITH: Final = 3600_000
"""Milliseconds after which who asks again means another search than the one before, which wasn't over."""

_JUST_OVER: Final = 60_000
"""The same, where it was over: who asks that soon does so for something else that was left."""


class SessionEraser:
    """Erases conversations: logs, snapshots, names of inputs, and what is suspected of them.

    Args:
        nodes: Those of this process; the first has the sessions that are stored.
        store: Where these are.
        index: Where they are listed.
        walk: Looks through all that the store has.
        transcripts: What is archived of them.
        clock: Where time comes from.
        listed: How many the index lists of one user: there may be more.

    """

    what: Final = "conversations"
    """See :attr:`Eraser.what`."""

    def __init__(
        self,
        nodes: Sequence[Node],
        store: SessionStore,
        index: SessionIndex,
        walk: WalkThrough,
        transcripts: Transcripts,
        clock: Clock,
        *,
        listed: int = LISTED,
    ) -> None:
        self._nodes = tuple(nodes)
        self._store = store
        self._index = index
        self._walk = walk
        self._transcripts = transcripts
        self._clock = clock
        self._listed = listed

    async def erase(self, whose: Principal, at: int, progress: Progress, *, is_thorough: bool) -> None:
        """See :meth:`Eraser.erase`."""
        principal = whose.id
        try:
            # First: whatever isn't listed yet is found when it is to be.
            await self._index.note_erased(principal, at)
            # Before anything leaves the list: who asks again can't tell by it any more that there was more.
            search = await self._search(principal, at, is_thorough=is_thorough)
            await self._erase_here(principal, at, progress)
            await self._erase_listed(principal, at, progress)
            if search is not None:
                await self._erase_unlisted(principal, at, search, progress)
        except (StoreUnavailable, NodeDraining):
            raise Unerased from None

    async def _search(self, principal: PrincipalId, at: int, *, is_thorough: bool) -> Search | None:
        """Return how far the store was looked through by who asked before, or begin. None: it needn't be."""
        known = await self._index.search(principal)
        if known is not None and self._now() - known.noted_at > (
            _JUST_OVER if known.is_over else _GONE_ON_WITH
        ):
            known = None
        is_full = await self._index.count(principal) >= self._listed
        if known is not None and is_full and known.at < at:
            oldest = await self._index.page(principal, 1, oldest_first=True)
            if oldest and oldest[0].at > known.at:
                known = None  # what began since, and isn't listed any more, isn't looked for
        if known is None and (is_thorough or is_full):
            known = Search(at=at, noted_at=self._now())
            await self._index.note_search(principal, known)
        return None if known is None or known.is_over else known

    def _now(self) -> int:
        return int(1000 * self._clock.time())

    async def _erase_here(self, principal: PrincipalId, at: int, progress: Progress) -> None:
        """Erase what this process has, be it saved or not."""
        for node in self._nodes:
            for actor in node.hub:
                if actor.principal == principal and (actor.session.opened_at or 0) <= at:
                    await self._erase(node, actor.session.id)
                    await self._index.drop(principal, [actor.session.id])
                    progress.erased += 1

    async def _erase_listed(self, principal: PrincipalId, at: int, progress: Progress) -> None:
        while page := await self._index.page(principal, _PAGE, oldest_first=True):
            for session_id, began_at in page:
                if began_at > at:
                    return
                await self._erase(self._nodes[0], session_id)
                await self._index.drop(principal, [session_id])
                progress.erased += 1

    async def _erase_unlisted(
        self, principal: PrincipalId, at: int, search: Search, progress: Progress
    ) -> None:
        """Erase what the index doesn't know, or has lost; go on where *search* has got to."""
        progress.looked_at = search.looked_at
        async with aclosing(self._walk(search.place)) as stretches:
            async for session_ids, place in stretches:
                is_whole = search.is_whole
                for session_id in session_ids:
                    if belongs_to(session_id, principal):  # by its id: sure enough to look no further
                        is_whole &= await self._erase_found(principal, at, session_id, progress)
                looked_at = search.looked_at + len(session_ids)
                search = replace(
                    search, noted_at=self._now(), place=place, looked_at=looked_at, is_whole=is_whole
                )
                await self._index.note_search(principal, search)
                progress.looked_at = looked_at
                await asyncio.sleep(0)  # a store in memory keeps all others waiting meanwhile
        if search.is_whole:
            await self._index.note_search(principal, replace(search, noted_at=self._now(), is_over=True))
        else:  # what couldn't be read may be, next time
            await self._index.note_search(principal, Search(at=at, noted_at=self._now()))
            raise Unerased

    async def _erase_found(
        self, principal: PrincipalId, at: int, session_id: SessionId, progress: Progress
    ) -> bool:
        """Erase a session if it is *principal*'s. False: it can't be told for the moment."""
        try:
            session = await look_at(self._store, session_id, self._nodes[0].limits.session)
        except SessionGone:
            return True
        except (LostTail, UnknownFormat):
            return False
        if session.principal == principal and (session.opened_at or 0) <= at:
            await self._erase(self._nodes[0], session_id)
            progress.erased += 1
        return True

    async def _erase(self, node: Node, session_id: SessionId) -> None:
        # First: a session that is still there is found again.
        await self._transcripts.erase(session_id, is_told=False)
        await node.erase(session_id)
