"""The index of sessions in this process's memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Final

from unbroken.sessions.backends.index import LISTED, Asked, Listed, Search
from unbroken.sessions.ids import PrincipalId, SessionId

__all__ = ["MemoryIndex"]

_SEARCHES: Final = 1000
"""People for whom the store was looked through, and of whom something is still to be erased. Of more, those
of whom that was longest ago are forgotten.
"""

_MOST: Final = 100_000
"""Sessions that are listed in all, and people who had everything erased: some 20 MB. Of more, those of
whoever noted one longest ago are forgotten.
"""


class MemoryIndex:
    """A :class:`~unbroken.sessions.backends.index.SessionIndex` in memory. No call ever suspends.

    Args:
        listed: Sessions of one principal that are listed.
        most: Of all.

    """

    def __init__(self, *, listed: int = LISTED, most: int = _MOST) -> None:
        self._listed = listed
        self._most = most
        self._sessions: OrderedDict[PrincipalId, dict[SessionId, int]] = OrderedDict()
        self._erased: OrderedDict[PrincipalId, int] = OrderedDict()
        self._asked: OrderedDict[tuple[PrincipalId, bool], Asked] = OrderedDict()
        self._searches: OrderedDict[PrincipalId, Search] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    async def note(self, principal: PrincipalId, sessions: Mapping[SessionId, int]) -> int:
        """See :meth:`SessionIndex.note`."""
        known = self._sessions.setdefault(principal, {})
        self._sessions.move_to_end(principal)
        self._count -= len(known)
        for session_id, at in sessions.items():
            known.setdefault(session_id, at)
        while len(known) > self._listed:
            del known[next(iter(known))]  # what was noted first, which is what began first
        self._count += len(known)
        while self._count > self._most and len(self._sessions) > 1:
            self._count -= len(self._sessions.popitem(last=False)[1])
        return self._erased.get(principal, 0)

    async def page(
        self,
        principal: PrincipalId,
        limit: int,
        *,
        after: SessionId | None = None,
        oldest_first: bool = False,
    ) -> list[Listed] | None:
        """See :meth:`SessionIndex.page`."""
        ordered = self._ordered(self._sessions.get(principal, {}))
        if oldest_first:
            ordered.reverse()
        if after is None:
            return ordered[:limit]
        place = next((place for place, each in enumerate(ordered, 1) if each.session_id == after), None)
        return None if place is None else ordered[place : place + limit]

    @staticmethod
    def _ordered(known: Mapping[SessionId, int]) -> list[Listed]:
        ordered = sorted(known.items(), key=lambda each: (each[1], each[0]), reverse=True)
        return [Listed(*each) for each in ordered]

    async def count(self, principal: PrincipalId) -> int:
        """See :meth:`SessionIndex.count`."""
        return len(self._sessions.get(principal, {}))

    async def admit(self, principal: PrincipalId, session_id: SessionId, at: int, most: int) -> int:
        """See :meth:`SessionIndex.admit`."""
        known = self._sessions.get(principal, {})
        others = len(known) - (session_id in known)
        if others < most:
            await self.note(principal, {session_id: at})
        return others

    async def drop(self, principal: PrincipalId, session_ids: Collection[SessionId]) -> None:
        """See :meth:`SessionIndex.drop`."""
        known = self._sessions.get(principal, {})
        for session_id in session_ids:
            self._count -= known.pop(session_id, None) is not None
        if not known:
            self._sessions.pop(principal, None)

    async def note_erased(self, principal: PrincipalId, at: int) -> None:
        """See :meth:`SessionIndex.note_erased`."""
        self._erased[principal] = max(at, self._erased.get(principal, 0))
        self._erased.move_to_end(principal)
        if len(self._erased) > self._most:
            self._erased.popitem(last=False)

    async def asked(self, principal: PrincipalId, *, is_thorough: bool) -> Asked | None:
        """See :meth:`SessionIndex.asked`."""
        return self._asked.get((principal, is_thorough))

    async def note_asked(self, principal: PrincipalId, asked: Asked | None, *, is_thorough: bool) -> None:
        """See :meth:`SessionIndex.note_asked`."""
        self._asked.pop((principal, is_thorough), None)
        if asked is not None:
            self._asked[principal, is_thorough] = asked
        if len(self._asked) > _SEARCHES:
            self._asked.popitem(last=False)

    async def search(self, principal: PrincipalId) -> Search | None:
        """See :meth:`SessionIndex.search`."""
        return self._searches.get(principal)

    async def note_search(self, principal: PrincipalId, search: Search) -> None:
        """See :meth:`SessionIndex.note_search`."""
        self._searches[principal] = search
        self._searches.move_to_end(principal)
        if len(self._searches) > _SEARCHES:
            self._searches.popitem(last=False)
