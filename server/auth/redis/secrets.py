"""Short-lived keys that all nodes share: each is one use after another, whoever asks."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from unbroken.server.auth.redis.connection import Redis
from unbroken.server.auth.secret_store import Held, SecretRecord, SecretsFull
from unbroken.sessions.ids import SessionId

__all__ = ["RedisSecretStore"]

_RECORD = "record"


class RedisSecretStore:
    """A :class:`~unbroken.server.auth.secret_store.SecretStore` in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put(self, digest: str, record: SecretRecord, *, uses: int, lifetime: float) -> None:
        """See :meth:`SecretStore.put`."""
        pool, most = record.pool
        milliseconds = int(lifetime * 1000)
        key = f"{self._redis.prefix}:{{sp:{hashlib.sha256(pool.encode()).hexdigest()[:32]}}}:p"
        if not await self._redis.script("secret_room", [key], digest, milliseconds, most):
            raise SecretsFull
        data = msgspec.json.encode(record)
        await self._redis.script("secret_put", self._keys(digest), data, uses, int(lifetime * 1000))

    async def look(self, digest: str) -> Held | None:
        """See :meth:`SecretStore.look`."""
        answer: Any = await self._redis.script("secret_look", self._keys(digest))
        uses, flat = answer
        fields = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        data = fields.pop(_RECORD, None)
        if data is None:
            return None
        return Held(msgspec.json.decode(data, type=SecretRecord), int(uses), frozenset(fields))

    async def spend(self, digest: str, session_id: SessionId, *, kept: float) -> bool:
        """See :meth:`SecretStore.spend`."""
        args = session_id, max(1, int(kept * 1000))
        return bool(await self._redis.script("secret_spend", self._keys(digest), *args))

    def _keys(self, digest: str) -> list[str]:
        base = f"{self._redis.prefix}:{{s:{digest}}}:"
        return [base + "u", base + "r"]
