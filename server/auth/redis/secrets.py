"""Short-lived keys that all nodes share: each is one use after another, whoever asks."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from unbroken.server.auth.redis.connection import Redis
from unbroken.server.auth.secret_store import Held, Pool, PoolFull, SecretRecord, size_of
from unbroken.sessions.ids import SessionId

__all__ = ["RedisSecretStore"]

_RECORD = "record"

_LEEWAY: Final = 10_000
"""Milliseconds for which a place is kept beyond its key: it is taken by a call ahead of the key's own."""

_LAPSES: Final = 200
"""Places that are given back with each that is taken, in Redis, which does nothing else meanwhile."""


class RedisSecretStore:
    """A :class:`~unbroken.server.auth.secret_store.SecretStore` in Redis.

    A key and its pools are in slots of their own. A place is taken before there is a key, and kept longer
    before the key is: whatever fails in between, a pool counts too many rather than too few, for a time.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put(self, digest: str, record: SecretRecord, *, uses: int, lifetime: float) -> None:
        """See :meth:`SecretStore.put`."""
        milliseconds, size = int(lifetime * 1000), size_of(record, uses)
        taken: list[Pool] = []
        for pool in record.pools:
            args = digest, milliseconds + _LEEWAY, size, pool.most, pool.most_bytes, _LAPSES
            if not await self._redis.script("secret_room", self._pool_keys(pool), *args):
                for each in taken:
                    await self._redis.script("secret_leave", self._pool_keys(each), digest)
                raise PoolFull(pool.whose)
            taken.append(pool)
        data = msgspec.json.encode(record)
        await self._redis.script("secret_put", self._keys(digest), data, uses, milliseconds)

    async def look(self, digest: str) -> Held | None:
        """See :meth:`SecretStore.look`."""
        answer: Any = await self._redis.script("secret_look", self._keys(digest))
        uses, flat = answer
        fields = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        data = fields.pop(_RECORD, None)
        if data is None:
            return None
        return Held(msgspec.json.decode(data, type=SecretRecord), int(uses), frozenset(fields))

    async def spend(self, digest: str, record: SecretRecord, session_id: SessionId, *, kept: float) -> bool:
        """See :meth:`SecretStore.spend`."""
        milliseconds = max(1, int(kept * 1000))
        for pool in record.pools:
            await self._redis.script("secret_keep", self._pool_keys(pool), digest, milliseconds + _LEEWAY)
        return bool(await self._redis.script("secret_spend", self._keys(digest), session_id, milliseconds))

    def _keys(self, digest: str) -> list[str]:
        base = f"{self._redis.prefix}:{{s:{digest}}}:"
        return [base + "u", base + "r"]

    def _pool_keys(self, pool: Pool) -> list[str]:
        base = f"{self._redis.prefix}:{{sp:{hashlib.sha256(pool.name.encode()).hexdigest()[:32]}}}:"
        return [base + "p", base + "b"]
