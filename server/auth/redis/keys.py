"""API keys that all nodes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from unbroken.server.auth.key_store import MOST_KEYS, KeyRecord, KeyStoreFull, KeyStoreUnusable
from unbroken.server.auth.redis.connection import Redis

__all__ = ["RedisKeyStore"]


class RedisKeyStore:
    """A :class:`~unbroken.server.auth.key_store.KeyStore` in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        base = f"{redis.prefix}:{{auth}}:"
        self._keys, self._ids, self._used, self._version = (
            base + name for name in ("keys", "ids", "used", "version")
        )

    async def add(self, record: KeyRecord) -> None:
        """See :meth:`KeyStore.add`."""
        keys = [self._keys, self._ids, self._version]
        data = msgspec.json.encode(record)
        if not await self._redis.script("key_add", keys, record.digest, data, record.id, MOST_KEYS):
            raise KeyStoreFull

    async def revoke(self, key_id: str) -> bool:
        """See :meth:`KeyStore.revoke`."""
        keys = [self._keys, self._ids, self._version, self._used]
        return bool(await self._redis.script("key_revoke", keys, key_id))

    async def find(self, digest: str) -> KeyRecord | None:
        """See :meth:`KeyStore.find`."""
        data = await self._redis.command("HGET", self._keys, digest)
        return None if data is None else _read(data)

    async def all(self) -> list[tuple[KeyRecord, float | None]]:
        """See :meth:`KeyStore.all`."""
        kept = await self._hash(self._keys)
        used = {key_id.decode(): float(at) for key_id, at in (await self._hash(self._used)).items()}
        records = sorted(map(_read, kept.values()), key=lambda record: record.created_at)
        return [(record, used.get(record.id)) for record in records]

    async def _hash(self, key: str) -> dict[bytes, bytes]:
        answer: Any = await self._redis.command("HGETALL", key)
        # As the protocol's version has it, which is the client's to choose.
        return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))

    async def note_uses(self, uses: Mapping[str, float]) -> None:
        """See :meth:`KeyStore.note_uses`."""
        if uses:
            args = [word for pair in uses.items() for word in pair]
            await self._redis.script("key_uses", [self._ids, self._used], *args)

    async def version(self) -> str:
        """See :meth:`KeyStore.version`."""
        data = await self._redis.command("HGET", self._version, "n")
        return "" if data is None else data.decode()


def _read(data: bytes) -> KeyRecord:
    try:
        return msgspec.json.decode(data, type=KeyRecord)
    except msgspec.DecodeError:
        raise KeyStoreUnusable(
            "A key in Redis can't be read: a later version has written it. Update this node."
        ) from None
