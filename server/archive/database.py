"""What the archive needs of a database: transactions of plain SQL that SQLite and PostgreSQL both understand.

Parameters are ``$1``, ``$2`` and so on. Values are text, numbers and None.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

__all__ = ["Database", "Row", "Transaction", "Value"]

Value: TypeAlias = str | int | float | None
Row: TypeAlias = tuple[Any, ...]


class Transaction(Protocol):
    """One transaction, while it lasts."""

    async def execute(self, sql: str, *values: Value) -> int:
        """Run one statement, and return how many rows it has changed."""

    async def fetch(self, sql: str, *values: Value) -> list[Row]:
        """Run one statement, and return its rows."""

    async def claim(self, number: int) -> bool:
        """Return whether no other transaction, of any node, has claimed *number*; it has to its end then."""


class Database(Protocol):
    """A database. Each call may raise :class:`~unbroken.server.archive.base.ArchiveUnavailable`."""

    async def open(self) -> None:
        """Get ready.

        Raises:
            ArchiveUnusable: It can't be used: one line, with the fix.

        """

    async def aclose(self) -> None:
        """Let go of it. Harmless if it isn't open."""

    def transaction(self, *, alone: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """Return a context in which all is done, or nothing if it is left by an exception.

        *alone*: no other one of any node is under way meanwhile.
        """

    async def scrub(self) -> None:
        """Leave nothing on disk of what has been deleted, as far as that is the database's to do."""
