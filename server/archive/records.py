"""What is kept of a user, as a whole: to be handed out, and to be erased. For doors that do so everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

from unbroken.server.archive.base import AnnounceEnd, Archive
from unbroken.server.archive.erasing import unanswered
from unbroken.server.auth.principal import Principal
from unbroken.sessions.clock import Clock
from unbroken.sessions.finished import FinishedTurn
from unbroken.sessions.ids import PrincipalId, ResponseId, SessionId, session_of

__all__ = ["Records"]

_AT_ONCE: Final = 20


def _nothing() -> None:
    pass


class Records:
    """All that an archive has of somebody.

    All calls may raise :class:`~unbroken.server.archive.base.ArchiveUnavailable`: what was to be erased may
    be gone, or not, and is asked for again.

    Args:
        archive: The archive.
        clock: Where time comes from.
        announce: Says who is to be told that a session has ended. None: nobody is.
        on_announced: Called when somebody may be to be told.

    """

    def __init__(
        self,
        archive: Archive,
        clock: Clock,
        announce: AnnounceEnd | None = None,
        on_announced: Callable[[], None] = _nothing,
    ) -> None:
        self._archive = archive
        self._on_announced = on_announced
        self._announce = announce
        self._clock = clock

    async def read(self, session_id: SessionId, principal: PrincipalId) -> AsyncIterator[FinishedTurn]:
        """Yield the turns of a session in order, a few at a time; none, if it isn't *principal*'s."""
        if await self._archive.session(session_id, principal) is None:
            return
        after: str | None = None
        while turns := await self._archive.turns(session_id, _AT_ONCE, after=after):
            for turn in turns:
                yield turn
            after = turns[-1].response_id

    async def has(self, session_id: SessionId, principal: PrincipalId) -> bool:
        """Return whether there is anything of *principal*'s in a session."""
        return await self._archive.session(session_id, principal) is not None

    async def erase(self, tenant: str, user: str) -> int:
        """Forget what a user was told until now, and return how many turns that were.

        A turn that runs still ends later, and stays: stop it first.
        """
        return await self._archive.erase(Principal(user, tenant).id, self._clock.time())

    async def erase_session(self, session_id: SessionId, *, is_told: bool = True) -> int:
        """Forget a session, with what still runs in it, and return how many turns that were.

        *is_told*: whoever wants to know of sessions that end is told of this one, too.
        """
        announce = self._announce if is_told else None
        count = await self._archive.erase_session(session_id, self._clock.time(), announce)
        if is_told:
            self._on_announced()
        return count

    async def answer(self, response_id: ResponseId, principal: PrincipalId) -> FinishedTurn | None:
        """Return the turn of a response that says something. None: there is none, or it is another's."""
        session_id = session_of(response_id)
        turn = None if session_id is None else await self._archive.turn(session_id, response_id, principal)
        return None if turn is None or turn == unanswered(turn) else turn

    async def erase_answer(self, response_id: ResponseId) -> None:
        """Forget what a response said: see :meth:`Archive.erase_answer`."""
        if (session_id := session_of(response_id)) is not None:
            await self._archive.erase_answer(session_id, response_id, self._clock.time())
