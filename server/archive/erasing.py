"""How what is erased leaves the archive's database, however much it is, and doesn't come back.

First it is noted that it is erased, and that is there for good. Only then is it deleted, in transactions that
are short enough for any time-out: who is cut off in between has it done by asking again, and meanwhile
nothing is added to it. Each of them is alone, so that what was under way before the mark has ended, and no
two of them wait for each other's rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from msgspec import UNSET, structs

from unbroken.server.archive.base import NewTurn
from unbroken.server.archive.database import Database, Transaction, Value
from unbroken.server.archive.transcript import unsaid
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.finished import FinishedTurn, decode_turn, encode_turn
from unbroken.sessions.ids import PrincipalId, ResponseId, SessionId

__all__ = [
    "clear",
    "clear_answer",
    "clear_sessions",
    "mark_answer",
    "mark_principal",
    "mark_session",
    "unanswered",
    "unerased",
]

_AT_ONCE: Final = 1000
"""Rows that are deleted in one transaction."""

_LATE: Final = 8 * 86_400.0
"""Seconds after which no outbox holds a turn any more."""

_CLOCKS_APART: Final = 5.0
"""Seconds by which nodes may differ over when something was asked for. What is deleted stays so in the store
for much longer, so that no other session's turns are taken for its."""

_ERASED: Final = """
    INSERT INTO archive_erased (name, at) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET at = excluded.at WHERE excluded.at > archive_erased.at
"""

_KEYS: Final = {
    "archive_turns": "session_id, response_id",
    "archive_deliveries": "message_id, endpoint",
}


async def mark_principal(database: Database, principal: PrincipalId, at: float) -> None:
    """Have nothing of *principal* written any more that ended before *at*."""
    await _mark(database, f"principal {principal}", at)


async def mark_session(database: Database, session_id: SessionId, at: float) -> None:
    """Have nothing of a session written any more that was asked for until *at*, whenever it ends.

    Another may come to the same id later, if a client named it, and is archived.
    """
    await _mark(database, f"session {session_id}", at + _CLOCKS_APART)


async def _mark(database: Database, name: str, at: float) -> None:
    async with database.transaction(alone=True) as transaction:
        await transaction.execute("DELETE FROM archive_erased WHERE at < $1", at - _LATE)
        await transaction.execute(_ERASED, name, at)


async def mark_answer(database: Database, response_id: ResponseId, at: float) -> None:
    """Have nothing written any more of what a response said."""
    await _mark(database, f"answer {response_id}", at)


async def unerased(transaction: Transaction, new: NewTurn) -> NewTurn | None:
    """Return what of a turn wasn't erased before it came; None: all of it was."""
    turn = new.turn
    answer = f"answer {turn.response_id}"
    rows = await transaction.fetch(
        "SELECT name FROM archive_erased "
        "WHERE (name = $1 AND at > $2) OR (name = $3 AND at >= $4) OR name = $5",
        f"principal {new.principal}",
        turn.ended_at,
        f"session {turn.session_id}",
        float(turn.asked_at),
        answer,
    )
    if not rows:
        return new
    if any(name != answer for (name,) in rows):
        return None
    deliveries = [replace(each, body=unsaid(each.body, turn.response_id)) for each in new.deliveries]
    return replace(new, turn=unanswered(turn), deliveries=deliveries)


def unanswered(turn: FinishedTurn) -> FinishedTurn:
    """Return a turn without what was said in it, but for what its conversation still has."""
    given = turn.input if turn.in_conversation else ()
    return structs.replace(turn, input=given, output=(), metadata=None, notes=UNSET)


async def clear_answer(transaction: Transaction, session_id: SessionId, response_id: ResponseId) -> None:
    """Take out of the database what a response said."""
    named = (session_id, response_id)
    rows = await transaction.fetch(
        "SELECT turn FROM archive_turns WHERE session_id = $1 AND response_id = $2", *named
    )
    for (text,) in rows:
        try:
            left = encode_turn(unanswered(decode_turn(text.encode()))).decode()
        except UnknownFormat:  # a later release's: what of it was said, nobody here can tell
            await transaction.execute(
                "DELETE FROM archive_turns WHERE session_id = $1 AND response_id = $2", *named
            )
        else:
            await transaction.execute(
                "UPDATE archive_turns SET turn = $3 WHERE session_id = $1 AND response_id = $2", *named, left
            )
    for message_id, endpoint, body in await transaction.fetch(
        "SELECT message_id, endpoint, body FROM archive_deliveries WHERE session_id = $1 AND body LIKE $2",
        session_id,
        f'%"{response_id}"%',
    ):
        await transaction.execute(
            "UPDATE archive_deliveries SET body = $3 WHERE message_id = $1 AND endpoint = $2",
            message_id,
            endpoint,
            unsaid(body, response_id),
        )


async def clear(database: Database, table: str, where: str, *values: Value) -> int:
    """Delete what *where* says of *table*, and return how many rows that were."""
    keys, count, deleted = _KEYS[table], 0, _AT_ONCE
    while deleted == _AT_ONCE:
        async with database.transaction(alone=True) as transaction:
            # The number is in the text: PostgreSQL plans one that it doesn't know for a tenth of the table.
            deleted = await transaction.execute(
                f"DELETE FROM {table} WHERE ({keys}) IN "  # noqa: S608 - of parts from here
                f"(SELECT {keys} FROM {table} WHERE {where} LIMIT {_AT_ONCE})",
                *values,
            )
        count += deleted
    return count


async def clear_sessions(database: Database, principal: PrincipalId) -> None:
    """Delete the lines of *principal*'s sessions in which no turns are left."""
    last: tuple[Value, Value] | None = (-1.0, "")
    while last is not None:
        async with database.transaction(alone=True) as transaction:
            page = await transaction.fetch(
                "SELECT active_at, session_id FROM archive_sessions WHERE principal = $1 "  # noqa: S608
                f"AND (active_at, session_id) > ($2, $3) ORDER BY active_at, session_id LIMIT {_AT_ONCE}",
                principal,
                *last,
            )
            if page:
                await transaction.execute(
                    "DELETE FROM archive_sessions WHERE principal = $1 "
                    "AND (active_at, session_id) > ($2, $3) AND (active_at, session_id) <= ($4, $5) "
                    "AND NOT EXISTS "
                    "(SELECT 1 FROM archive_turns AS t WHERE t.session_id = archive_sessions.session_id)",
                    principal,
                    *last,
                    *page[-1],
                )
        last = (page[-1][0], page[-1][1]) if len(page) == _AT_ONCE else None
