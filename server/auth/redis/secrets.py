"""Short-lived keys that all nodes share: each is one use after another, whoever asks."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from unbroken.server.auth.pins import Pins
from unbroken.server.auth.redis.connection import Redis
from unbroken.server.auth.secret_pools import Pool, SecretBounds, SecretRecord, settled_by, weight_of
from unbroken.server.auth.secret_store import Held, PoolFull
from unbroken.sessions.ids import SessionId

__all__ = ["RedisSecretStore"]

_RECORD: Final = "record"

_REST: Final = "rest"
"""A record without what it settles, which is kept apart. By another name: a release that doesn't know of that
must not find the record, and take it for one that settles nothing."""

_APART: Final = "apart"
"""The digest of what is."""

_LEEWAY: Final = 10_000
"""Milliseconds for which a place is kept beyond its key: it is taken by a call ahead of the key's own."""

_LAPSES: Final = 200
"""Places that are given back with each that is taken, in Redis, which does nothing else meanwhile."""


class RedisSecretStore:
    """A :class:`~unbroken.server.auth.secret_store.SecretStore` in Redis.

    A key and its pools are in slots of their own, and so is what it settles, once for all that settle the
    same. A place is taken before there is a key, and place and settled part are kept longer before the key
    is: whatever fails in between, a pool counts too many rather than too few, for a time. A key whose settled
    part Redis has thrown away is good for nothing.
    """

    def __init__(self, redis: Redis, bounds: SecretBounds | None = None) -> None:
        self._redis = redis
        self._bounds = bounds or SecretBounds()

    async def put(self, digest: str, record: SecretRecord, *, uses: int, lifetime: float) -> None:
        """See :meth:`SecretStore.put`."""
        milliseconds, weight = int(lifetime * 1000), weight_of(record, uses)
        taken: list[Pool] = []
        for pool in self._bounds.pools_of(record):
            bounds = (milliseconds + _LEEWAY, pool.most, pool.most_bytes, _LAPSES)
            counted = (weight.own, weight.digest, weight.apart)
            if not await self._redis.script("secret_room", self._pool_keys(pool), digest, *bounds, *counted):
                for each in taken:
                    await self._redis.script("secret_leave", self._pool_keys(each), digest)
                raise PoolFull(pool.whose)
            taken.append(pool)
        await self._keep_apart(weight.digest, record, milliseconds)
        data = msgspec.json.encode(replace(record, pins=Pins()) if weight.digest else record)
        fields = (_REST, data, _APART, weight.digest) if weight.digest else (_RECORD, data)
        await self._redis.script("secret_put", self._keys(digest), uses, milliseconds, *fields)

    async def look(self, digest: str) -> Held | None:
        """See :meth:`SecretStore.look`."""
        answer: Any = await self._redis.script("secret_look", self._keys(digest))
        uses, flat = answer
        fields = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        data, rest, apart = fields.pop(_RECORD, None), fields.pop(_REST, None), fields.pop(_APART, None)
        if data is not None:
            record = msgspec.json.decode(data, type=SecretRecord)
        elif rest is not None and apart is not None:
            pins = await self._redis.command("GET", self._apart_key(apart.decode()))
            if pins is None:
                return None
            rest_of = msgspec.json.decode(rest, type=SecretRecord)
            record = replace(rest_of, pins=msgspec.json.decode(pins, type=Pins))
        else:
            return None
        return Held(record, int(uses), frozenset(fields))

    async def spend(self, digest: str, record: SecretRecord, session_id: SessionId, *, kept: float) -> bool:
        """See :meth:`SecretStore.spend`."""
        milliseconds = max(1, int(kept * 1000))
        for pool in self._bounds.pools_of(record):
            await self._redis.script("secret_keep", self._pool_keys(pool), digest, milliseconds + _LEEWAY)
        await self._keep_apart(weight_of(record, 1).digest, record, milliseconds)
        return bool(await self._redis.script("secret_spend", self._keys(digest), session_id, milliseconds))

    async def _keep_apart(self, digest: str, record: SecretRecord, milliseconds: int) -> None:
        """Keep what *record* settles at least so long, by its *digest*; empty: it isn't kept apart."""
        if digest:
            args = settled_by(record), milliseconds + _LEEWAY
            await self._redis.script("secret_apart", [self._apart_key(digest)], *args)

    def _keys(self, digest: str) -> list[str]:
        base = f"{self._redis.prefix}:{{s:{digest}}}:"
        return [base + "u", base + "r"]

    def _apart_key(self, digest: str) -> str:
        return f"{self._redis.prefix}:{{sa:{digest[:32]}}}:{digest}"

    def _pool_keys(self, pool: Pool) -> list[str]:
        base = f"{self._redis.prefix}:{{sp:{hashlib.sha256(pool.name.encode()).hexdigest()[:32]}}}:"
        return [base + "m", base + "c"]
