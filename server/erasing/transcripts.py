"""What an archive has of a session, erased with it: for whoever deletes sessions, or responses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from unbroken.server.archive.base import ArchiveUnavailable
from unbroken.server.archive.records import Records
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import ItemId, PrincipalId, ResponseId, SessionId, belongs_to, session_of

__all__ = ["Transcripts"]


class Transcripts:
    """What is archived of sessions. All calls may raise StoreUnavailable: it may still be there.

    Args:
        records: Of the archive. None: there is none, and nothing to erase.

    """

    def __init__(self, records: Records | None) -> None:
        self._records = records

    async def erase(self, session_id: SessionId, *, is_told: bool = True) -> None:
        """Erase what there is of a session, and will be. Webhooks tell of it unless it isn't to be told."""
        if self._records is not None:
            async with _reaching():
                await self._records.erase_session(session_id, is_told=is_told)

    async def erase_own(self, session_id: SessionId, principal: PrincipalId) -> bool:
        """Erase likewise what *principal* has said in a session. False: the archive has none of theirs.

        It may be long gone from the store.
        """
        if self._records is None or not belongs_to(session_id, principal):
            return False  # another's: the archive isn't even asked, as for one that nobody has
        async with _reaching():
            if not await self._records.has(session_id, principal):
                return False
            await self._records.erase_session(session_id)
        return True

    async def erase_answer(self, response_id: ResponseId) -> None:
        """Erase what there is, and will be, of what a response said."""
        if self._records is not None:
            async with _reaching():
                await self._records.erase_answer(response_id)

    async def output(self, response_id: ResponseId, principal: PrincipalId) -> tuple[ItemId, ...] | None:
        """Return the ids of what a response said to *principal*. None: the archive has no such thing.

        Its session may be long gone from the store, or have forgotten it.
        """
        session_id = session_of(response_id)
        if self._records is None or session_id is None or not belongs_to(session_id, principal):
            return None
        async with _reaching():
            turn = await self._records.answer(response_id, principal)
        return None if turn is None else tuple(each.id for each in turn.output)


@asynccontextmanager
async def _reaching() -> AsyncIterator[None]:
    try:
        yield
    except ArchiveUnavailable:
        raise StoreUnavailable from None
