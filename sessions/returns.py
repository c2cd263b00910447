"""Sessions that by the store are a node's, and that it doesn't have: given back, for others to take.

It had to give one up, or one was passed on to it too late, or the store didn't hear that it was released.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final

from unbroken.sessions.backends.base import NOBODY, SessionStore
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import Fenced, NodeDraining, SessionGone, StoreUnavailable
from unbroken.sessions.ids import NodeId, SessionId

__all__ = ["Returns"]

_AT_ONCE: Final = 16

_AGAIN_AFTER: Final = 1.0
"""Seconds after which a store that was out of reach is asked again: as long as the node lives, nobody else
does.
"""


class Returns:
    """Gives back what is owed, a few at a time, again and again while the store is out of reach.

    Args:
        node: Whose they are.
        store: Where.
        clock: Where time comes from.
        moving: Keeps a session from being loaded or taken meanwhile.
        is_live: Whether the node has a session after all: then it keeps it.
        spawn: Starts a task of the node's.
        on_done: Called when nothing is owed any more.

    """

    def __init__(
        self,
        node: NodeId,
        store: SessionStore,
        clock: Clock,
        *,
        moving: Callable[[SessionId], AbstractAsyncContextManager[None]],
        is_live: Callable[[SessionId], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        on_done: Callable[[], None],
    ) -> None:
        self._node = node
        self._store = store
        self._clock = clock
        self._moving = moving
        self._is_live = is_live
        self._spawn = spawn
        self._on_done = on_done
        self._owed: dict[SessionId, NodeId] = {}  # to whom each goes
        self._queue: deque[SessionId] = deque()  # of these, those that nothing is in the way of
        self._active: set[SessionId] = set()  # those that are being given back
        self._is_waiting = False

    def __len__(self) -> int:
        """How many are owed."""
        return len(self._owed.keys() | self._active)

    def add(self, session_id: SessionId, to: NodeId = NOBODY) -> None:
        """Give up a session, to *to*, if it is this node's in the store and nowhere else."""
        if session_id not in self._owed:
            self._owed[session_id] = to
            if session_id not in self._active:  # else once more, behind that
                self._queue.append(session_id)
        elif to != NOBODY:
            self._owed[session_id] = to
        self._begin()

    def _begin(self) -> None:
        with suppress(NodeDraining):
            while self._queue and len(self._active) < _AT_ONCE and not self._is_waiting:
                self._spawn(self._see_to(self._queue[0]))
                self._active.add(self._queue.popleft())

    async def _see_to(self, session_id: SessionId) -> None:
        to = self._owed.pop(session_id)
        try:
            async with self._moving(session_id):
                if not self._is_live(session_id):
                    await self.give(session_id, to)
                    await self._store.unfollow(session_id, self._node)
        except StoreUnavailable:
            self._owed.setdefault(session_id, to)
            if not self._is_waiting:
                self._is_waiting = True
                self._clock.call_later(_AGAIN_AFTER, self._go_on)
        finally:
            self._active.discard(session_id)
            if session_id in self._owed:
                self._queue.append(session_id)
            self._begin()
            if not len(self):
                self._on_done()

    def _go_on(self) -> None:
        self._is_waiting = False
        self._begin()

    async def give(self, session_id: SessionId, to: NodeId = NOBODY) -> None:
        """Give up a session at once, if it is this node's in the store.

        Raises:
            StoreUnavailable: The store can't be reached.

        """
        with suppress(Fenced, SessionGone):
            fence = (await self._store.inspect(session_id)).fence
            if fence.node == self._node:
                await self._store.release(session_id, fence, to=to)
