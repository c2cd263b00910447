"""The archive's database in PostgreSQL: for several nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from unbroken.server.archive.base import ArchiveUnavailable, ArchiveUnusable
from unbroken.server.archive.database import Row, Value

__all__ = ["PostgresDatabase"]

_LOCKS: Final = 0x756E62726F6B
"""The first half of what is locked here: other applications may lock numbers in the same database."""

_ALL: Final = 0
"""What every transaction shares, and one that is alone has for itself."""

# By SQLSTATE: what another try may find mended. All else is a defect, or the operator's to mend at the start.
_PASSING: Final = ("08", "25", "28", "3D", "40", "53", "55", "57", "58")


class PostgresDatabase:
    """A :class:`~unbroken.server.archive.database.Database` in PostgreSQL.

    Args:
        url: Where it is. It may hold a password, and is never shown.
        connections: At once.
        patience: Seconds after which a statement, or waiting for a connection, is given up.

    """

    def __init__(self, url: str, *, connections: int = 4, patience: float = 5.0) -> None:
        self._url = url
        self._connections = connections
        self._patience = patience
        self._pool: Any = None

    async def open(self) -> None:
        """See :meth:`Database.open`."""
        try:
            pool = asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._connections,
                timeout=self._patience,
                command_timeout=self._patience,
                server_settings={"application_name": "unbroken"},
            )
            self._pool = await pool
            async with self.transaction() as transaction:
                await transaction.fetch("SELECT 1")
        except (
            ArchiveUnavailable,
            ValueError,
            OverflowError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
        ) as exc:
            await self.aclose()
            reason = str(exc) if isinstance(exc, ArchiveUnavailable) else "its address can't be understood"
            raise ArchiveUnusable(
                f"The archive's PostgreSQL can't be used: {reason}. "
                "Start it, or correct UNBROKEN_ARCHIVE_URL."
            ) from None

    async def aclose(self) -> None:
        """See :meth:`Database.aclose`."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(self._patience):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    @asynccontextmanager
    async def transaction(self, *, alone: bool = False) -> AsyncIterator[_PostgresTransaction]:
        """See :meth:`Database.transaction`."""
        if self._pool is None:
            raise ArchiveUnavailable("it is closed")
        lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        try:
            async with self._pool.acquire(timeout=self._patience) as connection, connection.transaction():
                await connection.execute(f"SELECT {lock}({_LOCKS + _ALL})")
                yield _PostgresTransaction(connection)
        except asyncpg.PostgresError as exc:
            if not (exc.sqlstate or "").startswith(_PASSING):
                raise
            raise ArchiveUnavailable(_reason(exc)) from None
        except (OSError, TimeoutError, asyncpg.InterfaceError) as exc:
            raise ArchiveUnavailable(_reason(exc)) from None

    async def scrub(self) -> None:
        """See :meth:`Database.scrub`. Its vacuum does that."""


class _PostgresTransaction:
    """See :class:`~unbroken.server.archive.database.Transaction`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def execute(self, sql: str, *values: Value) -> int:
        told: str = await self._connection.execute(sql, *values)
        last = told.rpartition(" ")[2]  # "INSERT 0 1"
        return int(last) if last.isdigit() else 0

    async def fetch(self, sql: str, *values: Value) -> list[Row]:
        return [tuple(row) for row in await self._connection.fetch(sql, *values)]

    async def claim(self, number: int) -> bool:
        ((is_ours,),) = await self.fetch(f"SELECT pg_try_advisory_xact_lock({_LOCKS + 1 + number})")
        return bool(is_ours)


def _reason(exc: Exception) -> str:
    """Return why it can't be used, in words of ours: the client's may quote an address."""
    match exc:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return "it refuses the user or the password"
        case asyncpg.InvalidCatalogNameError():
            return "there is no database of that name"
        case ConnectionRefusedError():
            return "nothing listens at its address"
        case TimeoutError():
            return "it doesn't answer in time"
        case OSError():
            return exc.strerror or "it can't be reached"
    return type(exc).__name__
