"""What sessions are suspected of, where several nodes serve them: it goes with a session, in Redis.

A hash for each session that was suspected within the last hour or so, beside the session's own keys; it goes
by itself. Not in the session's log: what is blocked isn't in that, and sessions know no policy. Redis
is asked only about what is suspicious, so that ordinary messages cost it nothing.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

import structlog

from unbroken.server.guards.injection.suspicion import HALF_LIFE, MOST, MemorySuspicion
from unbroken.sessions.backends.redis.connection import Client, unavailable
from unbroken.sessions.backends.redis.keys import Keys
from unbroken.sessions.backends.redis.scripts import Caller, Scripts
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import SessionId

__all__ = ["RedisSuspicion"]

_AT_ONCE: Final = 1
"""Calls under way: of the connections that are beside those for sessions' calls."""

_PATIENCE: Final = 0.2
"""Seconds that a message waits for it at most."""

_REST: Final = 5.0
"""Seconds for which Redis isn't asked after it has failed: messages don't all wait."""


class RedisSuspicion:
    """A :class:`~unbroken.server.guards.injection.suspicion.Suspicion` that nodes share.

    Each node remembers besides what it has seen itself: that is what is known while Redis is out of reach.

    Args:
        client: How it is reached. The caller's, to close.
        keys: What things are called there.
        clock: Where this node's time comes from; what is shared goes by Redis' own.
        patience: Seconds after which it counts as out of reach.

    """

    def __init__(self, client: Client, keys: Keys, clock: Clock, *, patience: float = _PATIENCE) -> None:
        self._keys = keys
        self._clock = clock
        self._patience = patience
        self._own = MemorySuspicion(clock)
        self._rests_until = float("-inf")
        self._scripts = Scripts(
            cast(Caller, client),
            _AT_ONCE,
            patience,
            package="unbroken.server.guards.injection",
            names=("suspicion_add",),
        )

    async def add(self, session_id: SessionId, score: float) -> float:
        """See :meth:`Suspicion.add`."""
        own = await self._own.add(session_id, score)
        if self._clock.monotonic() < self._rests_until:
            return own
        try:
            async with asyncio.timeout(self._patience):
                before = await self._scripts.call(
                    "suspicion_add", [self._keys.suspicion(session_id)], score, MOST, HALF_LIFE
                )
        except TimeoutError:
            reason = "no answer in time"
        except Exception as exc:
            error = unavailable(exc)
            if error is None:
                raise
            reason = type(error).__name__  # what it quotes may be an address with a password
        else:
            return max(own, float(before))
        self._rests_until = self._clock.monotonic() + _REST
        structlog.get_logger().warning("suspicion not shared", reason=reason)
        return own
