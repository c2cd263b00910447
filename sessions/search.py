"""Sessions that have something to do, and that nobody sees to: looked for, and taken.

Those of a dead node that nobody follows; what nobody owns, since a node that drained may have left it; and
what the store says to be this node's own, while it knows nothing of it, or of what is to be done: a store may
have lost something, and what nodes are told may be lost.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog

from unbroken.sessions.backends.base import NOBODY, SessionStore
from unbroken.sessions.backends.cluster import Cluster
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import NodeDraining, SessionNotFound, StoreUnavailable, UnknownFormat
from unbroken.sessions.ids import NodeId, SessionId

__all__ = ["Search"]

_FOUND_AT_ONCE: Final = 256
"""Sessions of a node that are looked for at a time."""

_LOADED_AT_ONCE: Final = 16

_DELAY: Final = 0.5
"""Seconds that those who follow a dead node's sessions have to take them, before whoever comes first does."""

_SPREAD: Final = 4.0
"""Times that delay, over which nodes are spread that all have lost the store in the same moment."""

_SHUNNED: Final = 1024
"""Sessions that can't run here that are remembered."""


class Search:
    """A node's part in that.

    Args:
        node: The node.
        store: Where sessions are.
        cluster: Knows which nodes are dead.
        clock: Where time comes from.
        known: Returns the sessions that this node has.
        at_work: Returns those of its own that it knows to have something to do.
        look: Has one that is here be read again.
        load: Takes a session, or follows it.
        may_take: Whether this node takes any now.
        spawn: Starts a task of the node's.

    """

    def __init__(
        self,
        node: NodeId,
        *,
        store: SessionStore,
        cluster: Cluster,
        clock: Clock,
        known: Callable[[], Collection[SessionId]],
        at_work: Callable[[], Collection[SessionId]],
        look: Callable[[SessionId], None],
        load: Callable[[SessionId], Awaitable[object]],
        may_take: Callable[[], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._node = node
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._known = known
        self._at_work = at_work
        self._look = look
        self._load = load
        self._may_take = may_take
        self._spawn = spawn
        self._draw = random.random
        self._is_running = self._is_wanted = False
        self._shunned: OrderedDict[SessionId, None] = OrderedDict()

    def shun(self, session_id: SessionId) -> None:
        """Don't look for a session that can't run here: else nodes would fail at it by turns, for ever.

        Whoever has connections of it may still load it.
        """
        self._shunned[session_id] = None
        while len(self._shunned) > _SHUNNED:
            self._shunned.popitem(last=False)

    def adopt_soon(self, node: NodeId) -> None:
        """Take those sessions of a dead node that nobody who follows them has taken by then."""
        self._clock.call_later(_DELAY * (1 + self._draw()), lambda: self._start(self._adopt(node)))

    def begin_soon(self) -> None:
        """Look for sessions of all nodes in a while."""
        self._clock.call_later(_DELAY * (1 + _SPREAD * self._draw()), self.begin)

    def begin(self) -> None:
        """Look for sessions of all nodes; after the search that is under way, if there is one."""
        self._is_wanted = True
        if not self._is_running:
            self._start(self._search_on())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        with suppress(NodeDraining):
            self._spawn(work)

    async def _search_on(self) -> None:
        if self._is_running:
            return
        self._is_running = True
        try:
            while self._is_wanted:
                self._is_wanted = False
                await self._search()
        finally:
            self._is_running = False

    async def _search(self) -> None:
        with suppress(StoreUnavailable):
            for owner in await self._store.owners():
                if owner in (NOBODY, self._node) or self._cluster.is_lost(owner):
                    await self._adopt(owner)
                else:
                    await self._cluster.watch(owner)  # it may be dead, and nobody have noticed

    async def _adopt(self, owner: NodeId) -> None:
        """Take those of *owner*'s sessions that have something to do, and that aren't here."""
        places = asyncio.Semaphore(_LOADED_AT_ONCE)
        tried = set(self._shunned)  # one that can't be had now is left to whoever comes for it
        if owner == self._node:
            tried.update(self._at_work())  # many, as a rule: their names cost little, and the rest much

        async def adopt(session_id: SessionId) -> None:
            async with places:
                try:
                    await self._load(session_id)
                except (SessionNotFound, StoreUnavailable, UnknownFormat):
                    pass
                except Exception as exc:  # noqa: BLE001 - the boundary: one session must not keep others
                    structlog.get_logger().error(
                        "session can't be loaded", session_id=session_id, exc_info=exc
                    )

        with suppress(StoreUnavailable):
            while self._may_take():
                found = [each for each, _ in await self._store.busy(owner, _FOUND_AT_ONCE, known=tried)]
                if not found:
                    return
                here = self._known()
                tried.update(found)
                async with asyncio.TaskGroup() as group:
                    for session_id in found:
                        if session_id not in here:
                            group.create_task(adopt(session_id))
                        elif owner == self._node:
                            self._look(session_id)  # there is something to do of which it doesn't know
                if len(found) < _FOUND_AT_ONCE:
                    return
