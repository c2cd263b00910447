"""Tells owners that their sessions are waited for here: few at a time, each session once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from unbroken.sessions.backends.cluster import Cluster
from unbroken.sessions.errors import NodeDraining
from unbroken.sessions.ids import NodeId, SessionId

__all__ = ["Wishes"]

_AT_ONCE: Final = 2
"""Each takes a connection to the store, of which there are few."""

_WAITING: Final = 4096
"""Wishes that wait. More are left to a later poll, which finds them again."""


class Wishes:
    """A node's wishes.

    Args:
        cluster: Tells them. It never raises.
        is_wanted: Says whether this node still waits for a session that *owner* has.
        spawn: Starts a task of the node's.

    """

    def __init__(
        self,
        cluster: Cluster,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        is_wanted: Callable[[NodeId, SessionId], bool],
    ) -> None:
        self._is_wanted = is_wanted
        self._cluster = cluster
        self._spawn = spawn
        self._waiting: dict[SessionId, NodeId] = {}
        self._active = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, owner: NodeId, session_id: SessionId) -> None:
        """Tell *owner*, soon. Lost when the store is out of reach, as all that nodes are told may be."""
        if session_id not in self._waiting and len(self._waiting) >= _WAITING:
            return
        self._waiting[session_id] = owner
        if self._active < _AT_ONCE:
            with suppress(NodeDraining):
                self._spawn(self._tell())
                self._active += 1

    async def _tell(self) -> None:
        try:
            while self._waiting:
                session_id = next(iter(self._waiting))  # who has waited longest
                owner = self._waiting.pop(session_id)
                if self._is_wanted(owner, session_id):
                    await self._cluster.wish(owner, session_id)
        finally:
            self._active -= 1
