"""API keys that come and go while servers run: the interface of where they are, and one in memory.

::

    Exception
    +-- KeyStoreFull        there are as many keys as may be
    +-- KeyStoreUnusable    what is kept can't be read, or not written: one line, with what to do
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final, Protocol

from msgspec import Struct

from unbroken.server.auth.keys import digest_of
from unbroken.server.auth.principal import ALL_SCOPES, KEY, Principal

__all__ = [
    "MOST_KEYS",
    "KeyRecord",
    "KeyStore",
    "KeyStoreFull",
    "KeyStoreUnusable",
    "MemoryKeyStore",
    "new_key",
]

MOST_KEYS: Final = 10_000
"""Keys in one store: they are read all at once when one of them changes."""


class KeyStoreFull(Exception):
    """There are as many keys as may be."""

    def __str__(self) -> str:
        return f"There are {MOST_KEYS} keys, as many as may be. Revoke some."


class KeyStoreUnusable(Exception):
    """What is kept can't be read, or not written. The text is one line, with what to do."""


class KeyRecord(Struct, frozen=True, omit_defaults=True):
    """What is kept of a key. The key itself isn't."""

    id: str
    """Names it, and is no secret."""
    digest: str
    """Of the key: SHA-256, in hexadecimal."""
    name: str
    created_at: float
    """Seconds since the epoch; so are the others."""
    tenant: str = "default"
    user: str | None = None
    """Whose it is; None: a backend's, which may make short-lived keys for any user of its tenant."""
    plan: str = "default"
    scopes: tuple[str, ...] = tuple(sorted(ALL_SCOPES))
    expires_at: float | None = None

    @property
    def principal(self) -> Principal:
        """Who presents it."""
        user = f"{KEY}{self.id}" if self.user is None else f"user:{self.user}"
        return Principal(user, self.tenant, self.plan, frozenset(self.scopes), self.expires_at)


def new_key(
    name: str,
    *,
    now: float,
    tenant: str = "default",
    user: str | None = None,
    plan: str = "default",
    scopes: frozenset[str] = ALL_SCOPES,
    expires_at: float | None = None,
) -> tuple[str, KeyRecord]:
    """Return a fresh key, with 256 random bits, and what to keep of it."""
    key = f"ub_{secrets.token_urlsafe(32)}"
    record = KeyRecord(
        id=f"key_{secrets.token_hex(8)}",
        digest=digest_of(key).hex(),
        name=name,
        created_at=now,
        tenant=tenant,
        user=user,
        plan=plan,
        scopes=tuple(sorted(scopes)),
        expires_at=expires_at,
    )
    return key, record


class KeyStore(Protocol):
    """Where keys are.

    Guarantees: what was added or revoked when a call returned is so in every later call, on whatever node.
    A revoked key is gone for good. An expired one stays, for an operator to see, until it is revoked.

    Raises:
        StoreUnavailable: From each of the calls: it can't be reached. What was asked for may have happened.
        KeyStoreUnusable: Likewise: what is kept makes no sense, or can't be written.

    """

    async def add(self, record: KeyRecord) -> None:
        """Add a key.

        Raises:
            KeyStoreFull: There are as many as may be.

        """

    async def revoke(self, key_id: str) -> bool:
        """Take a key away. Return whether there was one."""

    async def find(self, digest: str) -> KeyRecord | None:
        """Return the key of that digest. It may have expired."""

    async def all(self) -> list[tuple[KeyRecord, float | None]]:
        """Return all keys, the oldest first, each with when it was last used, as far as that was noted."""

    async def note_uses(self, uses: Mapping[str, float]) -> None:
        """Note when keys were last used, by their ids. Those that are gone are passed over."""

    async def version(self) -> str:
        """Return what is another text whenever a key was added or revoked. Cheap."""


class MemoryKeyStore:
    """A :class:`KeyStore` that ends with its process."""

    def __init__(self) -> None:
        self._by_digest: dict[str, KeyRecord] = {}
        self._used: dict[str, float] = {}
        self._changes = 0

    async def add(self, record: KeyRecord) -> None:
        """See :meth:`KeyStore.add`."""
        if len(self._by_digest) >= MOST_KEYS:
            raise KeyStoreFull
        self._by_digest[record.digest] = record
        self._changes += 1

    async def revoke(self, key_id: str) -> bool:
        """See :meth:`KeyStore.revoke`."""
        for record in self._by_digest.values():
            if record.id == key_id:
                del self._by_digest[record.digest]
                self._used.pop(key_id, None)
                self._changes += 1
                return True
        return False

    async def find(self, digest: str) -> KeyRecord | None:
        """See :meth:`KeyStore.find`."""
        return self._by_digest.get(digest)

    async def all(self) -> list[tuple[KeyRecord, float | None]]:
        """See :meth:`KeyStore.all`."""
        records = sorted(self._by_digest.values(), key=lambda record: record.created_at)
        return [(record, self._used.get(record.id)) for record in records]

    async def note_uses(self, uses: Mapping[str, float]) -> None:
        """See :meth:`KeyStore.note_uses`."""
        known = {record.id for record in self._by_digest.values()}
        self._used.update((key_id, at) for key_id, at in uses.items() if key_id in known)

    async def version(self) -> str:
        """See :meth:`KeyStore.version`."""
        return str(self._changes)
