"""Whom a principal's id stands for. Logs, sessions and turns hold the id alone; policies need the rest."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from unbroken.server.auth.principal import Principal
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import PrincipalId

__all__ = ["Directory", "MemoryDirectory"]

_LIFETIME: Final = 7 * 86_400.0
"""Seconds: longer than a session lives without a connection, whose turns may be taken up again."""

_REMEMBERED: Final = 100_000
"""Principals; the one that was noted longest ago is forgotten for a new one. Some 50 MB."""


class Directory(Protocol):
    """Knows principals by their ids.

    Guarantees: whom a node has noted, every node finds, for as long as a session of theirs may live
    without them: as it was noted last there, elsewhere as it was within the last minute. It says who
    somebody is, never whether they may come in: somebody who has expired is found all the same, since
    their turns go on. Nor does it say by which plan something came: who has several is found with the one
    that was noted last (see :meth:`~unbroken.server.auth.principal.Principal.by`).
    """

    async def note(self, principal: Principal) -> None:
        """Remember *principal*. At admission: nothing is asked about anybody who wasn't let in.

        Never fails: where the others can't be told for the moment, this node knows it all the same.
        """

    async def find(self, principal_id: PrincipalId) -> Principal | None:
        """Return whom *principal_id* stands for; None: it isn't known here.

        Raises:
            StoreUnavailable: This node doesn't know, and the others can't be asked for the moment.

        """

    async def known(self, principal_id: PrincipalId) -> Principal | None:
        """Return whom *principal_id* stands for; None: nobody can say, be it for the moment. Never fails.

        For policies that have something to go by for somebody who isn't known.
        """
        try:
            return await self.find(principal_id)
        except StoreUnavailable:
            return None


class MemoryDirectory(Directory):
    """A :class:`Directory` of one node, which it ends with. O(1), and bounded."""

    def __init__(self, clock: Clock, *, lifetime: float = _LIFETIME, remembered: int = _REMEMBERED) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._remembered = remembered
        # Each with when it is forgotten; who was noted last is last.
        self._known: OrderedDict[PrincipalId, tuple[Principal, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    async def note(self, principal: Principal) -> None:
        """See :meth:`Directory.note`."""
        now, known = self._clock.monotonic(), self._known
        known[principal.id] = principal, now + self._lifetime
        known.move_to_end(principal.id)
        while len(known) > self._remembered or next(iter(known.values()))[1] <= now:
            known.popitem(last=False)

    async def find(self, principal_id: PrincipalId) -> Principal | None:
        """See :meth:`Directory.find`."""
        principal, until = self._known.get(principal_id, (None, 0.0))
        return principal if self._clock.monotonic() < until else None
