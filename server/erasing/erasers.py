"""What of a user's is erased: conversations, archived turns, files, and answers that were kept.

Of what else there is the rule is another (docs/conversations.md): usage is kept for as long as it is for
everybody, as their tenant's bills are made of it, and holds nothing that was said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from unbroken.server.archive.base import Archive, ArchiveUnavailable
from unbroken.server.archive.records import Records
from unbroken.server.auth.principal import Principal
from unbroken.server.cache.base import CacheUnavailable
from unbroken.server.cache.stage import CacheStage
from unbroken.server.erasing.base import Unerased
from unbroken.server.files.base import FileNotFound, FileStore, FilesUnavailable
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.index import LISTED, SessionIndex
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import LostTail, NodeDraining, SessionGone, StoreUnavailable, UnknownFormat
from unbroken.sessions.ids import PrincipalId, SessionId, belongs_to
from unbroken.sessions.looking import look_at
from unbroken.sessions.node import Node

__all__ = ["AnswerEraser", "ArchiveEraser", "FileEraser", "Forget", "SessionEraser", "forgetting"]

Forget: TypeAlias = Callable[[SessionId], Awaitable[None]]
"""Has what is kept elsewhere of a session be erased. Raises StoreUnavailable: it may still be there."""


def forgetting(records: Records | None) -> Forget | None:
    """Return what has an archive's records of a session be erased. None: there is no archive."""
    if records is None:
        return None

    async def forget(session_id: SessionId) -> None:
        try:
            await records.erase_session(session_id)
        except ArchiveUnavailable:
            raise StoreUnavailable from None

    return forget


_PAGE: Final = 100

_BETWEEN: Final = 60.0
"""Seconds after which a user may have answers forgotten again that were kept for their tenant."""

_TENANTS: Final = 1000
"""Tenants of which it is known when that was last."""


class SessionEraser:
    """Erases conversations: logs, snapshots, names of inputs, and what is suspected of them.

    Args:
        nodes: Those of this process; the first has the sessions that are stored.
        store: Where these are.
        index: Where they are listed.
        walk: Yields the ids of all that the store has.
        forget: Erases what is kept elsewhere of each. None: nothing is.
        listed: How many the index lists of one user: there may be more.

    """

    what: Final = "conversations"
    """See :attr:`Eraser.what`."""

    def __init__(
        self,
        nodes: Sequence[Node],
        store: SessionStore,
        index: SessionIndex,
        walk: Callable[[], AsyncIterator[SessionId]],
        *,
        forget: Forget | None = None,
        listed: int = LISTED,
    ) -> None:
        self._nodes = tuple(nodes)
        self._store = store
        self._index = index
        self._walk = walk
        self._listed = listed
        self._forget = forget

    async def erase(self, whose: Principal, at: int, *, is_thorough: bool) -> int:
        """See :meth:`Eraser.erase`."""
        try:
            # First: whatever isn't listed yet is found when it is to be.
            await self._index.note_erased(whose.id, at)
            is_all_listed = await self._index.count(whose.id) < self._listed
            count = await self._erase_here(whose.id, at) + await self._erase_listed(whose.id, at)
            if is_thorough or not is_all_listed:
                count += await self._erase_unlisted(whose.id, at)
        except (StoreUnavailable, NodeDraining):
            raise Unerased from None
        return count

    async def _erase_here(self, principal: PrincipalId, at: int) -> int:
        """Erase what this process has, be it saved or not."""
        count = 0
        for node in self._nodes:
            for actor in node.hub:
                if actor.principal == principal and (actor.session.opened_at or 0) <= at:
                    await self._erase(node, actor.session.id)
                    await self._index.drop(principal, [actor.session.id])
                    count += 1
        return count

    async def _erase_listed(self, principal: PrincipalId, at: int) -> int:
        count = 0
        while page := await self._index.page(principal, _PAGE, oldest_first=True):
            due = [each.session_id for each in page if each.at <= at]
            for session_id in due:
                await self._erase(self._nodes[0], session_id)
            await self._index.drop(principal, due)
            count += len(due)
            if len(due) < len(page):
                break
        return count

    async def _erase_unlisted(self, principal: PrincipalId, at: int) -> int:
        """Erase what the index doesn't know, or has lost."""
        count, is_whole = 0, True
        async for session_id in self._walk():
            if not belongs_to(session_id, principal):  # by its id, which is sure enough to look no further
                continue
            try:
                session = await look_at(self._store, session_id, self._nodes[0].limits.session)
            except SessionGone:
                continue
            except (LostTail, UnknownFormat):
                is_whole = False
                continue
            if session.principal == principal and (session.opened_at or 0) <= at:
                await self._erase(self._nodes[0], session_id)
                count += 1
        if not is_whole:
            raise Unerased
        return count

    async def _erase(self, node: Node, session_id: SessionId) -> None:
        if self._forget is not None:  # first: a session that is still there is found again
            await self._forget(session_id)
        await node.erase(session_id)


class ArchiveEraser:
    """Erases finished turns that were archived, also of sessions that are long gone.

    Args:
        archive: Has them.

    """

    what: Final = "archived_turns"
    """See :attr:`Eraser.what`."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def erase(self, whose: Principal, at: int, *, is_thorough: bool) -> int:  # noqa: ARG002
        """See :meth:`Eraser.erase`."""
        try:
            return await self._archive.erase(whose.id, at / 1000)
        except ArchiveUnavailable:
            raise Unerased from None


class FileEraser:
    """Erases files that this node keeps.

    Args:
        files: Where they are.

    """

    what: Final = "files"
    """See :attr:`Eraser.what`."""

    def __init__(self, files: FileStore) -> None:
        self._files = files

    async def erase(self, whose: Principal, at: int, *, is_thorough: bool) -> int:  # noqa: ARG002
        """See :meth:`Eraser.erase`."""
        count = 0
        try:
            for file in await self._files.of(whose.id):
                if 1000 * file.created_at <= at:
                    try:
                        await self._files.delete(file.id, whose.id)
                    except FileNotFound:
                        continue  # it has just expired
                    count += 1
        except FilesUnavailable:
            raise Unerased from None
        return count


class AnswerEraser:
    """Has the answers be forgotten that were kept for the user's tenant: nobody knows who asked first.

    Once a minute, where a user asks: else each could have all others go without answers that were kept. Who
    asks sooner is told that something is left.

    Args:
        cache: Has them.
        clock: Where time comes from.

    """

    what: Final = "kept_answers"
    """See :attr:`Eraser.what`."""

    def __init__(self, cache: CacheStage, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._forgotten: dict[str, float] = {}  # of each tenant, when; the latest last

    async def erase(self, whose: Principal, at: int, *, is_thorough: bool) -> int:  # noqa: ARG002
        """See :meth:`Eraser.erase`. How many they were isn't known: 1."""
        now, tenant = self._clock.monotonic(), whose.tenant
        if not is_thorough and now - self._forgotten.get(tenant, -_BETWEEN) < _BETWEEN:
            raise Unerased
        try:
            await self._cache.forget(tenant)
        except CacheUnavailable:
            raise Unerased from None
        self._forgotten.pop(tenant, None)
        self._forgotten[tenant] = now
        if len(self._forgotten) > _TENANTS:
            del self._forgotten[next(iter(self._forgotten))]
        return 1
