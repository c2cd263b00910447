"""A node's part in the index of whose sessions there are: what it owns is noted there, again and again.

When a session begins, and while something happens in it or somebody is connected, often enough that the
index doesn't forget it first. What can't be noted for the moment waits, within bounds; what these leave out
is noted when something happens in it next. A session that turns out to have begun before everything of its
principal's was erased is erased, too: the index didn't know of it then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.index import SessionIndex
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import NodeDraining, StoreUnavailable
from unbroken.sessions.ids import PrincipalId, SessionId

__all__ = ["Listing"]

_TIMES: Final = 12
"""How often in a session's lifetime it is noted while it lives."""

_YOUNG: Final = 60.0
"""Seconds from when a session begins, for which a node that takes it notes it at once: who had it may have
died of it. Later it was noted before, and of a crowd that moves on it needn't be once more.
"""

_WAITING: Final = 10_000
"""Sessions that wait to be noted."""

_AT_ONCE: Final = 4

_AGAIN_AFTER: Final = 1.0
"""Seconds after which an index that was out of reach is asked again."""


class Listing:
    """Notes a node's sessions.

    Args:
        index: Where; None: nowhere.
        clock: Where time comes from.
        lifetime: Seconds that a session lasts in the store.
        spawn: Starts a task of the node's.
        erase: Erases a session.

    """

    def __init__(
        self,
        index: SessionIndex | None,
        clock: Clock,
        *,
        lifetime: float,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        erase: Callable[[SessionId], Awaitable[None]],
    ) -> None:
        self._index = index
        self._clock = clock
        self._interval = lifetime / _TIMES
        self._spawn = spawn
        self._erase = erase
        self._waiting: dict[PrincipalId, dict[SessionId, int]] = {}
        self._count = 0
        self._active = 0
        self._is_resting = False  # the index was out of reach a moment ago

    def __len__(self) -> int:
        """How many wait."""
        return self._count

    def note(self, actor: Actor) -> None:
        """Have *actor*'s session be listed, if it is this node's, has begun, and it is time."""
        if self._index is None:
            return
        now = self._clock.monotonic()
        is_due = actor.must_be_listed or now - actor.listed_at >= self._interval
        if not (is_due and actor.is_owner and actor.is_opened):
            return
        if actor.feed.ended is not None or self._count >= _WAITING:
            return
        is_new_here = actor.listed_at == float("-inf") and not actor.must_be_listed
        actor.listed_at, actor.must_be_listed = now, False
        wall = self._clock.time()
        opened_at = actor.session.opened_at
        if is_new_here and opened_at is not None and wall - opened_at / 1000 > _YOUNG:
            return
        self._add(actor.principal, actor.session.id, int(1000 * wall) if opened_at is None else opened_at)
        self._begin()

    def _add(self, principal: PrincipalId, session_id: SessionId, at: int) -> None:
        waiting = self._waiting.setdefault(principal, {})
        self._count += session_id not in waiting
        waiting[session_id] = at

    def _begin(self) -> None:
        if self._active < _AT_ONCE and self._waiting and not self._is_resting:
            with suppress(NodeDraining):
                self._spawn(self._write())
                self._active += 1

    async def _write(self) -> None:
        assert self._index is not None, "nothing waits otherwise"
        try:
            while self._waiting and not self._is_resting:
                principal = next(iter(self._waiting))  # who has waited longest
                sessions = self._waiting.pop(principal)
                self._count -= len(sessions)
                try:
                    erased = await self._index.note(principal, sessions)
                    for session_id, at in sessions.items():
                        if at <= erased:
                            await self._erase(session_id)
                except StoreUnavailable:
                    for session_id, at in sessions.items():
                        self._add(principal, session_id, at)
                    if not self._is_resting:
                        self._is_resting = True
                        self._clock.call_later(_AGAIN_AFTER, self._go_on)
        finally:
            self._active -= 1

    def _go_on(self) -> None:
        self._is_resting = False
        self._begin()
