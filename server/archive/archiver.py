"""Brings turns from the store's outbox into the archive: each node those of all.

A node hears of what it has put there itself, and looks for what others have left there: they may be dead.
What two nodes bring is there once. A turn leaves the outbox only when it is in the archive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import structlog

from unbroken.server.archive.base import Archive, ArchiveUnavailable, Delivery, NewTurn
from unbroken.server.auth.directory import Directory
from unbroken.server.auth.principal import Principal
from unbroken.server.throttle import Throttle
from unbroken.sessions.backends.outbox import Outbox, Parcel
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import StoreUnavailable, UnknownFormat
from unbroken.sessions.finished import FinishedTurn, decode_turn
from unbroken.sessions.ids import PrincipalId

__all__ = ["Announce", "Archiver", "Terms"]

_AT_ONCE: Final = 64
"""Turns in one transaction."""

_SEARCH: Final = 15.0
"""Seconds after which a node looks for what others have left."""

_FIRST_RETRY: Final = 1.0
_LAST_RETRY: Final = 30.0
"""Seconds after which an archive that failed is tried again, first and at most."""

_FAILURES: Final = 3
"""Parts in a row that can't be reached, of those that there is something in: then it is tried later."""

_KEPT: Final = 7 * 86_400.0
"""Seconds for which a turn stays in the outbox that can't be read here, or not be written: for as long as a
part of it lasts into which nothing is put.
"""

_LAST_LOOK: Final = 5.0
"""Seconds that a node which ends takes to bring what is there."""


class Terms(Protocol):
    """What is kept, and for how long."""

    @property
    def idle(self) -> float:
        """Seconds without a turn after which a session may have ended."""

    def keeps(self, plan: str) -> bool:
        """Return whether anything is kept of who is on *plan*."""


class Announce(Protocol):
    """Says who is to be told that a turn has ended."""

    def __call__(
        self, turn: FinishedTurn, whose: Principal | None, *, is_attended: bool
    ) -> Sequence[Delivery]:
        """Return the webhooks to send."""


class Archiver:
    """Brings turns into the archive until it is closed.

    Args:
        outbox: Where they come from.
        archive: Where they go to.
        directory: Knows whose they are.
        terms: What is kept.
        announce: Says what is to be sent of them.
        clock: Where time comes from.
        on_outcome: Told what became of how many turns.
        on_failure: Told of each time that the archive can't be used.
        on_waiting: Told how many wait on all nodes, and for how many seconds the oldest does.
        on_written: Told when something was written.
        on_lost: Told how many turns there was no room for in the outbox, or nobody could bring in time.

    """

    def __init__(
        self,
        outbox: Outbox,
        archive: Archive,
        directory: Directory,
        terms: Terms,
        announce: Announce,
        clock: Clock,
        *,
        on_outcome: Callable[[str, int], None],
        on_failure: Callable[[], None],
        on_waiting: Callable[[int, float], None],
        on_written: Callable[[], None],
        on_lost: Callable[[int], None],
    ) -> None:
        self._outbox = outbox
        self._archive = archive
        self._directory = directory
        self._terms = terms
        self._announce = announce
        self._clock = clock
        self._on_outcome = on_outcome
        self._on_failure = on_failure
        self._on_waiting = on_waiting
        self._on_written = on_written
        # In which there is something, or may be; an outbox has few. Those that failed last are last.
        self._parts: dict[int, None] = {}
        self._search_at = float("-inf")  # by the clock
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._throttle = Throttle(clock, lines=1)
        self._on_lost = on_lost
        outbox.on_news = self._heard
        outbox.on_lost = self._lost

    def start(self) -> None:
        """Begin to bring them."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Bring what is there now, if that doesn't take long, and stop. Others bring the rest, or later."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait((task,))
        with suppress(ArchiveUnavailable, StoreUnavailable, TimeoutError):
            async with asyncio.timeout(_LAST_LOOK):
                await self._bring()

    def _heard(self, part: int) -> None:
        self._parts[part] = None
        self._wanted.set()

    def _lost(self, count: int) -> None:
        self._on_lost(count)
        if self._throttle.admit("lost") is not None:
            hint = (
                "The archive has been out of reach for too long, or UNBROKEN_ARCHIVE_OUTBOX_BYTES is too low."
            )
            structlog.get_logger().error("turns will not be archived", count=count, hint=hint)

    async def _run(self) -> None:
        log, failures = structlog.get_logger(), 0
        while True:
            self._wanted.clear()
            try:
                if self._clock.monotonic() >= self._search_at:
                    await self._search()
                await self._bring()
            except (ArchiveUnavailable, StoreUnavailable) as exc:
                failures += 1
                self._on_failure()
                if self._throttle.admit("archive") is not None:
                    reason = str(exc) if isinstance(exc, ArchiveUnavailable) else "the store can't be reached"
                    log.warning("archive out of reach", reason=reason)
                await self._rest(min(_LAST_RETRY, _FIRST_RETRY * 2 ** min(failures - 1, 10)))
                continue
            except Exception as exc:  # the boundary: what fails here doesn't stop what comes next
                failures += 1
                self._on_failure()
                log.error("archiver crashed", exc_info=exc)
                await self._rest(_LAST_RETRY)
                continue
            failures = 0
            if not self._parts:
                await self._until_wanted()

    async def _rest(self, seconds: float) -> None:
        is_over = asyncio.Event()
        timer = self._clock.call_later(seconds, is_over.set)
        try:
            await is_over.wait()
        finally:
            timer.cancel()

    async def _until_wanted(self) -> None:
        """Return when there is something here, or it is time to search."""
        left = max(0.0, self._search_at - self._clock.monotonic())
        timer = self._clock.call_later(left, self._wanted.set)
        try:
            await self._wanted.wait()
        finally:
            timer.cancel()

    async def _search(self) -> None:
        shelves = await self._outbox.shelves()
        self._search_at = self._clock.monotonic() + _SEARCH
        self._parts.update(dict.fromkeys(shelf.part for shelf in shelves))
        now = self._clock.time()
        oldest = min((shelf.since for shelf in shelves), default=now)
        self._on_waiting(sum(shelf.count for shelf in shelves), max(0.0, now - oldest))

    async def _bring(self) -> None:
        """Bring all that there is in the parts that are known to hold something.

        Parts may be on several servers: one that can't be reached keeps no turns of the others waiting.
        """
        failures = 0
        for part in list(self._parts):
            del self._parts[part]
            try:
                await self._empty(part)
            except BaseException as exc:
                self._parts[part] = None
                failures += isinstance(exc, StoreUnavailable)
                if not isinstance(exc, StoreUnavailable) or failures == _FAILURES:
                    raise
        if failures:
            raise StoreUnavailable

    async def _empty(self, part: int) -> None:
        after = ""
        while parcels := await self._outbox.take(part, _AT_ONCE, after=after):
            after = parcels[-1].key
            await self._outbox.settle(await self._write(parcels))

    async def _write(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Write what *parcels* hold. Return those that can be settled: the rest stays for who can read it."""
        readable: list[Parcel] = []
        unreadable: list[tuple[Parcel, Exception]] = []
        turns: list[NewTurn] = []
        known: dict[PrincipalId, Principal | None] = {}
        for parcel in parcels:
            try:
                turn = decode_turn(parcel.data)
            except UnknownFormat as exc:
                unreadable.append((parcel, exc))
                continue
            turns.append(await self._new(turn, known, is_attended=parcel.is_attended))
            readable.append(parcel)
        try:
            count = await self._archive.write(turns, self._clock.time()) if turns else 0
        except ArchiveUnavailable:
            raise
        except Exception:  # noqa: BLE001 - one that can't be written doesn't keep the others waiting
            readable = await self._write_apart(readable, turns)
        else:
            self._note(count, len(turns))
        return readable + [each for each, exc in unreadable if self._is_given_up(each, exc, "unreadable")]

    async def _write_apart(self, parcels: Sequence[Parcel], turns: Sequence[NewTurn]) -> list[Parcel]:
        settled: list[Parcel] = []
        for parcel, turn in zip(parcels, turns, strict=True):
            try:
                self._note(await self._archive.write([turn], self._clock.time()), 1)
            except ArchiveUnavailable:
                raise
            except Exception as exc:  # noqa: BLE001 - the boundary: it is told of there
                if not self._is_given_up(parcel, exc, "failed"):
                    continue
            settled.append(parcel)
        return settled

    def _note(self, new: int, count: int) -> None:
        self._on_outcome("written", new)
        self._on_outcome("known", count - new)
        if new:
            self._on_written()

    def _is_given_up(self, parcel: Parcel, exc: Exception, outcome: str) -> bool:
        """Note that a turn can't be brought. It is tried again, here or where it can be read, for a time."""
        is_old = self._clock.time() - parcel.since > _KEPT
        if is_old:
            self._on_lost(1)
        else:
            self._on_outcome(outcome, 1)
        event = "turn given up" if is_old else "turn not archived"
        if self._throttle.admit(f"{event} {outcome}") is not None:
            structlog.get_logger().error(event, outcome=outcome, exc_info=exc)
        return is_old

    async def _new(
        self, turn: FinishedTurn, known: dict[PrincipalId, Principal | None], *, is_attended: bool
    ) -> NewTurn:
        principal_id = turn.principal or PrincipalId("")
        if principal_id not in known:
            known[principal_id] = await self._directory.find(principal_id)
        whose = known[principal_id]
        plan = turn.plan or ("default" if whose is None else whose.plan)
        return NewTurn(
            turn=turn,
            principal=principal_id,
            tenant="" if whose is None else whose.tenant,
            user="" if whose is None else whose.user,
            plan=plan,
            is_kept=self._terms.keeps(plan),
            check_at=turn.ended_at + self._terms.idle,
            deliveries=self._announce(turn, whose, is_attended=is_attended),
        )
