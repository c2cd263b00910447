"""The webhooks that wait in the archive's database, which outlives the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from unbroken.server.archive.base import Delivery, Due
from unbroken.server.archive.database import Database, Transaction, Value

__all__ = ["SqlQueue"]

# The condition is there twice: whoever waits for a row that another node has just taken looks at it again.
_TAKE: Final = """
    UPDATE archive_deliveries SET leased_until = $4
    WHERE (message_id, endpoint) IN (
      SELECT message_id, endpoint FROM archive_deliveries
      WHERE endpoint = $1 AND due_at <= $2 AND leased_until <= $2 ORDER BY due_at LIMIT $3
    ) AND leased_until <= $2
    RETURNING message_id, kind, body, tries, made_at, due_at
"""


class SqlQueue:
    """A :class:`~unbroken.server.archive.base.Queue` over a database. Its caller opens and closes that."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, endpoint: str, now: float, limit: int, *, until: float) -> list[Due]:
        """See :meth:`Queue.due`."""
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch(_TAKE, endpoint, now, limit, until)
        return [
            Due(Delivery(message_id, endpoint, kind, body), tries, made_at)
            for message_id, kind, body, tries, made_at, _ in sorted(rows, key=lambda row: row[5])
        ]

    async def sent(self, due: Due) -> None:
        """See :meth:`Queue.sent`."""
        async with self._database.transaction() as transaction:
            await transaction.execute(
                "DELETE FROM archive_deliveries WHERE message_id = $1 AND endpoint = $2",
                due.delivery.message_id,
                due.delivery.endpoint,
            )

    async def put_off(self, due: Due, at: float) -> None:
        """See :meth:`Queue.put_off`."""
        async with self._database.transaction() as transaction:
            await transaction.execute(
                "UPDATE archive_deliveries SET tries = $3, due_at = $4, leased_until = 0 "
                "WHERE message_id = $1 AND endpoint = $2",
                due.delivery.message_id,
                due.delivery.endpoint,
                due.tries + 1,
                at,
            )

    async def bury(self, due: Due, now: float) -> None:
        """See :meth:`Queue.bury`."""
        async with self._database.transaction() as transaction:
            await transaction.execute(
                "UPDATE archive_deliveries SET tries = $3, due_at = NULL, buried_at = $4 "
                "WHERE message_id = $1 AND endpoint = $2",
                due.delivery.message_id,
                due.delivery.endpoint,
                due.tries + 1,
                now,
            )

    async def forget(self, before: float, endpoints: Sequence[str], limit: int) -> int:
        """See :meth:`Queue.forget`. Each is found by an index, however many wait."""
        async with self._database.transaction() as transaction:
            count = await _forget(transaction, "buried_at < $1", limit, before)
            for endpoint in await _endpoints(transaction):
                if endpoint not in endpoints and count < limit:
                    old = ("endpoint = $2 AND made_at < $1", limit - count, before, endpoint)
                    count += await _forget(transaction, *old)
        return count

    async def waiting(self) -> Mapping[str, int]:
        """See :meth:`Queue.waiting`."""
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch(
                "SELECT endpoint, COUNT(*) FROM archive_deliveries WHERE due_at IS NOT NULL GROUP BY endpoint"
            )
        return {str(row[0]): int(row[1]) for row in rows}


async def _endpoints(transaction: Transaction) -> list[str]:
    """Return for whom webhooks wait, or were given up."""
    names: list[str] = []
    ((name,),) = await transaction.fetch("SELECT MIN(endpoint) FROM archive_deliveries")
    while name is not None:
        names.append(name)
        ((name,),) = await transaction.fetch(
            "SELECT MIN(endpoint) FROM archive_deliveries WHERE endpoint > $1", name
        )
    return names


async def _forget(transaction: Transaction, where: str, limit: int, *values: Value) -> int:
    # The limit is in the text: PostgreSQL plans one that it doesn't know for a tenth of the table.
    return await transaction.execute(
        "DELETE FROM archive_deliveries WHERE (message_id, endpoint) IN "  # noqa: S608 - of parts from here
        f"(SELECT message_id, endpoint FROM archive_deliveries WHERE {where} LIMIT {int(limit)})",
        *values,
    )
