"""``/v1/archive/sessions``: what was said, of whoever asks, also when the sessions are gone."""

from __future__ import annotations

from typing import Any, Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.archive.base import Archive, ArchiveUnavailable, Owned
from unbroken.server.archive.transcript import content_fields, session_fields, turn_fields
from unbroken.server.auth.principal import REALTIME
from unbroken.server.protocols.conversation_names import session_named
from unbroken.server.resume import ResumeTokens
from unbroken.server.transports.http_way import Endpoint, HttpRefusal, HttpWay, Visit, found, json_response
from unbroken.server.transports.query import check_query
from unbroken.sessions.errors import SessionNotFound
from unbroken.sessions.finished import FinishedTurn
from unbroken.sessions.ids import PrincipalId, SessionId, belongs_to, session_of

__all__ = ["ArchiveDoor"]

_USUAL: Final = 20
_MOST: Final = 100

_AT_ONCE: Final = 10
_MOST_BYTES: Final = 4 << 20
"""Of what was said, after which a page ends, whatever its limit."""

_FIELDS: Final = ("after", "limit", "resume", "ticket")


class ArchiveDoor:
    """Serves what is archived to those whose it is."""

    def __init__(self, way: HttpWay, archive: Archive, tokens: ResumeTokens) -> None:
        self._way = way
        self._archive = archive
        self._tokens = tokens

    def routes(self) -> list[Route]:
        """Return its routes."""
        return [
            Route("/v1/archive/sessions", Endpoint(self._serve_sessions)),
            Route("/v1/archive/sessions/{session_id}", Endpoint(self._serve_session)),
        ]

    async def _serve_sessions(self, request: Request, send: Send) -> None:
        await self._way.serve(request, send, self._sessions, _refusal_of)

    async def _serve_session(self, request: Request, send: Send) -> None:
        await self._way.serve(request, send, self._session, _refusal_of)

    async def _sessions(self, visit: Visit) -> Response:
        principal, alone = await self._asker(visit)
        query = visit.request.query_params
        check_query(query, _FIELDS)
        limit, after = _limit(query), query.get("after")
        if alone is not None:  # whoever came for one session is shown no other
            only = await self._archive.session(alone, principal)
            return _page([] if only is None else [session_fields(only)], limit)
        named = None if after is None else SessionId(after)
        if named is not None and not belongs_to(named, principal):
            return _page([], limit)  # no id, or another's: some databases don't even take it as text
        rows = await self._archive.sessions(Owned(principal=principal), limit + 1, after=named)
        return _page([session_fields(each) for each in rows], limit)

    async def _session(self, visit: Visit) -> Response:
        principal, alone = await self._asker(visit)
        query = visit.request.query_params
        check_query(query, _FIELDS)
        limit = _limit(query)
        named: str = visit.request.path_params["session_id"]
        session_id = session_named(named)
        if not belongs_to(session_id, principal) or alone not in (None, session_id):
            raise SessionNotFound
        session = await self._archive.session(session_id, principal)
        if session is None:
            raise SessionNotFound
        turns, has_more = await self._turns(session_id, limit, query.get("after"))
        page = _fields([turn_fields(turn) | content_fields(turn) for turn in turns], limit)
        page["has_more"] = has_more
        return json_response({**page, "session": session_fields(session)})

    async def _turns(
        self, session_id: SessionId, limit: int, after: str | None
    ) -> tuple[list[FinishedTurn], bool]:
        """Return turns behind *after*, and whether there are more: some may be as long as a session."""
        if after is not None and session_of(after) is None:
            return [], False
        turns: list[FinishedTurn] = []
        size = 0
        while len(turns) < limit and size < _MOST_BYTES:
            some = await self._archive.turns(session_id, min(_AT_ONCE, limit - len(turns)), after=after)
            if not some:
                return turns, False
            turns += some
            after = some[-1].response_id
            size += sum(item.size for turn in some for item in (*turn.input, *turn.output))
        return turns, bool(await self._archive.turns(session_id, 1, after=after))

    async def _asker(self, visit: Visit) -> tuple[PrincipalId, SessionId | None]:
        """Return who asks, and for which session alone they are here; None: for any."""
        principal = (await self._way.admit(visit, REALTIME)).principal.id
        found(("GET",), visit.method)
        resume = visit.handshake.credentials.resume
        if resume is None:
            return principal, None
        known = self._tokens.check(resume, principal)
        if known is None:
            raise SessionNotFound
        return principal, known[0]


def _refusal_of(exc: Exception) -> HttpRefusal | None:
    if isinstance(exc, SessionNotFound):
        message = (
            "The archive has no such session: nothing was said in it, it was removed, or it isn't yours."
        )
        return HttpRefusal(404, "session_not_found", message)
    if isinstance(exc, ArchiveUnavailable):
        message = "The archive can't be reached for the moment. Try again soon."
        return HttpRefusal(503, "archive_unavailable", message)
    return None


def _limit(query: QueryParams) -> int:
    given = query.get("limit", str(_USUAL))
    if not (given.isascii() and given.isdigit() and len(given) < 4 and 1 <= int(given) <= _MOST):
        raise HttpRefusal(400, "invalid_request", f"`limit` is a number from 1 to {_MOST}.", "limit")
    return int(given)


def _fields(rows: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    page = rows[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(rows) > limit,
    }


def _page(rows: list[dict[str, Any]], limit: int) -> Response:
    return json_response(_fields(rows, limit))
