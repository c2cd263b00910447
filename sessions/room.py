"""Has room for what comes to a node: who has much there makes it, and what has rested for long does."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable

from unbroken.sessions.actor import Actor
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import NodeFull, TooManySessions
from unbroken.sessions.holders import Holders, HoldingLimits
from unbroken.sessions.hub import Hub
from unbroken.sessions.ids import PrincipalId
from unbroken.sessions.node_limits import NodeLimits

__all__ = ["Room", "part_of"]


def part_of(limits: NodeLimits, share: float) -> HoldingLimits:
    """Return the *share* of what a node holds, at the least a session as large as one may be. 1: no bound."""
    if share >= 1:
        return HoldingLimits(sessions=sys.maxsize, bytes=sys.maxsize)
    largest = limits.session.conversation_bytes + limits.actor.log_bytes
    return HoldingLimits(
        sessions=max(1, int(share * limits.sessions)), bytes=max(largest, int(share * limits.bytes))
    )


class Room:
    """What a node has left.

    Args:
        hub: The node's sessions.
        holders: Whose they are.
        forget: Lets go of a session, unless it isn't at rest (any more).
        limits: What the node holds.
        clock: Where time comes from.
        is_shared: Whether a store keeps what is let go of.

    """

    def __init__(
        self,
        hub: Hub,
        holders: Holders,
        forget: Callable[[Actor], Awaitable[None]],
        limits: NodeLimits,
        clock: Clock,
        *,
        is_shared: bool,
    ) -> None:
        self._hub = hub
        self._holders = holders
        self._forget = forget
        self._limits = limits
        self._clock = clock
        self._is_shared = is_shared

    async def make(self, principal: PrincipalId) -> None:
        """Have room for one more session of *principal*'s.

        Those that it has at rest make room for it. Nobody else's do, but for those that have rested for long
        where the node is full, or what strangers may have of it.

        Raises:
            TooManySessions: It has as many as one may, and none at rest.
            NodeFull: The node is full, or what strangers may have of it.

        """
        await self._let_go(principal, self._holders.has_all)
        if self._holders.strangers_have_all(principal):
            await self._clear(self._holders.strangers())
            if self._holders.strangers_have_all(principal):
                raise NodeFull
        if self._is_full:
            await self._clear(self._hub)
            if self._is_full:
                raise NodeFull

    async def make_to_grow(self, principal: PrincipalId) -> None:
        """Have room for more in a session of *principal*'s. Raises as :meth:`make`."""
        if self._hub.size >= self._limits.bytes or self._holders.strangers_have_all_bytes(principal):
            raise NodeFull
        await self._let_go(principal, self._holders.has_all_bytes)

    @property
    def _is_full(self) -> bool:
        return len(self._hub) >= self._limits.sessions or self._hub.size >= self._limits.bytes

    async def _let_go(self, principal: PrincipalId, has_all: Callable[[PrincipalId], bool]) -> None:
        """Forget sessions that *principal* has at rest, who was left first ahead, as long as it *has_all*."""
        if not has_all(principal):
            return
        for actor in self._holders.at_rest(principal):
            await self._forget(actor)
            if not has_all(principal):
                return
        raise TooManySessions

    async def _clear(self, actors: Iterable[Actor]) -> None:
        """Forget some of those sessions that have been idle for longest, if any has been for long enough.

        Those that a shared store holds are lost to nobody.
        """
        now = self._clock.monotonic()
        idle = [
            actor
            for actor in actors
            if actor.is_idle
            and (
                not actor.is_opened or self._is_shared or now - actor.last_active >= self._limits.room_timeout
            )
        ]
        idle.sort(key=lambda actor: actor.last_active)
        # Several at once: looking for them costs a walk through all.
        for actor in idle[: 1 + len(self._hub) // 100]:
            await self._forget(actor)
