"""Where short-lived keys and tickets are until they are used, and after: the interface, and one in memory.

::

    Exception
    +-- SecretsFull     there are as many as this node holds
        +-- PoolFull    there are as many as one user, one API key, or all strangers may have
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from unbroken.server.auth.pins import Pins
from unbroken.server.auth.principal import STRANGERS, Principal
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import SessionId

__all__ = [
    "Held",
    "MemorySecretStore",
    "Pool",
    "PoolFull",
    "SecretRecord",
    "SecretStore",
    "SecretsFull",
    "size_of",
]

_MOST: Final = 100_000
"""Short-lived keys in memory, with those that were used."""

_MOST_BYTES: Final = 128 * 1024 * 1024
"""What they take there, roughly. No pool may have more than a quarter."""

_MOST_OF_USER: Final = 200
_MOST_BYTES_OF_USER: Final = 2 * 1024 * 1024
_MOST_OF_KEY: Final = 40_000
_MOST_BYTES_OF_KEY: Final = 32 * 1024 * 1024
_MOST_OF_STRANGERS: Final = 20_000
_MOST_BYTES_OF_STRANGERS: Final = 32 * 1024 * 1024

_LAPSES: Final = 250
"""That are forgotten with each new one: a few milliseconds at the most. Those beyond count until the next."""

_COST: Final = 600
"""Bytes of a short-lived key beside what it says."""

_COST_OF_USE: Final = 100
"""Bytes of a session that it is used for."""


class SecretsFull(Exception):
    """There are as many short-lived keys as this node holds."""

    def __str__(self) -> str:
        return "There are as many short-lived keys as the server holds. Try again in a moment."


class PoolFull(SecretsFull):
    """There are as many short-lived keys as *whose* may be: one user's, one API key's, or strangers'."""

    def __init__(self, whose: str) -> None:
        super().__init__(whose)
        self.whose = whose

    def __str__(self) -> str:
        return (
            f"There are as many short-lived keys of {self.whose} as may be. One that was used counts for as "
            "long as its session may be come back to with it. Try again later."
        )


@dataclass(frozen=True, slots=True)
class Pool:
    """Among whose short-lived keys one counts, from when it is made until it is good for nothing more."""

    name: str
    whose: str
    """The same, for whoever is refused."""
    most: int
    most_bytes: int


class SecretRecord(Struct, frozen=True, omit_defaults=True):
    """What a short-lived key is good for."""

    user: str
    tenant: str
    plan: str
    scopes: tuple[str, ...]
    expires_at: float
    """Until when sessions that it was used for may be come back to; seconds since the epoch."""
    key_id: str | None = None
    """The API key that it was made with."""
    origin: str | None = None
    """Whose pages alone may present it; None: any that may connect at all."""
    pins: Pins = Pins()
    maker: str = ""
    """Which backend made it; empty: the user did, or the server for a stranger."""

    @property
    def pools(self) -> tuple[Pool, ...]:
        """All pools that it counts in: a backend is bounded also if it names a user of their own for each."""
        if self.tenant == STRANGERS:
            return (Pool("strangers", "strangers", _MOST_OF_STRANGERS, _MOST_BYTES_OF_STRANGERS),)
        pools: list[Pool] = []
        if is_users := self.user.startswith("user:"):
            name = f"user {self.tenant} {self.user}"
            pools.append(Pool(name, "this user", _MOST_OF_USER, _MOST_BYTES_OF_USER))
        if self.maker or not is_users:
            name = f"key {self.tenant} {self.key_id} {self.maker}"
            pools.append(Pool(name, "this API key", _MOST_OF_KEY, _MOST_BYTES_OF_KEY))
        return tuple(pools)

    @property
    def principal(self) -> Principal:
        """Who presents it."""
        return Principal(self.user, self.tenant, self.plan, frozenset(self.scopes), self.expires_at)


def size_of(record: SecretRecord, uses: int) -> int:
    """Return what a short-lived key takes once it has been used so often, in bytes, roughly."""
    return len(msgspec.json.encode(record)) + _COST + uses * _COST_OF_USE


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
    size: int
    sessions: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Account:
    """What there is of one pool."""

    count: int = 0
    size: int = 0


class MemorySecretStore:
    """A :class:`SecretStore` of one node, which it ends with."""

    def __init__(self, clock: Clock, *, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
        self._clock = clock
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._accounts: dict[str, _Account] = {}  # by pool; none that is empty
        self._kept: dict[str, _Kept] = {}
        self._due: list[tuple[float, str]] = []  # a heap of when to look at which of them

    def __len__(self) -> int:
        return len(self._kept)

    async def put(self, digest: str, record: SecretRecord, *, uses: int, lifetime: float) -> None:
        """See :meth:`SecretStore.put`."""
        now, size = self._clock.monotonic(), size_of(record, uses)
        self._forget(digest)
        self._sweep(now)
        for pool in record.pools:
            account = self._accounts.get(pool.name, _Account())
            if account.count >= pool.most or account.size + size > pool.most_bytes:
                raise PoolFull(pool.whose)
        if len(self._kept) >= self._most or self._bytes + size > self._most_bytes:
            raise SecretsFull
        self._count(record, 1, size)
        self._kept[digest] = _Kept(record, uses, now + lifetime, now + lifetime, size)
        heapq.heappush(self._due, (now + lifetime, digest))

    def _count(self, record: SecretRecord, number: int, size: int) -> None:
        self._bytes += size
        for pool in record.pools:
            account = self._accounts.setdefault(pool.name, _Account())
            account.count += number
            account.size += size
            if not account.count:
                del self._accounts[pool.name]

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
        if (gone := self._kept.pop(digest, None)) is not None:
            self._count(gone.record, -1, -gone.size)

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
