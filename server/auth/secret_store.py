"""Where short-lived keys and tickets are until they are used, and after: the interface, and one in memory.

::

    Exception
    +-- SecretsFull     there are as many as this node holds
        +-- PoolFull    there are as many as one user, one API key, one address, or all strangers may have
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Final, Protocol

from msgspec.structs import replace

from unbroken.server.auth.pins import Pins
from unbroken.server.auth.secret_pools import Account, SecretBounds, SecretRecord, Weight, weight_of
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import SessionId

__all__ = [
    "Held",
    "MemorySecretStore",
    "PoolFull",
    "SecretStore",
    "SecretsFull",
]

_LAPSES: Final = 250
"""That are forgotten with each new one: a few milliseconds at the most. Those beyond count until the next."""


class SecretsFull(Exception):
    """There are as many short-lived keys as this node holds."""

    def __str__(self) -> str:
        return "There are as many short-lived keys as the server holds. Try again in a moment."


class PoolFull(SecretsFull):
    """There are as many short-lived keys of *whose* as may be: a user, an API key, an address, strangers."""

    def __init__(self, whose: str) -> None:
        super().__init__(whose)
        self.whose = whose

    def __str__(self) -> str:
        return (
            f"There are as many short-lived keys of {self.whose} as may be. One that was used counts for as "
            "long as its session may be come back to with it. Try again later."
        )


@dataclass(frozen=True, slots=True)
class Held:
    """A short-lived key, as it stands."""

    record: SecretRecord
    uses: int
    """How often it may still be used."""
    sessions: frozenset[str]
    """Those that it was used for."""


class SecretStore(Protocol):
    """Keeps short-lived keys by their digests.

    Guarantee: of those who use a key's last use, on whatever nodes, exactly one is told that they have; also
    where the answer to another was lost. One that was used is known for as long as was said then: there are
    no new ones rather than that it be forgotten for them. Everything goes by itself, in time.

    Raises:
        StoreUnavailable: From each of the calls: it can't be reached. What was asked for may have happened.

    """

    async def put(self, digest: str, record: SecretRecord, *, uses: int, lifetime: float) -> None:
        """Keep a key that may be used *uses* times within *lifetime* seconds.

        Raises:
            PoolFull: There are as many, or as large ones, as one of its pools may have.
            SecretsFull: There are as many as may be at all.

        """

    async def look(self, digest: str) -> Held | None:
        """Return a key as it stands, which one that has been used does for as long as was said then."""

    async def spend(self, digest: str, record: SecretRecord, session_id: SessionId, *, kept: float) -> bool:
        """Use a key, whose *record* was looked up, for a session, and keep it *kept* seconds.

        Return whether it could be used.
        """


@dataclass(slots=True)
class _Kept:
    record: SecretRecord
    uses: int
    usable_until: float
    kept_until: float
    weight: Weight
    sessions: set[str] = field(default_factory=set)


class MemorySecretStore:
    """A :class:`SecretStore` of one node, which it ends with. What several settle alike is there once."""

    def __init__(self, clock: Clock, bounds: SecretBounds | None = None) -> None:
        self._clock = clock
        self._bounds = bounds or SecretBounds()
        self._all = Account()
        self._accounts: dict[str, Account] = {}  # by pool; none that is empty
        self._pins: dict[str, Pins] = {}  # by digest, as long as anybody holds them
        self._kept: dict[str, _Kept] = {}
        self._due: list[tuple[float, str]] = []  # a heap of when to look at which of them

    def __len__(self) -> int:
        return len(self._kept)

    async def put(self, digest: str, record: SecretRecord, *, uses: int, lifetime: float) -> None:
        """See :meth:`SecretStore.put`."""
        now, weight = self._clock.monotonic(), weight_of(record, uses)
        self._forget(digest)
        self._sweep(now)
        for pool in self._bounds.pools_of(record):
            account = self._accounts.get(pool.name, Account())
            if not account.has_room(weight, pool.most, pool.most_bytes):
                raise PoolFull(pool.whose)
        if not self._all.has_room(weight, self._bounds.node, self._bounds.node_bytes):
            raise SecretsFull
        if weight.digest:
            record = replace(record, pins=self._pins.setdefault(weight.digest, record.pins))
        self._count(record, weight)
        self._kept[digest] = _Kept(record, uses, now + lifetime, now + lifetime, weight)
        heapq.heappush(self._due, (now + lifetime, digest))

    def _count(self, record: SecretRecord, weight: Weight) -> None:
        self._all.add(weight)
        for pool in self._bounds.pools_of(record):
            self._accounts.setdefault(pool.name, Account()).add(weight)

    def _sweep(self, now: float) -> None:
        """Forget what is over. Each is looked at when it ends unused, and if it was used, once more."""
        for _ in range(_LAPSES):
            if not self._due or self._due[0][0] > now:
                return
            _, digest = heapq.heappop(self._due)
            kept = self._kept.get(digest)
            if kept is not None and kept.kept_until > now:
                heapq.heappush(self._due, (kept.kept_until, digest))
            else:
                self._forget(digest)

    def _forget(self, digest: str) -> None:
        gone = self._kept.pop(digest, None)
        if gone is None:
            return
        self._all.remove(gone.weight)
        if gone.weight.digest not in self._all.holders:
            self._pins.pop(gone.weight.digest, None)
        for pool in self._bounds.pools_of(gone.record):
            account = self._accounts[pool.name]
            account.remove(gone.weight)
            if not account.count:
                del self._accounts[pool.name]

    async def look(self, digest: str) -> Held | None:
        """See :meth:`SecretStore.look`."""
        now, kept = self._clock.monotonic(), self._kept.get(digest)
        if kept is None or kept.kept_until <= now:
            return None
        uses = kept.uses if now < kept.usable_until else 0
        return Held(kept.record, uses, frozenset(kept.sessions))

    async def spend(
        self,
        digest: str,
        record: SecretRecord,  # noqa: ARG002 - here it is known
        session_id: SessionId,
        *,
        kept: float,
    ) -> bool:
        """See :meth:`SecretStore.spend`."""
        now, found = self._clock.monotonic(), self._kept.get(digest)
        if found is None or found.uses < 1 or found.usable_until <= now:
            return False
        found.uses -= 1
        found.sessions.add(session_id)
        found.kept_until = max(found.kept_until, now + kept)
        return True
