"""Sessions that are empty on a node, and that another node may have begun in the meantime.

A session in which nobody has said anything is in no store. Its client may come to another node, where it
goes on under the same id, and say something there; a copy of the page may wait on either. The node on which
it is still empty isn't told of that. So it asks: when somebody comes, and by turns where somebody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final

from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.errors import (
    CursorLost,
    LostTail,
    NodeDraining,
    SessionDeleted,
    SessionError,
    SessionGone,
    StoreUnavailable,
    UnknownFormat,
)
from unbroken.sessions.event_log import Position
from unbroken.sessions.hub import Hub
from unbroken.sessions.ids import Nonce, SessionId

__all__ = ["Unopened"]

_ASKED_AT_ONCE: Final = 64
"""Empty sessions with connections that a poll asks for. Of more, each has its turn at a later one."""


class Unopened:
    """Gives up a node's empty sessions that aren't empty any more.

    Args:
        store: Knows those that somebody has begun.
        hub: The node's sessions.
        moving: Keeps a session from being loaded or taken meanwhile.
        spawn: Starts a task of the node's.
        on_gone: Called with one that was given up because of news: by the store it may be this node's.

    """

    def __init__(
        self,
        store: SessionStore,
        hub: Hub,
        *,
        moving: Callable[[SessionId], AbstractAsyncContextManager[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        on_gone: Callable[[SessionId], None],
    ) -> None:
        self._store = store
        self._hub = hub
        self._moving = moving
        self._spawn = spawn
        self._on_gone = on_gone
        self._polled = 0  # how many of those that wait were asked for at the latest polls
        self._is_polling = False
        self._soon: set[SessionId] = set()  # those that are being asked for because of news

    async def check(self, actor: Actor) -> None:
        """Give *actor* up if the store holds its session by now: it is to be loaded from there.

        Its connections end, and start over on what the store holds. One that is just being begun from here is
        waited for. If the store can't be reached, it stays: what is said then decides.
        """
        if actor.is_opened or not self._store.is_shared:
            return
        await actor.begun()
        async with self._moving(actor.session.id):
            actor.find_part()
            if not self._is_empty(actor) or actor.outage.is_on:
                return
            why: SessionError = CursorLost()
            try:
                is_known = await self._is_known(actor)
            except SessionDeleted as exc:
                is_known, why = True, exc
            except StoreUnavailable as exc:
                actor.find_part()  # which may only be known by this failure
                actor.outage.note_failure(actor.session.id, exc)
                return
            if is_known and self._is_empty(actor):
                actor.let_go(why)
                self._hub.remove(actor)

    def _is_empty(self, actor: Actor) -> bool:
        """Whether *actor* is here, and nobody has said anything, or is about to."""
        is_here = self._hub.holds(actor) and actor.feed.ended is None
        return is_here and not (actor.is_opened or actor.is_beginning)

    async def _is_known(self, actor: Actor) -> bool:
        """Return whether the store holds the session, and at least its first entry.

        Raises:
            SessionDeleted: It did.
            StoreUnavailable: It can't be reached.

        """
        session_id = actor.session.id
        try:
            opened = await self._store.inspect(session_id)
        except SessionDeleted:
            raise
        except SessionGone:
            return False
        try:
            page = await self._store.read(session_id, Position(opened.fence.incarnation, 0, Nonce(0)), 1)
        except SessionDeleted:
            raise
        except (SessionGone, LostTail, UnknownFormat):
            return True  # in any case it has been begun: its beginning is forgotten, or to be read by others
        return bool(page.entries)

    def check_soon(self, actor: Actor) -> None:
        """Check *actor*, of which the store, or another node, has told something."""
        session_id = actor.session.id
        if session_id not in self._soon:
            with suppress(NodeDraining):
                self._spawn(self._check_soon(actor))
                self._soon.add(session_id)

    async def _check_soon(self, actor: Actor) -> None:
        try:
            await self.check(actor)
        finally:
            self._soon.discard(actor.session.id)
        if self._hub.get(actor.session.id) is None:
            self._on_gone(actor.session.id)

    def poll(self, actors: Sequence[Actor]) -> None:
        """Check some of *actors*, by turns, unless those of an earlier poll are still being checked."""
        if self._is_polling or not (actors and self._store.is_shared):
            return
        begin = self._polled if self._polled < len(actors) else 0
        with suppress(NodeDraining):
            self._spawn(self._check_all(actors[begin : begin + _ASKED_AT_ONCE]))
            self._polled = begin + _ASKED_AT_ONCE
            self._is_polling = True

    async def _check_all(self, actors: Sequence[Actor]) -> None:
        try:
            for actor in actors:
                await self.check(actor)
        finally:
            self._is_polling = False
