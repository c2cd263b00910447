"""API keys of a store, as a node knows them: cached for a moment, and watched while they are in use."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

import structlog

from unbroken.server.auth.base import Credentials, Grant, Unauthenticated
from unbroken.server.auth.key_store import KeyRecord, KeyStore, KeyStoreUnusable
from unbroken.server.auth.keys import digest_of
from unbroken.server.auth.lapse import Lapses
from unbroken.sessions.clock import Clock, pause
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["Keyring"]

_INTERVAL: Final = 1.0
"""Seconds between two looks at whether a key was revoked."""

_FRESH: Final = 3.0
"""Seconds since the last look for which keys are believed without asking."""

_STALE: Final = 60.0
"""Seconds for which they are believed where nobody can be asked."""

_NOTED: Final = 60.0
"""Seconds between two times that uses are written."""

_CACHED: Final = 4096
"""Keys; the one that was presented longest ago is asked for again."""


class Keyring:
    """An :class:`~unbroken.server.auth.base.Authenticator` for the keys of a store.

    Guarantee: within two seconds of a key's revocation, on whatever node, nobody is let in by it, and
    whoever was is told. While the store can't be reached, nobody is revoked, keys that were presented here
    within the last minute are taken, and others can't be looked up.

    Args:
        store: Where keys are.
        lapses: Told of keys that were revoked.
        clock: Where time comes from.

    """

    def __init__(self, store: KeyStore, lapses: Lapses, clock: Clock) -> None:
        self.store: Final = store
        self._lapses = lapses
        self._clock = clock
        self._version: str | None = None
        self._looked_at = float("-inf")  # when the store last said that nothing else has changed
        self._standing: frozenset[str] = frozenset()  # ids, as of the version
        self._cache: OrderedDict[str, KeyRecord] = OrderedDict()
        self._uses: dict[str, float] = {}
        self._noted_at = clock.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._has_failed = False

    async def authenticate(self, credentials: Credentials) -> Grant:
        """See :meth:`Authenticator.authenticate`."""
        if credentials.key is None:
            raise Unauthenticated
        digest = digest_of(credentials.key).hex()
        record = await self._find(digest)
        now = self._clock.time()
        if record is None or (record.expires_at is not None and record.expires_at <= now):
            raise Unauthenticated
        if record.id in self._uses or len(self._uses) < _CACHED:
            self._uses[record.id] = now
        return Grant(record.principal, record.id)

    async def _find(self, digest: str) -> KeyRecord | None:
        age = self._clock.monotonic() - self._looked_at
        cached = self._cache.get(digest)
        # While nobody answers, nobody has to wait for that again and again.
        if cached is not None and age < (_STALE if self._has_failed else _FRESH):
            self._cache.move_to_end(digest)
            return cached
        version = self._version
        try:
            record = await self.store.find(digest)
        except (StoreUnavailable, KeyStoreUnusable) as exc:
            if cached is not None and age < _STALE:
                return cached
            raise StoreUnavailable(str(exc)) from None
        if record is not None and version == self._version:  # else it may be of before a change
            self._cache[digest] = record
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return record

    async def stands(self, key_id: str) -> bool:
        """Return whether there still is a key of that id: what came of it depends on it.

        Raises:
            StoreUnavailable: Nobody can say for the moment.

        """
        if key_id in self._standing and self._clock.monotonic() - self._looked_at < _STALE:
            return True
        try:
            await self._read()
        except KeyStoreUnusable as exc:
            raise StoreUnavailable(str(exc)) from None
        return key_id in self._standing

    # While the node runs.

    async def start(self) -> None:
        """Look at the store from here on.

        Raises:
            StoreUnavailable: It can't be reached.
            KeyStoreUnusable: What it has makes no sense.

        """
        await self._read()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Note what was used, if that can be done, and look no more. Harmless if it doesn't."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        try:
            await self.store.note_uses(self._uses)
        except (StoreUnavailable, KeyStoreUnusable):
            structlog.get_logger().warning("key uses not noted")

    async def _watch(self) -> None:
        while True:
            await pause(self._clock, _INTERVAL)
            try:
                await self.look()
            except (StoreUnavailable, KeyStoreUnusable) as exc:
                if not self._has_failed:
                    structlog.get_logger().warning("keys not looked at", reason=str(exc))
                self._has_failed = True
            except Exception as exc:  # noqa: BLE001 - the boundary: keys must go on being looked at
                structlog.get_logger().error("keys not looked at", exc_info=exc)
            else:
                self._has_failed = False

    async def look(self) -> None:
        """Find out what has changed, and write, at most once a minute, which keys were used.

        Raises:
            StoreUnavailable: It can't be reached.
            KeyStoreUnusable: What it has makes no sense.

        """
        began = self._clock.monotonic()
        if await self.store.version() == self._version:
            self._looked_at = began
        else:
            await self._read()
        if self._uses and began - self._noted_at >= _NOTED:
            uses, self._uses, self._noted_at = self._uses, {}, began
            try:
                await self.store.note_uses(uses)
            except BaseException:
                self._uses = uses | self._uses
                raise

    async def _read(self) -> None:
        # In this order: what changes meanwhile is found the next time. Who comes meanwhile isn't judged.
        began, in_use = self._clock.monotonic(), self._lapses.key_ids | self._standing
        version = await self.store.version()
        standing = frozenset(record.id for record, _ in await self.store.all())
        self._cache.clear()
        self._version, self._standing, self._looked_at = version, standing, began
        gone = in_use - standing
        self._lapses.reinstate(standing)
        if gone:
            structlog.get_logger().info("keys revoked", ids=sorted(gone)[:10], count=len(gone))
            self._lapses.revoke(gone)
