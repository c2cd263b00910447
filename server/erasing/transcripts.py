"""What an archive has of a session, erased with it: for whoever deletes sessions, or responses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from unbroken.server.archive.base import ArchiveUnavailable
from unbroken.server.archive.records import Records
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import PrincipalId, SessionId, belongs_to

__all__ = ["Transcripts"]


class Transcripts:
    """What is archived of sessions. All calls may raise StoreUnavailable: it may still be there.

    Args:
        records: Of the archive. None: there is none, and nothing to erase.

    """

    def __init__(self, records: Records | None) -> None:
        self._records = records

    async def erase(self, session_id: SessionId) -> None:
        """Erase what there is of a session, and will be."""
        if self._records is not None:
            async with _reaching():
                await self._records.erase_session(session_id)

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


@asynccontextmanager
async def _reaching() -> AsyncIterator[None]:
    try:
        yield
    except ArchiveUnavailable:
        raise StoreUnavailable from None
