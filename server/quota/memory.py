"""The quotas of one node, in its memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from unbroken.server.quota.base import Amount, Decision, Limits, Scope, Standing, UsageRecord
from unbroken.server.quota.book import Book
from unbroken.server.quota.records import Records
from unbroken.sessions.clock import Clock

__all__ = ["MemoryLedger"]

_TENANTS: Final = 10_000
"""Whoever was counted longest ago is forgotten for a new one."""


class MemoryLedger:
    """A :class:`~unbroken.server.quota.base.Ledger` that never suspends, and never fails."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._books: OrderedDict[str, Book] = OrderedDict()
        self._round: OrderedDict[str, None] = OrderedDict()  # whose book is tidied next
        self._records = Records()

    @property
    def tenants(self) -> int:
        """How many something is known of."""
        return len(self._books)

    def _book(self, tenant: str) -> Book:
        self._tidy()
        book = self._books.get(tenant)
        if book is None:
            book = self._books[tenant] = Book()
            self._round[tenant] = None
            if len(self._books) > _TENANTS:
                gone, _ = self._books.popitem(last=False)
                del self._round[gone]
        self._books.move_to_end(tenant)
        return book

    def _tidy(self) -> None:
        """Forget what is too old, of one tenant after the other: those who don't come any more, too."""
        now = self._clock.monotonic()
        self._records.reap(now)
        if self._round:
            tenant, _ = self._round.popitem(last=False)
            if self._books[tenant].tidy(now):
                del self._books[tenant]
            else:
                self._round[tenant] = None

    def requested(self, tenant: str, turn: str) -> tuple[Scope, ...] | None:
        """Return for whom the request of a turn that was reserved here was counted. None: it wasn't."""
        book = self._books.get(tenant)
        return None if book is None else book.requested(turn)

    def knows(self, tenant: str, turn: str) -> bool:
        """Whether a turn was reserved here."""
        self._tidy()
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
        now = self._clock.monotonic()
        is_first = self._book(tenant).settle(turn, scopes, used, now=now)
        if is_first and record is not None:
            self._records.note(tenant, record, now=now)
        return is_first

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
        self._records.reap(self._clock.monotonic())
        return self._records.latest(tenant, most, user)

    async def aclose(self) -> None:
        """See :meth:`Ledger.aclose`."""
