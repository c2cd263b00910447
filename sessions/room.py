"""Has room for what comes to a full node: who has much there makes it, and what has rested for long does.

As long as there is room, anybody may have all of it.
"""

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

        On a full node those make it who have more than their share, by what they have at rest, and
        *principal* itself ahead of all others if it has that; then whatever has rested for long. So it is
        among strangers who have all that they may have together, for one of them.

        Raises:
            TooManySessions: There is none, and *principal* has its share.
            NodeFull: There is none all the same.

        """
        await self._have(principal, lambda: self._holders.strangers_have_all(principal), of_strangers=True)
        await self._have(principal, lambda: self._is_full)

    async def make_to_grow(self, principal: PrincipalId) -> None:
        """Have room for more in a session of *principal*'s. Raises as :meth:`make`."""
        holders, limits = self._holders, self._limits
        await self._have(
            principal, lambda: holders.strangers_have_all_bytes(principal), of_strangers=True, clears=False
        )
        await self._have(principal, lambda: self._hub.size >= limits.bytes, clears=False)

    @property
    def _is_full(self) -> bool:
        return len(self._hub) >= self._limits.sessions or self._hub.size >= self._limits.bytes

    async def _have(
        self,
        principal: PrincipalId,
        is_full: Callable[[], bool],
        *,
        of_strangers: bool = False,
        clears: bool = True,
    ) -> None:
        if not is_full():
            return
        for actor in self._holders.own_to_spare(principal):
            await self._forget(actor)
            if not is_full():
                return
        for actor in self._holders.to_spare(of_strangers=of_strangers)[: self._at_once]:
            await self._forget(actor)
        if clears and is_full():
            await self._clear(self._holders.strangers() if of_strangers else self._hub)
        if is_full():
            raise TooManySessions if self._holders.has_share(principal) else NodeFull

    @property
    def _at_once(self) -> int:
        """How many sessions go at once: looking for them costs a walk through all."""
        return 1 + len(self._hub) // 100

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
        for actor in idle[: self._at_once]:
            await self._forget(actor)
