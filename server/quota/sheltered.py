"""A ledger that goes on while the shared one is out of reach: on this node alone, as caps do.

Each node then grants as if it were the only one; so with N nodes a limit may be
exceeded up to N times over, for as long as it lasts. What was granted here is
settled here, and is never told to the others. What could not be settled there is
kept, within bounds, and settled when it is back; what doesn't fit is counted as lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeVar

import structlog

from unbroken.server.quota.base import Amount, Decision, Ledger, Limits, Scope, UsageRecord
from unbroken.server.quota.memory import MemoryLedger
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["ShelteredLedger"]

_T = TypeVar("_T")

_RETRY: Final = 5.0
"""Seconds for which a shared ledger that has failed isn't asked again: nobody's turn waits for it."""

_UNSETTLED: Final = 10_000
"""Turns that wait to be settled."""


class ShelteredLedger:
    """A :class:`~unbroken.server.quota.base.Ledger` that fails only where nothing may be made up: in looking.

    Args:
        shared: What all nodes share.
        clock: Where time comes from.
        on_alone: Told of each turn that was granted by this node's count alone.

    """

    def __init__(self, shared: Ledger, clock: Clock, on_alone: Callable[[], None]) -> None:
        self._shared = shared
        self._local = MemoryLedger(clock)
        self._clock = clock
        self._on_alone = on_alone
        self._retry_at: float | None = None
        self._unsettled: deque[tuple[str, str, Sequence[Scope], Amount, UsageRecord | None]] = deque(
            maxlen=_UNSETTLED
        )

    @property
    def is_alone(self) -> bool:
        """Whether the shared one failed when it was last asked."""
        return self._retry_at is not None

    @property
    def unsettled(self) -> int:
        """How many turns wait to be settled."""
        return len(self._unsettled)

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
        return await self._either(
            lambda ledger: ledger.reserve(
                tenant, turn, scopes, limits, amount, lifetime=lifetime, enforce=enforce
            )
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
    ) -> Decision:
        """See :meth:`Ledger.hold`."""

        def hold(ledger: Ledger) -> Awaitable[Decision]:
            return ledger.hold(tenant, turn, scopes, limits, amount, lifetime=lifetime, enforce=enforce)

        return await hold(self._local) if self._local.knows(tenant, turn) else await self._either(hold)

    async def settle(
        self, tenant: str, turn: str, scopes: Sequence[Scope], used: Amount, record: UsageRecord | None
    ) -> bool:
        """See :meth:`Ledger.settle`. True also where it is yet to be done."""
        if self._local.knows(tenant, turn):
            return await self._local.settle(tenant, turn, scopes, used, record)
        try:
            return await self._ask(lambda ledger: ledger.settle(tenant, turn, scopes, used, record))
        except StoreUnavailable:
            if len(self._unsettled) == _UNSETTLED:
                structlog.get_logger().error("usage lost", hint="Redis has been out of reach for too long.")
            self._unsettled.append((tenant, turn, scopes, used, record))
            return True

    async def release(self, tenant: str, turn: str) -> None:
        """See :meth:`Ledger.release`. What can't be given back now lapses."""
        if self._local.knows(tenant, turn):
            await self._local.release(tenant, turn)
            return
        with suppress(StoreUnavailable):
            await self._ask(lambda ledger: ledger.release(tenant, turn))

    async def look(self, tenant: str, scopes: Sequence[Scope]) -> list[Mapping[str, int]]:
        """See :meth:`Ledger.look`."""
        return await self._ask(lambda ledger: ledger.look(tenant, scopes))

    async def records(self, tenant: str, most: int, user: str | None = None) -> list[UsageRecord]:
        """See :meth:`Ledger.records`."""
        return await self._ask(lambda ledger: ledger.records(tenant, most, user))

    async def _either(self, act: Callable[[Ledger], Awaitable[_T]]) -> _T:
        try:
            return await self._ask(act)
        except StoreUnavailable:
            self._on_alone()
            return await act(self._local)

    async def _ask(self, act: Callable[[Ledger], Awaitable[_T]]) -> _T:
        if self._retry_at is not None and self._clock.monotonic() < self._retry_at:
            raise StoreUnavailable("out of reach a moment ago")
        try:
            answer = await act(self._shared)
        except StoreUnavailable as exc:
            if self._retry_at is None:
                structlog.get_logger().warning("quotas hold on this node alone", reason=str(exc))
            self._retry_at = self._clock.monotonic() + _RETRY
            raise
        if self._retry_at is not None:
            self._retry_at = None
            structlog.get_logger().info("quotas hold on all nodes again")
        await self._make_up()
        return answer

    async def _make_up(self) -> None:
        """Settle what could not be. Each is settled once, however often it is tried."""
        while self._unsettled:
            unsettled = self._unsettled.popleft()
            try:
                await self._shared.settle(*unsettled)
            except StoreUnavailable:
                self._unsettled.appendleft(unsettled)
                return
