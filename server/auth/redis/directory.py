"""Whom a principal's id stands for, as all nodes know it: one key each, with an end."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import Final

import msgspec
from msgspec import Struct

from unbroken.server.auth.directory import Directory
from unbroken.server.auth.principal import Principal
from unbroken.server.auth.redis.connection import Redis
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import PrincipalId

__all__ = ["RedisDirectory"]

_LIFETIME: Final = 7 * 86_400
"""Seconds: longer than a session lives without a connection, whose turns may be taken up again."""

_RUNNING: Final = 3600.0
"""Seconds that turns of somebody who has expired may still run, or wait, before their session is idle."""

_RENEWED: Final = 3600.0
"""Seconds after which a node writes a principal again that it has written."""

_SILENCE: Final = 5.0
"""Seconds without a call after one that failed: whoever comes meanwhile doesn't wait for the next."""

_BELIEVED: Final = 60.0
"""Seconds for which what was read of another node's principal counts."""

_REMEMBERED: Final = 10_000
"""Principals that a node knows without asking; who came longest ago is forgotten for a new one."""


class _Record(Struct, frozen=True, array_like=True):
    user: str
    tenant: str
    plan: str
    scopes: tuple[str, ...]
    expires_at: float | None


class RedisDirectory(Directory):
    """A node's view of a :class:`~unbroken.server.auth.directory.Directory` in Redis.

    Args:
        redis: Where it is.
        clock: Where time comes from.
        idle: Seconds that a session lives without a connection. Whoever expires isn't kept for longer: each
            stranger is somebody else.
        remembered: Principals that this node knows without asking.

    """

    def __init__(
        self, redis: Redis, clock: Clock, *, idle: float = _LIFETIME, remembered: int = _REMEMBERED
    ) -> None:
        self._redis = redis
        self._idle = idle
        self._clock = clock
        self._remembered = remembered
        # Each with until when that counts, and whether this node has written it.
        self._known: OrderedDict[PrincipalId, tuple[Principal, float, bool]] = OrderedDict()
        self._silent_until: dict[str, float] = {}  # of servers that failed

    def __len__(self) -> int:
        return len(self._known)

    async def note(self, principal: Principal) -> None:
        """See :meth:`Directory.note`."""
        now, principal_id = self._clock.monotonic(), principal.id
        known, until, is_written = self._known.get(principal_id, (None, 0.0, False))
        if known == principal and is_written and now < until:
            return
        record = _Record(
            principal.user,
            principal.tenant,
            principal.plan,
            tuple(sorted(principal.scopes)),
            principal.expires_at,
        )
        server = self._redis.server_of(self._key(principal_id))
        if now < self._silent_until.get(server, now):
            self._remember(principal, now + _RENEWED, is_written=False)
            return
        self._remember(principal, now + _RENEWED, is_written=True)
        # Others rely on it from here on, so that it is written also if who came first is cut off.
        await asyncio.shield(self._write(principal, record, server))

    async def _write(self, principal: Principal, record: _Record, server: str) -> None:
        lifetime = self._lifetime(principal)
        data = msgspec.msgpack.encode(record)
        try:
            await self._redis.command("SET", self._key(principal.id), data, "EX", lifetime)
        except StoreUnavailable:
            # This node knows; the others do when it is back, and the next connection is here.
            now = self._clock.monotonic()
            self._silent_until[server] = now + _SILENCE
            self._remember(principal, now + _RENEWED, is_written=False)
        except BaseException:
            self._known.pop(principal.id, None)
            raise

    async def find(self, principal_id: PrincipalId) -> Principal | None:
        """See :meth:`Directory.find`."""
        now = self._clock.monotonic()
        known, until, _ = self._known.get(principal_id, (None, 0.0, False))
        if known is not None and now < until:
            return known
        try:
            data = await self._redis.command("GET", self._key(principal_id))
        except StoreUnavailable:
            if known is None:
                raise
            return known  # old, and better than nothing
        if data is None:
            return None
        record = msgspec.msgpack.decode(data, type=_Record)
        found = Principal(
            record.user, record.tenant, record.plan, frozenset(record.scopes), record.expires_at
        )
        self._remember(found, now + _BELIEVED, is_written=False)
        return found

    def _lifetime(self, principal: Principal) -> int:
        if principal.expires_at is None:
            return _LIFETIME
        left = max(0.0, principal.expires_at - self._clock.time())
        return math.ceil(min(_LIFETIME, left + _RUNNING + self._idle))

    def _key(self, principal_id: PrincipalId) -> str:
        return f"{self._redis.prefix}:p:{principal_id}"

    def _remember(self, principal: Principal, until: float, *, is_written: bool) -> None:
        self._known[principal.id] = principal, until, is_written
        self._known.move_to_end(principal.id)
        while len(self._known) > self._remembered:
            self._known.popitem(last=False)
