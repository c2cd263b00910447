"""An archive's database that tells what was asked of it, and fails where it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from unbroken.server.archive.base import ArchiveUnavailable
from unbroken.server.archive.database import Database, Row, Transaction, Value

__all__ = ["WatchedDatabase"]


class WatchedDatabase:
    """Another database, watched. Fault verbs: :attr:`fails_at`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.asked: list[tuple[str, tuple[Value, ...]]] = []
        self.transactions = 0
        self.fails_at: str | None = None
        """What a statement begins with that isn't done in time."""
        self.passes = 0
        """How many of those are done before."""

    async def open(self) -> None:
        await self._database.open()

    async def aclose(self) -> None:
        await self._database.aclose()

    async def scrub(self) -> None:
        await self._database.scrub()

    @asynccontextmanager
    async def transaction(self, *, alone: bool = False) -> AsyncIterator[Transaction]:
        self.transactions += 1
        async with self._database.transaction(alone=alone) as transaction:
            yield _Watched(self, transaction)

    def note(self, sql: str, values: tuple[Value, ...]) -> None:
        self.asked.append((sql, values))
        if self.fails_at is not None and sql.startswith(self.fails_at):
            self.passes -= 1
            if self.passes < 0:
                raise ArchiveUnavailable("it doesn't answer in time")

    async def scans(self) -> list[str]:
        """Return what was asked for which SQLite goes through a whole table."""
        found: list[str] = []
        async with self._database.transaction() as transaction:
            for sql, values in self.asked:
                if sql.startswith(("SELECT", "UPDATE", "DELETE")):
                    plan = await transaction.fetch(f"EXPLAIN QUERY PLAN {sql}", *values)
                    found += [sql for *_, step in plan if step.startswith("SCAN")]
        return found


class _Watched:
    def __init__(self, database: WatchedDatabase, transaction: Transaction) -> None:
        self._database = database
        self._transaction = transaction

    async def execute(self, sql: str, *values: Value) -> int:
        self._database.note(sql, values)
        return await self._transaction.execute(sql, *values)

    async def fetch(self, sql: str, *values: Value) -> list[Row]:
        self._database.note(sql, values)
        return await self._transaction.fetch(sql, *values)

    async def claim(self, number: int) -> bool:
        return await self._transaction.claim(number)
