"""Where short-lived keys and tickets are until they are used: the interface, and one in memory.

::

    Exception
    +-- SecretsFull     there are as many as this node holds
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from unbroken.server.auth.pins import Pins
from unbroken.server.auth.principal import STRANGERS, Principal
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import SessionId

__all__ = ["Held", "MemorySecretStore", "SecretRecord", "SecretStore", "SecretsFull"]

_MOST: Final = 50_000
"""Short-lived keys in memory, with those that were used."""

_MOST_BYTES: Final = 64 * 1024 * 1024
"""What they take there, roughly."""

_MOST_OF_USER: Final = 50
"""Of one user's, those that can still be used: nobody takes the places of all others."""

_MOST_OF_STRANGERS: Final = 20_000
_MOST_OF_KEY: Final = 40_000
"""The same of all that one API key made for nobody in particular."""


_COST: Final = 600
"""Bytes of a short-lived key beside what it says."""


class SecretsFull(Exception):
    """There are as many short-lived keys as this node holds."""

    def __str__(self) -> str:
        return "There are as many short-lived keys as the server holds. Try again in a moment."


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

    @property
    def pool(self) -> tuple[str, int]:
        """Among whose short-lived keys it counts, and how many of these may be usable at a time."""
        if self.user.startswith("user:"):
            return f"user {self.tenant} {self.user}", _MOST_OF_USER
        if self.tenant == STRANGERS:
            return "strangers", _MOST_OF_STRANGERS
        return f"key {self.tenant} {self.key_id}", _MOST_OF_KEY

    @property
    def principal(self) -> Principal:
        """Who presents it."""
        return Principal(self.user, self.tenant, self.plan, frozenset(self.scopes), self.expires_at)


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
    where the answer to another was lost. Everything goes by itself, in time.

    Raises:
        StoreUnavailable: From each of the calls: it can't be reached. What was asked for may have happened.

    """

    async def put(self, digest: str, record: SecretRecord, *, uses: int, lifetime: float) -> None:
        """Keep a key that may be used *uses* times within *lifetime* seconds.

        Raises:
            SecretsFull: There are as many as may be.

        """

    async def look(self, digest: str) -> Held | None:
        """Return a key as it stands, which one that has been used does for as long as was said then."""

    async def spend(self, digest: str, session_id: SessionId, *, kept: float) -> bool:
        """Use a key for a session, and keep it *kept* seconds. Return whether it could be used."""


@dataclass(slots=True)
class _Kept:
    record: SecretRecord
    uses: int
    usable_until: float
    kept_until: float
    size: int
    sessions: set[str] = field(default_factory=set)


class MemorySecretStore:
    """A :class:`SecretStore` of one node, which it ends with."""

    def __init__(self, clock: Clock, *, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
        self._clock = clock
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._pools: dict[str, set[str]] = {}  # digests, some of which may not be usable any more
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def put(self, digest: str, record: SecretRecord, *, uses: int, lifetime: float) -> None:
        """See :meth:`SecretStore.put`."""
        now, size = self._clock.monotonic(), len(msgspec.json.encode(record)) + _COST
        pool, most = record.pool
        usable = self._pools.get(pool, set())
        if len(usable) >= most:
            usable = self._pools[pool] = {each for each in usable if self._is_usable(each, now)}
            if len(usable) >= most:
                raise SecretsFull
        if len(self._kept) >= self._most or self._bytes + size > self._most_bytes:
            self._sweep(now)
            if len(self._kept) >= self._most or self._bytes + size > self._most_bytes:
                raise SecretsFull
        self._kept[digest] = _Kept(record, uses, now + lifetime, now + lifetime, size)
        self._bytes += size
        self._pools.setdefault(pool, set()).add(digest)

    def _is_usable(self, digest: str, now: float) -> bool:
        kept = self._kept.get(digest)
        return kept is not None and kept.uses > 0 and now < kept.usable_until

    def _sweep(self, now: float) -> None:
        for digest in [digest for digest, kept in self._kept.items() if kept.kept_until <= now]:
            gone = self._kept.pop(digest)
            self._bytes -= gone.size
            pool, _ = gone.record.pool
            if (usable := self._pools.get(pool)) is not None:
                usable.discard(digest)
                if not usable:
                    del self._pools[pool]

    async def look(self, digest: str) -> Held | None:
        """See :meth:`SecretStore.look`."""
        now, kept = self._clock.monotonic(), self._kept.get(digest)
        if kept is None or kept.kept_until <= now:
            return None
        uses = kept.uses if now < kept.usable_until else 0
        return Held(kept.record, uses, frozenset(kept.sessions))

    async def spend(self, digest: str, session_id: SessionId, *, kept: float) -> bool:
        """See :meth:`SecretStore.spend`."""
        now, found = self._clock.monotonic(), self._kept.get(digest)
        if found is None or found.uses < 1 or found.usable_until <= now:
            return False
        found.uses -= 1
        found.sessions.add(session_id)
        found.kept_until = max(found.kept_until, now + kept)
        return True
