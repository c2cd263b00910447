"""How many sessions somebody may have stored, in use or at rest: counted by the index that lists them.

It is asked of each session that is about to begin, ahead of its first input. Near the bound that
lists it, in the step that counts: of any number at once, on all nodes, no more begin than may. Far from it,
a few are begun by one count. Where the index can't be asked, nobody is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from unbroken.server.auth.principal import Principal
from unbroken.server.fair_names import FairName
from unbroken.server.quota.plans import Plans
from unbroken.server.quota.reservations import remember
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.index import SessionIndex
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import Refusal, StoreUnavailable
from unbroken.sessions.gates import Gates
from unbroken.sessions.ids import PrincipalId, SessionId, is_transient

__all__ = ["StoredSessions"]

_COUNTED_FOR: Final = 10.0
"""Seconds for which a count that is far from the bound is gone by, with what has been begun here since."""

_FAR: Final = 0.75
"""Of the bound: what is below that is far from it."""

_UNASKED: Final = 1 / 64
"""Of the bound: how many are begun by one such count."""

_FULL_FOR: Final = 60.0
"""Seconds after which it is looked again whether all that is listed is still there."""

_BEGUN_WITHIN: Final = 15_000
"""Milliseconds for which a session that is listed may be about to begin: it isn't looked up whether it is."""

_LOOKED_AT: Final = 64
"""Sessions of which it is looked up together whether they are."""

_KNOWN: Final = 10_000
"""Principals."""


@dataclass(slots=True)
class _Count:
    """How many somebody may begin by what was counted last."""

    left: int
    at: float


class StoredSessions:
    """Refuses sessions beyond what somebody may have stored.

    Args:
        index: Counts them.
        store: Knows whether they are still there.
        clock: Where time comes from.
        most: Of one user, or of the strangers of one address; 0: there is no bound. A key that names no user
            may speak for all whom its application serves, and is bound by its plan alone.
        plans: Which may allow fewer. None: none does.
        name_of: Says for whom a stranger's sessions count. All others' are their own.

    """

    def __init__(
        self,
        index: SessionIndex,
        store: SessionStore,
        clock: Clock,
        *,
        most: int,
        plans: Plans | None,
        name_of: FairName,
    ) -> None:
        self._index = index
        self._store = store
        self._clock = clock
        self._most = most
        self._plans = plans
        self._name_of = name_of
        self._gates = Gates()
        self._counts: OrderedDict[PrincipalId, _Count] = OrderedDict()
        self._full: OrderedDict[PrincipalId, float] = OrderedDict()  # since when, as far as was looked
        self._unanswered: OrderedDict[PrincipalId, float] = OrderedDict()  # when the index was last away

    async def admit(self, principal: Principal, session_id: SessionId) -> None:
        """Have a session of *principal*'s begin in the store.

        Raises:
            Refusal: They have as many as may be.

        """
        most = self._most_of(principal)
        if not most or is_transient(session_id):
            return
        whose = PrincipalId(self._name_of(principal.id))
        with suppress(StoreUnavailable):
            at = int(1000 * self._clock.time())
            if not await self._is_let_in(whose, session_id, at, most):
                message = (
                    f"{most} conversations are stored for you, as many as may be. Delete some, "
                    "with DELETE /v1/conversations/{id}, or come back when some have ended by themselves."
                )
                raise Refusal("too_many_stored_sessions", message)
            if whose != principal.id:  # nobody else lists them together
                await self._index.note(whose, {session_id: at})

    def _most_of(self, principal: Principal) -> int:
        most = 0 if principal.names_no_user else self._most
        by_plan = None if self._plans is None else self._plans.sessions(principal.plan)
        if by_plan is None:
            return most
        return min(by_plan, most) if most else by_plan

    async def _is_let_in(self, whose: PrincipalId, session_id: SessionId, at: int, most: int) -> bool:
        """Ask, one at a time: a crowd would wait for the index until it is taken to be out of reach."""
        came = self._clock.monotonic()
        async with self._gates.through(SessionId(whose)):
            if self._unanswered.get(whose, float("-inf")) >= came:
                return True  # it was out of reach to somebody ahead: nobody waits to find out the same
            try:
                return await self._has_room(whose, session_id, at, most)
            except StoreUnavailable:
                remember(self._unanswered, whose, self._clock.monotonic(), _KNOWN)
                raise

    async def _has_room(self, whose: PrincipalId, session_id: SessionId, at: int, most: int) -> bool:
        now, known = self._clock.monotonic(), self._counts.get(whose)
        if known is not None and now - known.at < _COUNTED_FOR and known.left:
            known.left -= 1
            return True
        stored = await self._index.admit(whose, session_id, at, most)
        if stored >= most:
            if now - self._full.get(whose, float("-inf")) < _FULL_FOR:
                return False
            remember(self._full, whose, now, _KNOWN)  # ahead of looking: one at a time does
            if await self._without_gone(whose, stored, most, at - _BEGUN_WITHIN) >= most:
                return False
            stored = await self._index.admit(whose, session_id, at, most)
            if stored >= most:  # others were faster
                return False
            self._full.pop(whose, None)
        left = int(_UNASKED * most) if stored < _FAR * most else 0
        remember(self._counts, whose, _Count(left, now), _KNOWN)
        return True

    async def _without_gone(self, whose: PrincipalId, stored: int, most: int, latest: int) -> int:
        """Drop sessions that have ended from the list, until there is room; return how many are left.

        Of what was listed after *latest* the beginning may be on its way.
        """
        after: SessionId | None = None
        while stored >= most:
            page = await self._index.page(whose, _LOOKED_AT, after=after, oldest_first=True)
            if not page:
                break
            names = [each.session_id for each in page]
            found = await self._store.metadata(names)
            gone = [
                each.session_id
                for each, noted in zip(page, found, strict=True)
                if noted is None and each.at <= latest
            ]
            there = [name for name in names if name not in gone]
            await self._index.drop(whose, gone)
            stored -= len(gone)
            if there:
                after = there[-1]
        return stored
