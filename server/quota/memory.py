"""The quotas of one node, in its memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from unbroken.server.quota.base import Amount, Decision, Limits, Scope, Standing, UsageRecord
from unbroken.server.quota.book import Book
from unbroken.sessions.clock import Clock

__all__ = ["MemoryLedger"]

_TENANTS: Final = 10_000
"""Whoever was counted longest ago is forgotten for a new one."""


class MemoryLedger:
    """A :class:`~unbroken.server.quota.base.Ledger` that never suspends, and never fails."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._books: OrderedDict[str, Book] = OrderedDict()

    def _book(self, tenant: str) -> Book:
        book = self._books.get(tenant)
        if book is None:
            book = self._books[tenant] = Book()
            if len(self._books) > _TENANTS:
                self._books.popitem(last=False)
        self._books.move_to_end(tenant)
        return book

    def requested(self, tenant: str, turn: str) -> tuple[Scope, ...] | None:
        """Return for whom the request of a turn that was reserved here was counted. None: it wasn't."""
        book = self._books.get(tenant)
        return None if book is None else book.requested(turn)

    def knows(self, tenant: str, turn: str) -> bool:
        """Whether a turn was reserved here."""
        book = self._books.get(tenant)
        return book is not None and book.knows(turn)

    def part_of(self, tenant: str) -> str:  # noqa: ARG002 - there is but one
        """See :meth:`Ledger.part_of`."""
        return ""

    async def reserve(
        self,
        tenant: str,
        turn: str,
        scopes: Sequence[Scope],
        limits: Limits,
        amount: Amount,
        *,
        lifetime: float,
        enforce: bool = True,
    ) -> Decision:
        """See :meth:`Ledger.reserve`."""
        return self._book(tenant).reserve(
            turn, scopes, limits, amount, lifetime=lifetime, enforce=enforce, now=self._clock.monotonic()
        )

    async def hold(
        self,
        tenant: str,
        turn: str,
        scopes: Sequence[Scope],
        limits: Limits,
        amount: Amount,
        *,
        lifetime: float,
        enforce: bool = True,
        as_new: bool = False,
    ) -> Decision:
        """See :meth:`Ledger.hold`."""
        return self._book(tenant).hold(
            turn,
            scopes,
            limits,
            amount,
            lifetime=lifetime,
            enforce=enforce,
            as_new=as_new,
            now=self._clock.monotonic(),
        )

    async def keep(self, tenant: str, turn: str, *, lifetime: float) -> None:
        """See :meth:`Ledger.keep`."""
        self._book(tenant).keep(turn, lifetime=lifetime, now=self._clock.monotonic())

    async def settle(
        self, tenant: str, turn: str, scopes: Sequence[Scope], used: Amount, record: UsageRecord | None
    ) -> bool:
        """See :meth:`Ledger.settle`."""
        return self._book(tenant).settle(turn, scopes, used, record, now=self._clock.monotonic())

    async def release(self, tenant: str, turn: str) -> None:
        """See :meth:`Ledger.release`."""
        self._book(tenant).release(turn, now=self._clock.monotonic())

    async def look(self, tenant: str, scopes: Sequence[Scope]) -> list[Mapping[str, int]]:
        """See :meth:`Ledger.look`."""
        return self._books.get(tenant, Book()).look(scopes, now=self._clock.monotonic())

    async def standings(self, tenant: str, scopes: Sequence[Scope], limits: Limits) -> tuple[Standing, ...]:
        """See :meth:`Ledger.standings`."""
        return self._books.get(tenant, Book()).standings(scopes, limits, now=self._clock.monotonic())

    async def records(self, tenant: str, most: int, user: str | None = None) -> list[UsageRecord]:
        """See :meth:`Ledger.records`."""
        book = self._books.get(tenant, Book())
        return list(islice(reversed(book.entries if user is None else book.entries_of(user)), most))

    async def aclose(self) -> None:
        """See :meth:`Ledger.aclose`."""
