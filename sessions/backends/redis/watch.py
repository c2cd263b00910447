"""How Redis is set up and how full it is: what no call fails of before it is too late."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import structlog
from redis.asyncio import RedisCluster

from unbroken.sessions.backends.redis.connection import ERRORS, Client

__all__ = ["Watch"]

_INTERVAL: Final = 30.0
_FULL: Final = 0.9


class Watch:
    """Looks at Redis every half a minute. What it finds stays as it was while that can't be told."""

    def __init__(self, client: Client) -> None:
        self._client: Any = client
        self.used = 0
        """Bytes that Redis takes; in a cluster, all of its servers."""
        self.limit = 0
        """Bytes that it may take; 0: nothing bounds it, or it isn't known."""
        self.evicted = 0
        """Keys that it threw away for lack of room, since it was started."""
        self.may_evict = False
        """Whether it would throw sessions away instead of refusing more."""
        self._has_told = False

    async def run(self) -> None:
        """Look, again and again."""
        task = asyncio.current_task()
        assert task is not None
        while True:
            await self.look()
            if task.cancelling():  # the client may take a cancellation for its own, and go on
                return
            await asyncio.sleep(_INTERVAL)

    async def look(self) -> None:
        """Look once, and log what is wrong when it is new."""
        log = structlog.get_logger()
        try:
            memory, stats = [list(await self._infos(each)) for each in ("memory", "stats")]
        except ERRORS as exc:
            if not self._has_told:
                hint = "Its memory and its eviction policy aren't watched. The user needs +info."
                log.info("redis not watched", reason=type(exc).__name__, hint=hint)
            self._has_told = True
            return
        was_full, may_evict, evicted = self._is_full, self.may_evict, self.evicted
        self.used = sum(int(each.get("used_memory", 0)) for each in memory)
        self.limit = sum(int(each.get("maxmemory", 0)) for each in memory)
        self.evicted = sum(int(each.get("evicted_keys", 0)) for each in stats)
        policies = {str(each.get("maxmemory_policy", "noeviction")) for each in memory}
        self.may_evict = policies != {"noeviction"}
        if self.may_evict and not may_evict:
            hint = "Redis throws sessions away when it is full. Set maxmemory-policy noeviction."
            log.warning("redis may evict sessions", policy=" ".join(sorted(policies)), hint=hint)
        if self.evicted > evicted:
            log.error("redis has evicted keys", keys=self.evicted - evicted)
        if self._is_full and not was_full:
            hint = "Raise maxmemory: beyond it, nothing is saved."
            log.warning("redis nearly full", used=self.used, limit=self.limit, hint=hint)
        if not self.limit and not self._has_told:
            hint = "Set maxmemory: else the system ends Redis when memory runs out, with all sessions."
            log.info("redis has no bound", hint=hint)
        self._has_told = True

    @property
    def _is_full(self) -> bool:
        return 0 < self.limit * _FULL <= self.used

    async def _infos(self, section: str) -> Iterable[dict[str, Any]]:
        if not isinstance(self._client, RedisCluster):
            return [await self._client.info(section)]
        found = await self._client.info(section, target_nodes=RedisCluster.PRIMARIES)
        return found.values() if all(isinstance(each, dict) for each in found.values()) else [found]
