"""Sessions that somebody is connected to: a store in which others expire is told of them from time to time.

Nothing may be said in them for longer than a session lasts there. Each node sees to its own connections,
whoever the owner is: that one may have none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import NodeDraining, StoreUnavailable

__all__ = ["Keeping"]

_TIMES: Final = 12
"""How often in a session's lifetime: by so much it may be short, from when the last connection has gone."""

_SOONER: Final = 0.9
"""How much of the time until then is left out when the store hasn't done it."""

_AT_ONCE: Final = 1024
"""Sessions that a poll tells of. Of more, the rest is told of at the next ones."""


class Keeping:
    """Has the store keep them.

    Args:
        store: Where they are.
        clock: Where time comes from.
        spawn: Starts a task of the node's.
        lifetime: Seconds that a session lasts in the store.
        on_kept: Told of each that it keeps.

    """

    def __init__(
        self,
        store: SessionStore,
        clock: Clock,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        lifetime: float,
        on_kept: Callable[[Actor], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._spawn = spawn
        self._interval = lifetime / _TIMES
        self._on_kept = on_kept
        self._is_at_it = False

    def poll(self, actors: Iterable[Actor]) -> None:
        """Have those of *actors* kept to which somebody is connected, and of which it is time to tell."""
        if self._is_at_it or not self._store.is_shared:
            return
        latest = self._clock.monotonic() - self._interval
        due = (
            actor
            for actor in actors
            # What is of a part that is out of reach comes back with a write, or is read then.
            if actor.kept_at <= latest and len(actor.feed) and actor.is_opened and not actor.outage.is_on
        )
        if now := list(islice(due, _AT_ONCE)):
            with suppress(NodeDraining):
                self._spawn(self._keep(now))
                self._is_at_it = True

    async def _keep(self, actors: Sequence[Actor]) -> None:
        kept_at = self._clock.monotonic()
        try:
            await self._store.keep([actor.session.id for actor in actors])
        except StoreUnavailable:
            kept_at -= _SOONER * self._interval
        finally:
            self._is_at_it = False
        for actor in actors:
            actor.kept_at = kept_at
            self._on_kept(actor)
