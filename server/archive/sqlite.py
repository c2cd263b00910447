"""The archive's database as a file of SQLite: for one node. What touches it runs in one thread of its own."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from unbroken.server.archive.base import ArchiveUnavailable, ArchiveUnusable
from unbroken.server.archive.database import Row, Value

__all__ = ["SqliteDatabase"]

_T = TypeVar("_T")
_Run: TypeAlias = Callable[[str, tuple[Value, ...]], Awaitable[tuple[list[Row], int]]]

_OLDEST: Final = (3, 35, 0)
"""The first that returns what a statement has changed."""


class SqliteDatabase:
    """A :class:`~unbroken.server.archive.database.Database` in a file.

    Args:
        path: Of the file. It is made when needed, readable for its owner alone.
        patience: Seconds that a transaction waits for its turn, and for other processes.

    """

    def __init__(self, path: Path, *, patience: float = 5.0) -> None:
        self._path = path
        self._patience = patience
        self._turn = asyncio.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """See :meth:`Database.open`."""
        if sqlite3.sqlite_version_info < _OLDEST:
            raise ArchiveUnusable(
                f"The archive needs SQLite 3.35, and Python has {sqlite3.sqlite_version}. "
                "Use a newer Python, or PostgreSQL in UNBROKEN_ARCHIVE_URL."
            )
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="archive")
        try:
            self._connection = await self._do(self._connected)
        except (OSError, sqlite3.Error) as exc:
            self._threads.shutdown()
            self._threads = None
            raise ArchiveUnusable(
                f"The archive's file {self._path} can't be used ({_reason(exc)}). Give the server a folder "
                "that it may write to, or correct UNBROKEN_ARCHIVE_URL."
            ) from None

    def _connected(self) -> sqlite3.Connection:
        # SQLite would make it readable for others.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(
            self._path, timeout=self._patience, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    async def aclose(self) -> None:
        """See :meth:`Database.aclose`."""
        connection, self._connection = self._connection, None
        threads, self._threads = self._threads, None
        if connection is not None and threads is not None:
            await asyncio.get_running_loop().run_in_executor(threads, connection.close)
            threads.shutdown()

    @asynccontextmanager
    async def transaction(self, *, alone: bool = False) -> AsyncIterator[_SqliteTransaction]:
        """See :meth:`Database.transaction`."""
        del alone  # it always is
        try:
            async with asyncio.timeout(self._patience):
                await self._turn.acquire()
        except TimeoutError:
            raise ArchiveUnavailable("too much waits for it") from None
        try:
            try:
                await self._run("BEGIN IMMEDIATE", ())
                yield _SqliteTransaction(self._run)
                await self._run("COMMIT", ())
            except BaseException:
                # Also where COMMIT failed: the next one begins anew. It is the thread's next job in any case.
                await self._do(self._rolled_back)
                raise
        finally:
            self._turn.release()

    async def scrub(self) -> None:
        """See :meth:`Database.scrub`. Where another process reads meanwhile, it is the next call's to do."""
        try:
            async with asyncio.timeout(self._patience):
                await self._turn.acquire()
        except TimeoutError:
            return
        try:
            await self._reached(self._do(self._scrubbed))
        finally:
            self._turn.release()

    def _scrubbed(self) -> None:
        """Empty the log of writes: freed pages are overwritten, and it still has them as they were.

        Nobody is waited for: whoever reads, in another process, may do so for long.
        """
        if (connection := self._connection) is None:
            raise ArchiveUnavailable("it is closed")
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(1000 * self._patience)}")

    def _rolled_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.rollback()

    async def _run(self, sql: str, values: tuple[Value, ...]) -> tuple[list[Row], int]:
        connection = self._connection
        if connection is None:
            raise ArchiveUnavailable("it is closed")
        return await self._reached(self._do(partial(_executed, connection, sql, values)))

    @staticmethod
    async def _reached(doing: Awaitable[_T]) -> _T:
        try:
            return await doing
        except sqlite3.DatabaseError as exc:
            if type(exc) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise  # a defect of ours
            raise ArchiveUnavailable(_reason(exc)) from None

    async def _do(self, work: Callable[[], _T]) -> _T:
        """Do *work* in the thread. Who is cut off waits for it: what follows there relies on its end."""
        if self._threads is None:
            raise ArchiveUnavailable("it is closed")
        doing = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait((doing,))
            if not doing.cancelled():
                doing.exception()  # nobody is told of it any more
            raise


class _SqliteTransaction:
    """See :class:`~unbroken.server.archive.database.Transaction`."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    async def execute(self, sql: str, *values: Value) -> int:
        _, changed = await self._run(sql, values)
        return changed

    async def fetch(self, sql: str, *values: Value) -> list[Row]:
        rows, _ = await self._run(sql, values)
        return rows

    async def claim(self, number: int) -> bool:  # noqa: ARG002 - a transaction that writes is the only one
        return True


def _executed(connection: sqlite3.Connection, sql: str, values: tuple[Value, ...]) -> tuple[list[Row], int]:
    cursor = connection.execute(_named(sql), {f"p{number}": each for number, each in enumerate(values, 1)})
    rows = cursor.fetchall()
    return rows, max(cursor.rowcount, 0)


@lru_cache(64)
def _named(sql: str) -> str:
    """Return *sql* with names for its parameters: SQLite knows none by number that Python fills in."""
    return re.sub(r"\$(\d+)", r":p\1", sql)


def _reason(exc: Exception) -> str:
    return exc.strerror or type(exc).__name__ if isinstance(exc, OSError) else str(exc)
