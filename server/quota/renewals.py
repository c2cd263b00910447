"""What keeps the reservations of turns that run, though they say nothing, and of those that wait behind them.

A turn that speaks holds its own as it goes on: there it comes to more, and gets it back if it was lost. One
that is silent can't, for as long as its stall timeout allows: a timer, one for all, keeps what it has. With
the node, or its loop, the timer stops, and what was reserved lapses.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from unbroken.server.auth.principal import Principal
from unbroken.server.quota.background import Background
from unbroken.server.quota.reservations import RENEWAL, Reservations, remember, turn_id
from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.ids import ResponseId, SessionId
from unbroken.sessions.responder import Turn

__all__ = ["Renewals", "Running"]

_SESSIONS_KNOWN: Final = 10_000
"""Sessions of which it is known when what waits there is to be held again. In one that was forgotten it is at
once."""

_AT_A_STRETCH: Final = 100
"""Turns that are looked at before others have their turn in the loop."""


@dataclass(slots=True, eq=False)
class Running:
    """A turn that runs here."""

    tenant: str
    session_id: SessionId
    turn: str
    """What it is called in the ledger."""
    keep_at: float
    """When its reservation is to be kept, unless it is held before then."""


class Renewals:
    """Those of one node.

    Args:
        reservations: What turns have reserved.
        background: Where it is kept.
        clock: Where time comes from.
        waiting: Says which responses of a session that runs here wait behind another.

    """

    def __init__(
        self,
        reservations: Reservations,
        background: Background,
        clock: Clock,
        waiting: Callable[[SessionId], Sequence[ResponseId]],
    ) -> None:
        self._reservations = reservations
        self._background = background
        self._clock = clock
        self._waiting = waiting
        self._running: dict[Running, None] = {}
        self._waiting_at: OrderedDict[SessionId, float] = OrderedDict()  # when to hold what waits there
        self._timer: Timer | None = None  # None: nothing runs
        self._is_keeping = False
        self._is_closed = False

    @contextmanager
    def running(self, principal: Principal, turn: Turn) -> Iterator[Running]:
        """Keep what a turn has reserved as long as it runs: it was held just now."""
        name = turn_id(turn.session_id, turn.response_id)
        running = Running(principal.tenant, turn.session_id, name, self._clock.monotonic() + RENEWAL)
        self._running[running] = None
        self._set()
        try:
            yield running
        finally:
            del self._running[running]
            if not self._running:
                self._stop()

    def keep_waiting(self, running: Running) -> float:
        """Go on holding what was reserved for responses that wait: they are turns at once, too.

        It is the session's turns that come to a renewal together: each alone may be too short for one.
        Return when to do so again.
        """
        if waiting := self._due_waiting(running):
            self._reservations.keep(running.tenant, waiting)
        return self._waiting_at[running.session_id]

    def _due_waiting(self, running: Running) -> list[str]:
        """Return what waits behind a turn and is to be held again now. It counts as held."""
        session_id, now = running.session_id, self._clock.monotonic()
        if now < self._waiting_at.get(session_id, now):
            return []
        remember(self._waiting_at, session_id, now + RENEWAL, _SESSIONS_KNOWN)
        return [turn_id(session_id, each) for each in self._waiting(session_id)]

    def close(self) -> None:
        """Keep nothing any more."""
        self._is_closed = True
        self._stop()

    # The timer.

    def _set(self) -> None:
        if self._timer is None and not self._is_closed:
            self._timer = self._clock.call_later(RENEWAL, self._renew)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _renew(self) -> None:
        self._timer = None
        self._set()
        if not self._is_keeping:  # a ledger that is slow isn't asked for more
            self._is_keeping = True
            self._background.begin(self._keep_silent())

    async def _keep_silent(self) -> None:
        """Keep one after another: whoever asks for a turn waits for the same ledger, and for the loop."""
        try:
            for number, running in enumerate(list(self._running)):
                if number % _AT_A_STRETCH == 0:
                    await asyncio.sleep(0)
                for turn in self._due(running):
                    await self._reservations.keep_one(running.tenant, turn)
        finally:
            self._is_keeping = False

    def _due(self, running: Running) -> list[str]:
        """Return what is to be kept now of a turn, and of those behind it. It counts as kept."""
        if self._is_closed or running not in self._running:
            return []
        waiting, now = self._due_waiting(running), self._clock.monotonic()
        if now < running.keep_at:
            return waiting
        running.keep_at = now + RENEWAL
        return [running.turn, *waiting]
