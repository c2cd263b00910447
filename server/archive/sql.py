"""The archive over a database: what is guaranteed is the interface's, and the same SQL does it for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from unbroken.server.archive.base import AnnounceEnd, ArchivedSession, Delivery, NewTurn, Owned
from unbroken.server.archive.database import Database, Row, Transaction, Value
from unbroken.server.archive.erasing import (
    clear,
    clear_answer,
    clear_sessions,
    mark_answer,
    mark_principal,
    mark_session,
    unerased,
)
from unbroken.server.archive.migrating import migrate
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.finished import FinishedTurn, decode_turn, encode_turn
from unbroken.sessions.ids import PrincipalId, ResponseId, SessionId

__all__ = ["SqlArchive"]

_EXPIRING: Final = 1
"""What one node at a time claims."""

_COLUMNS: Final = """
    s.session_id, s.principal, s.tenant, s.user_name, s.model, s.began_at, s.active_at, s.ended_at,
    (SELECT COUNT(*) FROM archive_turns AS t WHERE t.session_id = s.session_id)
"""

_SESSION: Final = """
    INSERT INTO archive_sessions
      (session_id, principal, tenant, user_name, model, began_at, active_at, check_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (session_id) DO UPDATE SET
      model = CASE WHEN excluded.active_at >= archive_sessions.active_at
        THEN excluded.model ELSE archive_sessions.model END,
      began_at = CASE WHEN excluded.began_at < archive_sessions.began_at
        THEN excluded.began_at ELSE archive_sessions.began_at END,
      active_at = CASE WHEN excluded.active_at > archive_sessions.active_at
        THEN excluded.active_at ELSE archive_sessions.active_at END,
      check_at = CASE WHEN archive_sessions.ended_at >= excluded.active_at
        THEN NULL ELSE excluded.check_at END,
      ended_at = CASE WHEN archive_sessions.ended_at >= excluded.active_at
        THEN archive_sessions.ended_at END
"""
"""One that had ended, and in which a turn has ended since, goes on."""

_TURN: Final = """
    INSERT INTO archive_turns (session_id, response_id, principal, plan, place, ended_at, turn)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
"""

_DELIVERY: Final = """
    INSERT INTO archive_deliveries
      (message_id, endpoint, kind, session_id, principal, body, tries, made_at, due_at, leased_until)
    VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $7, 0) ON CONFLICT DO NOTHING
"""


class SqlArchive:
    """An :class:`~unbroken.server.archive.base.Archive` over a database. The caller opens and closes that."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """Get the database ready.

        Raises:
            ArchiveUnusable: It can't be used.
            ArchiveUnavailable: Its tables can't be had for the moment.

        """
        await self._database.open()
        await migrate(self._database)

    async def aclose(self) -> None:
        """Let go of the database."""
        await self._database.aclose()

    async def write(self, turns: Sequence[NewTurn], at: float) -> int:
        """See :meth:`Archive.write`."""
        count = 0
        async with self._database.transaction() as transaction:
            for new in turns:
                count += await _write(transaction, new, at)
        return count

    async def sessions(
        self, owned: Owned, limit: int, *, after: SessionId | None = None
    ) -> list[ArchivedSession]:
        """See :meth:`Archive.sessions`."""
        given = (("principal", owned.principal), ("tenant", owned.tenant), ("user_name", owned.user))
        whose = [(column, value) for column, value in given if value is not None]
        values: list[Value] = [value for _, value in whose]
        wanted = [f"s.{column} = ${number}" for number, (column, _) in enumerate(whose, 2)]
        async with self._database.transaction() as transaction:
            if after is not None:
                found = await transaction.fetch(
                    "SELECT s.active_at FROM archive_sessions AS s "  # noqa: S608 - of parts from here
                    f"WHERE {' AND '.join(['s.session_id = $1', *wanted])}",
                    after,
                    *values,
                )
                if not found:
                    return []
                values += (found[0][0], after)
                wanted.append(f"(s.active_at, s.session_id) < (${len(values)}, ${len(values) + 1})")
            where = f"WHERE {' AND '.join(wanted)}" if wanted else ""
            rows = await transaction.fetch(
                f"SELECT {_COLUMNS} FROM archive_sessions AS s {where} "  # noqa: S608 - of parts from here
                "ORDER BY s.active_at DESC, s.session_id DESC LIMIT $1",
                limit,
                *values,
            )
        return [_session(row) for row in rows]

    async def session(
        self, session_id: SessionId, principal: PrincipalId | None = None
    ) -> ArchivedSession | None:
        """See :meth:`Archive.session`."""
        async with self._database.transaction() as transaction:
            found = await _found(transaction, session_id)
        return found if found is not None and principal in (None, found.principal) else None

    async def turns(
        self, session_id: SessionId, limit: int, *, after: str | None = None
    ) -> list[FinishedTurn]:
        """See :meth:`Archive.turns`. What a later release wrote, and this one can't read, is left out."""
        async with self._database.transaction() as transaction:
            place, name = -1, ""
            if after is not None:
                found = await transaction.fetch(
                    "SELECT place FROM archive_turns WHERE session_id = $1 AND response_id = $2",
                    session_id,
                    after,
                )
                if not found:
                    return []
                place, name = found[0][0], after
            rows = await transaction.fetch(
                "SELECT turn FROM archive_turns WHERE session_id = $1 AND (place, response_id) > ($2, $3) "
                "ORDER BY place, response_id LIMIT $4",
                session_id,
                place,
                name,
                limit,
            )
        return _readable(rows)

    async def turn(
        self, session_id: SessionId, response_id: ResponseId, principal: PrincipalId
    ) -> FinishedTurn | None:
        """See :meth:`Archive.turn`. What this release can't read is as what isn't there."""
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch(
                "SELECT turn FROM archive_turns "
                "WHERE session_id = $1 AND response_id = $2 AND principal = $3",
                session_id,
                response_id,
                principal,
            )
        return next(iter(_readable(rows)), None)

    async def erase(self, principal: PrincipalId, at: float) -> int:
        """See :meth:`Archive.erase`."""
        await mark_principal(self._database, principal, at)
        whose = (principal, at)
        count = await clear(self._database, "archive_turns", "principal = $1 AND ended_at < $2", *whose)
        await clear(self._database, "archive_deliveries", "principal = $1 AND made_at < $2", *whose)
        await clear_sessions(self._database, principal)
        await self._database.scrub()
        return count

    async def erase_session(
        self, session_id: SessionId, at: float, announce: AnnounceEnd | None = None
    ) -> int:
        """See :meth:`Archive.erase_session`."""
        await mark_session(self._database, session_id, at)
        whole = None if announce is None else await self.session(session_id)
        count = await clear(self._database, "archive_turns", "session_id = $1", session_id)
        await clear(self._database, "archive_deliveries", "session_id = $1", session_id)
        # What is told of it is queued when its line goes: whoever was cut off before that does both again.
        async with self._database.transaction(alone=True) as transaction:
            session = await _found(transaction, session_id)
            await transaction.execute("DELETE FROM archive_sessions WHERE session_id = $1", session_id)
            if announce is not None and session is not None and session.ended_at is None:
                told = announce(whole or session, at)
                await _queue(transaction, told, session_id, session.principal, at)
        await self._database.scrub()
        return count

    async def erase_answer(self, session_id: SessionId, response_id: ResponseId, at: float) -> None:
        """See :meth:`Archive.erase_answer`."""
        await mark_answer(self._database, response_id, at)
        async with self._database.transaction(alone=True) as transaction:
            await clear_answer(transaction, session_id, response_id)
        await self._database.scrub()

    async def expire(self, cutoffs: Mapping[str, float | None], limit: int, *, default: float | None) -> int:
        """See :meth:`Archive.expire`."""
        async with self._database.transaction() as transaction:
            if not await transaction.claim(_EXPIRING):
                return 0
            touched: list[str] = []
            for plan in await _plans(transaction):
                cutoff = cutoffs.get(plan, default)
                if cutoff is not None and len(touched) < limit:
                    touched += await _expire(transaction, plan, cutoff, limit - len(touched))
            await _drop_ended(transaction, sorted(set(touched)))
        # Also where nothing has expired: another process may have kept an erasure from being scrubbed.
        await self._database.scrub()
        return len(touched)

    async def unchecked(self, now: float, limit: int) -> list[ArchivedSession]:
        """See :meth:`Archive.unchecked`."""
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch(
                f"SELECT {_COLUMNS} FROM archive_sessions AS s "  # noqa: S608 - of parts from here
                "WHERE s.check_at <= $1 ORDER BY s.check_at LIMIT $2",
                now,
                limit,
            )
        return [_session(row) for row in rows]

    async def still_there(self, session_ids: Sequence[SessionId], check_at: float) -> None:
        """See :meth:`Archive.still_there`."""
        async with self._database.transaction() as transaction:
            for session_id in session_ids:
                await transaction.execute(
                    "UPDATE archive_sessions SET check_at = $2 "
                    "WHERE session_id = $1 AND check_at IS NOT NULL",
                    session_id,
                    check_at,
                )

    async def ended(self, session: ArchivedSession, at: float, deliveries: Sequence[Delivery]) -> bool:
        """See :meth:`Archive.ended`."""
        async with self._database.transaction() as transaction:
            changed = await transaction.execute(
                "UPDATE archive_sessions SET ended_at = $2, check_at = NULL "
                "WHERE session_id = $1 AND ended_at IS NULL AND active_at = $3",
                session.id,
                at,
                session.active_at,
            )
            if changed:
                await _queue(transaction, deliveries, session.id, session.principal, at)
                await _drop_ended(transaction, [session.id])  # its turns may have been forgotten before
        return bool(changed)


async def _write(transaction: Transaction, new: NewTurn, at: float) -> int:
    left = await unerased(transaction, new)
    if left is None:
        return 0
    new, turn, principal = left, left.turn, left.principal
    if new.is_kept:
        is_new = await transaction.execute(
            _TURN,
            turn.session_id,
            turn.response_id,
            principal,
            new.plan,
            turn.place,
            turn.ended_at,
            encode_turn(turn).decode(),
        )
        if not is_new:
            return 0  # what is to be sent of it was queued with it
        began_at = float(turn.asked_at or turn.ended_at)
        whose = (principal, new.tenant, new.user)
        await transaction.execute(
            _SESSION, turn.session_id, *whose, turn.model, began_at, turn.ended_at, new.check_at
        )
    await _queue(transaction, new.deliveries, turn.session_id, principal, at)
    return 1


async def _queue(
    transaction: Transaction,
    deliveries: Sequence[Delivery],
    session_id: SessionId,
    principal: PrincipalId,
    at: float,
) -> None:
    for each in deliveries:
        whose = (session_id, principal)
        await transaction.execute(_DELIVERY, each.message_id, each.endpoint, each.kind, *whose, each.body, at)


async def _found(transaction: Transaction, session_id: SessionId) -> ArchivedSession | None:
    rows = await transaction.fetch(
        f"SELECT {_COLUMNS} FROM archive_sessions AS s WHERE s.session_id = $1",  # noqa: S608 - of parts from here
        session_id,
    )
    return _session(rows[0]) if rows else None


async def _plans(transaction: Transaction) -> list[str]:
    """Return the plans that there are turns of: each is found by the index, however many turns there are."""
    plans: list[str] = []
    ((plan,),) = await transaction.fetch("SELECT MIN(plan) FROM archive_turns")
    while plan is not None:
        plans.append(plan)
        ((plan,),) = await transaction.fetch("SELECT MIN(plan) FROM archive_turns WHERE plan > $1", plan)
    return plans


async def _expire(transaction: Transaction, plan: str, cutoff: float, limit: int) -> list[str]:
    """Delete turns, and return for each of them which session it was in."""
    # The limit is in the text: PostgreSQL plans one that it doesn't know for a tenth of the table.
    rows = await transaction.fetch(
        "DELETE FROM archive_turns WHERE (session_id, response_id) IN (SELECT session_id, response_id "  # noqa: S608
        f"FROM archive_turns WHERE plan = $1 AND ended_at < $2 ORDER BY ended_at LIMIT {int(limit)}) "
        "RETURNING session_id",
        plan,
        cutoff,
    )
    return [session_id for (session_id,) in rows]


async def _drop_ended(transaction: Transaction, session_ids: Sequence[str]) -> None:
    """Delete the lines of those sessions that have ended, and of which nothing is left.

    It is asked of few, when one of the two has come true, and never of all that there are.
    """
    if session_ids:
        these = ", ".join(f"${number}" for number in range(1, 1 + len(session_ids)))
        await transaction.execute(
            f"DELETE FROM archive_sessions WHERE session_id IN ({these}) AND ended_at IS NOT NULL AND "  # noqa: S608
            "NOT EXISTS (SELECT 1 FROM archive_turns AS t WHERE t.session_id = archive_sessions.session_id)",
            *session_ids,
        )


def _readable(rows: Sequence[Row]) -> list[FinishedTurn]:
    turns: list[FinishedTurn] = []
    for (text,) in rows:
        with suppress(UnknownFormat):
            turns.append(decode_turn(text.encode()))
    return turns


def _session(row: Row) -> ArchivedSession:
    session_id, principal, tenant, user, model, began_at, active_at, ended_at, turns = row
    return ArchivedSession(
        id=SessionId(session_id),
        principal=PrincipalId(principal),
        tenant=tenant,
        user=user,
        model=model,
        began_at=began_at,
        active_at=active_at,
        ended_at=ended_at,
        turns=turns,
    )
