"""``unbroken transcripts``: reads what was said from the archive, page by page.

::

    Exception
    +-- TranscriptsFailed    it can't be read: one line, with what to do
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

import orjson

from unbroken.server.archive.base import ArchivedSession, ArchiveUnavailable, Owned
from unbroken.server.archive.sql import SqlArchive
from unbroken.server.archive.transcript import content_fields, turn_fields
from unbroken.server.archive_selection import open_archive
from unbroken.server.config import Settings, StartupError
from unbroken.sessions.ids import SessionId

__all__ = ["TranscriptsFailed", "exported", "listed"]

_PAGE: Final = 100


class TranscriptsFailed(Exception):
    """It can't be read."""


def listed(settings: Settings, tenant: str | None, user: str | None, limit: int) -> Iterator[str]:
    """Yield a line for each of so many sessions, the latest first.

    Raises:
        TranscriptsFailed: They can't be read.

    """

    async def lines(archive: SqlArchive) -> AsyncIterator[str]:
        left = limit
        async for session in _sessions(archive, Owned(tenant=tenant, user=user)):
            if not left:
                return
            left -= 1
            whose = f"{session.tenant or '-'}  {session.user or '-'}"
            ended = "ended" if session.ended_at is not None else "open"
            yield f"{session.id}  {_moment(session.active_at)}  {whose}  {session.turns} turns  {ended}"

    return _run(settings, lines)


def exported(
    settings: Settings, session_id: str | None, tenant: str | None, user: str | None
) -> Iterator[str]:
    """Yield the turns of one session, or of all of whom is named, as JSON.

    Raises:
        TranscriptsFailed: They can't be read.

    """

    async def lines(archive: SqlArchive) -> AsyncIterator[str]:
        if session_id is not None:
            only = await archive.session(SessionId(session_id))
            if only is None:
                raise TranscriptsFailed(f"The archive has no session {session_id[:64]}.")
            async for line in _turns(archive, only):
                yield line
            return
        async for session in _sessions(archive, Owned(tenant=tenant, user=user)):
            async for line in _turns(archive, session):
                yield line

    return _run(settings, lines)


async def _sessions(archive: SqlArchive, owned: Owned) -> AsyncIterator[ArchivedSession]:
    after: SessionId | None = None
    while page := await archive.sessions(owned, _PAGE, after=after):
        for session in page:
            yield session
        after = page[-1].id


async def _turns(archive: SqlArchive, session: ArchivedSession) -> AsyncIterator[str]:
    after: str | None = None
    while page := await archive.turns(session.id, _PAGE, after=after):
        for turn in page:
            whose = {"tenant": session.tenant, "user": session.user}
            yield orjson.dumps(turn_fields(turn) | whose | content_fields(turn)).decode()
        after = page[-1].response_id


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


@asynccontextmanager
async def _archive(settings: Settings) -> AsyncIterator[SqlArchive]:
    archive = await open_archive(settings)
    try:
        yield archive
    finally:
        await archive.aclose()


def _run(settings: Settings, lines: Callable[[SqlArchive], AsyncIterator[str]]) -> Iterator[str]:
    """Yield what *lines* does, one at a time: an archive may be larger than memory."""
    with asyncio.Runner() as runner:
        opened = _archive(settings)
        try:
            archive = runner.run(opened.__aenter__())
            try:
                each = lines(archive)
                while (line := runner.run(_next(each))) is not None:
                    yield line
            finally:
                runner.run(opened.__aexit__(None, None, None))
        except (StartupError, ArchiveUnavailable) as exc:
            raise TranscriptsFailed(str(exc)) from None


async def _next(lines: AsyncIterator[str]) -> str | None:
    return await anext(lines, None)
