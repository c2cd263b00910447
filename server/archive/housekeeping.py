"""What is done in the archive from time to time: old turns are forgotten, and ended sessions found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from unbroken.server.archive.base import AnnounceEnd, Archive, ArchiveUnavailable, Queue
from unbroken.server.plan_tables import DEFAULT_PLAN
from unbroken.server.throttle import Throttle
from unbroken.sessions.clock import Clock, pause
from unbroken.sessions.errors import SessionGone, StoreUnavailable, UnknownFormat
from unbroken.sessions.ids import SessionId

__all__ = ["Housekeeping", "Retention"]

_ROUND: Final = 60.0
"""Seconds between two rounds."""

_BATCH: Final = 500
"""Turns that are forgotten in one transaction."""

_BATCHES: Final = 20
"""Of them, in one round."""

_SESSIONS: Final = 200
"""Sessions that are looked at at once."""

_LOOKING: Final = 20.0
"""Seconds of a round in which more are begun with."""

_FAILURES: Final = 3
"""Sessions in a row that the store can't be asked for: then it is asked in the next round."""

_BURIED_KEPT: Final = 7 * 86_400.0
"""Seconds for which webhooks are kept that weren't delivered."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long turns are kept, by plan: seconds; None: for ever. See :class:`Terms`."""

    by_plan: Mapping[str, float | None]
    idle: float

    def keeps(self, plan: str) -> bool:
        """See :meth:`Terms.keeps`."""
        return self.by_plan.get(plan, self.by_plan.get(DEFAULT_PLAN)) != 0.0

    def cutoffs(self, now: float) -> tuple[dict[str, float | None], float | None]:
        """Return before when turns are forgotten, by plan, and for all other plans."""
        cutoffs = {plan: None if each is None else now - each for plan, each in self.by_plan.items()}
        return cutoffs, cutoffs.pop(DEFAULT_PLAN, None)


class Housekeeping:
    """Keeps the archive in order until it is closed.

    Args:
        archive: The archive.
        queue: The webhooks that wait in it.
        endpoints: For whom they may wait.
        retention: How long turns are kept.
        is_there: Says whether the store has a session: raises SessionGone, or StoreUnavailable.
        announce: Says who is to be told that a session has ended, at that time.
        clock: Where time comes from.
        on_expired: Told how many turns were forgotten.

    """

    def __init__(
        self,
        archive: Archive,
        queue: Queue,
        endpoints: Sequence[str],
        retention: Retention,
        is_there: Callable[[SessionId], Awaitable[object]],
        announce: AnnounceEnd,
        clock: Clock,
        *,
        on_expired: Callable[[int], None],
    ) -> None:
        self._archive = archive
        self._queue = queue
        self._endpoints = endpoints
        self._retention = retention
        self._is_there = is_there
        self._announce = announce
        self._clock = clock
        self._on_expired = on_expired
        self._throttle = Throttle(clock, lines=1)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop. What was begun is done wholly, or not at all."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        while True:
            await self.look()
            await pause(self._clock, _ROUND)

    async def look(self) -> None:
        """Do what is due. What can't be done now is logged, and keeps nothing else from being done."""
        await self._try("forget turns", self._expire)
        await self._try("find ended sessions", self._find_ended)
        await self._try("forget webhooks", self._forget_webhooks)

    async def _try(self, step: str, work: Callable[[], Awaitable[None]]) -> None:
        log = structlog.get_logger()
        try:
            await work()
        except (ArchiveUnavailable, StoreUnavailable) as exc:
            if self._throttle.admit(step) is not None:
                reason = str(exc) if isinstance(exc, ArchiveUnavailable) else "the store can't be reached"
                log.warning("housekeeping put off", step=step, reason=reason)
        except Exception as exc:  # the boundary: there is another round
            if self._throttle.admit(f"{step}: crashed") is not None:
                log.error("housekeeping crashed", step=step, exc_info=exc)

    async def _expire(self) -> None:
        cutoffs, default = self._retention.cutoffs(self._clock.time())
        for _ in range(_BATCHES):
            count = await self._archive.expire(cutoffs, _BATCH, default=default)
            self._on_expired(count)
            if count < _BATCH:
                break

    async def _forget_webhooks(self) -> None:
        before = self._clock.time() - _BURIED_KEPT
        await self._queue.forget(before, self._endpoints, _BATCH)

    async def _find_ended(self) -> None:
        over_at = self._clock.monotonic() + _LOOKING
        count = _SESSIONS
        while count == _SESSIONS and self._clock.monotonic() < over_at:
            count = await self._look_at_some()

    async def _look_at_some(self) -> int:
        """Look at sessions of which it is time, and return how many: each is put off, or has ended."""
        now = self._clock.time()
        sessions = await self._archive.unchecked(now, _SESSIONS)
        there: list[SessionId] = []
        unasked: list[SessionId] = []
        failures = 0  # in a row
        for session in sessions:
            try:
                await self._is_there(session.id)
            except StoreUnavailable:  # a part of it may be, and keeps no sessions of the others waiting
                unasked.append(session.id)
                failures += 1
                if failures == _FAILURES:
                    break
                continue
            except SessionGone:
                await self._archive.ended(session, now, self._announce(session, now))
            except UnknownFormat:  # what a later release has written
                there.append(session.id)
            else:  # somebody is connected to it, or came back
                there.append(session.id)
            failures = 0
        if there:
            await self._archive.still_there(there, now + max(_ROUND, self._retention.idle / 4))
        if unasked:
            await self._archive.still_there(unasked, now + _ROUND)
        if failures == _FAILURES:
            raise StoreUnavailable
        return len(sessions)
