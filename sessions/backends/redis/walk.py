"""A walk through all sessions in Redis: each server's keys, as far as they were looked through.

How far says the server's own cursor, which means nothing to another server, nor to the same one once it has
been started again: so it is kept with the name of that start, and that server's keys are begun with anew if
it has another. In a cluster buckets of sessions move between servers. One is done when a server that had it
all the while was looked through; one that is on its way from here to there is left for another time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from typing import Any, Final

import msgspec
from redis.asyncio import RedisCluster
from redis.crc import key_slot

from unbroken.sessions.backends.redis.connection import Client, unavailable
from unbroken.sessions.backends.redis.keys import BUCKETS, Keys
from unbroken.sessions.backends.walk import Stretch
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import SessionId

__all__ = ["RedisWalk"]

_AT_ONCE: Final = 1000
"""Keys that a server looks at in one call: it keeps all others waiting meanwhile."""


class _Part(msgspec.Struct, frozen=True):
    """How far one server's keys were looked through."""

    start: str
    """Of its process."""
    buckets: frozenset[int]
    """Those that it had in the beginning, and that weren't done."""
    cursor: int = 0


class _Place(msgspec.Struct):
    done: set[int] = msgspec.field(default_factory=set)
    """Buckets."""
    parts: dict[str, _Part] = msgspec.field(default_factory=dict)
    """Of servers that were begun with, by their names."""


class RedisWalk:
    """A :data:`~unbroken.sessions.backends.walk.WalkThrough` of Redis: call :meth:`through`.

    Args:
        client: How it is reached. The caller's, to close.
        keys: What things are called there.
        at_once: Keys that a server looks at in one call, more or less.

    """

    def __init__(self, client: Client, keys: Keys, *, at_once: int = _AT_ONCE) -> None:
        self._client: Any = client  # its methods are of both worlds, says redis-py
        self._keys = keys
        self._at_once = at_once

    async def through(self, place: str = "") -> AsyncGenerator[Stretch, None]:
        """Yield what is behind *place*."""
        known = _known(place)
        failure: StoreUnavailable | None = None
        for name, target in await self._servers():
            try:
                async with aclosing(self._server(name, target, known)) as found:
                    async for session_ids in found:
                        yield Stretch(session_ids, msgspec.json.encode(known).decode())
            except Exception as exc:
                failure = unavailable(exc)
                if failure is None:
                    raise
        if len(known.done) < BUCKETS:
            raise failure or StoreUnavailable("buckets are moving")

    async def _servers(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the servers that have keys: their names, and what addresses a call to each."""
        if not isinstance(self._client, RedisCluster):
            return [("", {})]
        try:
            if not self._client.get_primaries():  # nothing was asked of it yet
                await self._client.initialize()
        except Exception as exc:
            if (error := unavailable(exc)) is None:
                raise
            raise error from None
        return [(node.name, {"target_nodes": node}) for node in self._client.get_primaries()]

    async def _server(
        self, name: str, target: dict[str, Any], known: _Place
    ) -> AsyncGenerator[tuple[SessionId, ...], None]:
        """Yield what a server has that *known* doesn't, which grows with it."""
        start, due = await self._start(target), await self._buckets(target) - known.done
        part = known.parts.get(name)
        if part is None or part.start != start:
            part = _Part(start, due)
        while due:
            cursor, found = await self._scan(part.cursor, target)
            start = await self._start(target)
            if start != part.start:  # behind one address there is another server by now
                part = _Part(start, await self._buckets(target) - known.done)
            elif cursor:
                known.parts[name] = part = msgspec.structs.replace(part, cursor=cursor)
            else:
                known.done |= part.buckets & await self._buckets(target)
                known.parts.pop(name, None)
                due = frozenset()
            yield tuple(SessionId(key.decode().split(":")[-2]) for key in found)

    async def _scan(self, cursor: int, target: dict[str, Any]) -> tuple[int, Iterable[bytes]]:
        words = ("SCAN", cursor, "MATCH", self._keys.sessions, "COUNT", self._at_once)
        told, found = await self._client.execute_command(*words, **target)
        if target:  # of a cluster, the cursors by their servers
            (told,) = told.values()
        return int(told), found

    async def _start(self, target: dict[str, Any]) -> str:
        """Return the name of the start of a server's process."""
        return str((await self._client.info("server", **target))["run_id"])

    async def _buckets(self, target: dict[str, Any]) -> frozenset[int]:
        """Return the buckets that a server has wholly."""
        if not target:
            return frozenset(range(BUCKETS))
        told = await self._client.execute_command("CLUSTER NODES", **target)
        (own,) = (node for node in told.values() if "myself" in node["flags"].split(","))
        bounds = [(int(each[0]), int(each[-1])) for each in own["slots"]]
        moving = {int(each["slot"]) for each in own["migrations"]}
        return frozenset(
            bucket
            for bucket in range(BUCKETS)
            if (slot := key_slot(self._keys.busy(bucket).encode())) not in moving
            and any(first <= slot <= last for first, last in bounds)
        )


def _known(place: str) -> _Place:
    if place:
        with suppress(msgspec.DecodeError):  # of another release
            return msgspec.json.decode(place, type=_Place)
    return _Place()
