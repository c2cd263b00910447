"""Old turns are forgotten, and sessions found that have ended."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from tests.fakes.clock import FakeClock
from tests.fakes.database import WatchedDatabase
from tests.server.archive.turns import ALICE, new, session_of, turn
from unbroken.server.archive.base import ArchivedSession, Delivery
from unbroken.server.archive.database import Database
from unbroken.server.archive.housekeeping import Housekeeping, Retention
from unbroken.server.archive.queue import SqlQueue
from unbroken.server.archive.sql import SqlArchive
from unbroken.sessions.errors import SessionGone, StoreUnavailable, UnknownFormat
from unbroken.sessions.ids import SessionId


class House:
    """An archive, and a store that has some sessions."""

    def __init__(self, archive: SqlArchive, queue: SqlQueue) -> None:
        self.clock = FakeClock()
        self.archive = archive
        self.queue = queue
        self.there: set[SessionId] = set()
        self.is_out = False
        self.unreadable: set[SessionId] = set()
        self.out_of_reach: set[SessionId] = set()
        self.asked: list[SessionId] = []
        self.takes = 0.0
        """Seconds that each look takes."""
        self.expired = 0

    @property
    def now(self) -> float:
        return self.clock.time()

    def keeping(self, **by_plan: float | None) -> Housekeeping:
        return Housekeeping(
            self.archive,
            self.queue,
            ["crm"],
            Retention({"default": None, **by_plan}, 400.0),
            self.is_there,
            self.announce,
            self.clock,
            on_expired=self.note,
        )

    async def is_there(self, session_id: SessionId) -> None:
        self.asked.append(session_id)
        if self.takes:
            self.clock.advance(self.takes)
        if self.is_out or session_id in self.out_of_reach:
            raise StoreUnavailable
        if session_id in self.unreadable:
            raise UnknownFormat("planted")
        if session_id not in self.there:
            raise SessionGone(session_id)

    def announce(self, session: ArchivedSession, at: float) -> Sequence[Delivery]:
        return [Delivery(f"end {session.id}", "crm", "session.ended", "{}")]

    def note(self, count: int) -> None:
        self.expired += count


@pytest.fixture
async def house(sqlite: Database) -> House:
    archive = SqlArchive(sqlite)
    await archive.open()
    return House(archive, SqlQueue(sqlite))


async def test_turns_are_forgotten_when_their_time_is_over(house: House) -> None:
    session_id = session_of(ALICE)
    turns = [turn(session_id, number, at=house.now - 10 * number) for number in range(4)]
    await house.archive.write([new(each, plan="free") for each in turns], 0.0)
    await house.archive.write([new(turn(session_of(ALICE), 9, at=1.0))], 0.0)
    house.there = {session_id}

    await house.keeping(free=15.0).look()
    assert house.expired == 2
    assert len(await house.archive.turns(session_id, 10)) == 2
    await house.keeping(default=50.0, free=15.0).look()
    assert house.expired == 3


async def test_a_session_that_is_gone_is_told_of_once(house: House) -> None:
    gone, there = session_of(ALICE), session_of(ALICE)
    house.there = {there}
    for session_id in (gone, there):
        await house.archive.write([new(turn(session_id, 1, at=house.now - 200))], 0.0)
    keeping = house.keeping()
    for _ in range(3):
        await keeping.look()

    assert house.asked == [gone, there] or house.asked == [there, gone]
    due = await house.queue.due("crm", house.now, 10, until=house.now)
    assert [each.delivery.message_id for each in due] == [f"end {gone}"]
    house.clock.advance(99)
    await keeping.look()
    assert len(house.asked) == 2
    house.clock.advance(1)
    house.there = set()
    await keeping.look()
    assert house.asked[2:] == [there]
    found = await house.archive.session(there)
    assert found is not None
    assert found.ended_at == house.now


async def test_while_the_store_is_out_nothing_is_said_to_have_ended(house: House) -> None:
    sessions = [session_of(ALICE) for _ in range(10)]
    await house.archive.write([new(turn(each, 1, at=house.now - 200)) for each in sessions], 0.0)
    house.is_out = True
    keeping = house.keeping()
    with capture_logs() as logs:
        for _ in range(2):
            await keeping.look()

    assert [(line["event"], line["step"]) for line in logs] == [
        ("housekeeping put off", "find ended sessions")
    ]
    assert len(house.asked) == 6
    assert not any(await ended_of(house, sessions))
    house.is_out = False
    house.clock.advance(60)
    await keeping.look()
    assert all(await ended_of(house, sessions))


async def ended_of(house: House, session_ids: Sequence[SessionId]) -> list[bool]:
    found = [await house.archive.session(each) for each in session_ids]
    return [each is not None and each.ended_at is not None for each in found]


async def test_all_that_have_ended_are_found_in_one_round(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.server.archive.housekeeping._SESSIONS", 2)
    gone = [session_of(ALICE) for _ in range(7)]
    await house.archive.write([new(turn(each, 1, at=house.now - 200)) for each in gone], 0.0)
    await house.keeping().look()

    assert all(await ended_of(house, gone))
    assert sorted(house.asked) == sorted(gone)


async def test_a_round_ends_when_its_time_is_over(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.server.archive.housekeeping._SESSIONS", 2)
    gone = [session_of(ALICE) for _ in range(7)]
    await house.archive.write([new(turn(each, 1, at=house.now - 200)) for each in gone], 0.0)
    house.takes = 6.0
    await house.keeping().look()

    assert sum(await ended_of(house, gone)) == 4


async def test_sessions_that_cannot_be_looked_at_are_there_still_and_keep_no_other_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.server.archive.housekeeping._SESSIONS", 2)
    unreadable, out_of_reach, *gone = (session_of(ALICE) for _ in range(5))
    house.unreadable, house.out_of_reach = {unreadable}, {out_of_reach}
    for number, each in enumerate((unreadable, out_of_reach, *gone)):
        await house.archive.write([new(turn(each, 1, at=house.now - 200 + number))], 0.0)
    await house.keeping().look()

    assert all(await ended_of(house, gone))
    assert not any(await ended_of(house, [unreadable, out_of_reach]))
    assert len(house.asked) == 5


async def test_it_goes_on_round_after_round(house: House) -> None:
    keeping = house.keeping()
    house.is_out = True
    keeping.start()
    await keeping.aclose()
    await keeping.aclose()


async def test_what_cannot_be_done_keeps_nothing_else_from_being_done(sqlite: Database) -> None:
    watched = WatchedDatabase(sqlite)
    archive = SqlArchive(watched)
    await archive.open()
    house = House(archive, SqlQueue(watched))
    session_id = session_of(ALICE)
    await archive.write([new(turn(session_id, 1, at=house.now - 200))], 0.0)
    watched.fails_at = "DELETE FROM archive_turns"
    keeping = house.keeping(default=50.0)
    with capture_logs() as logs:
        await keeping.look()

    assert [(line["event"], line["step"]) for line in logs] == [("housekeeping put off", "forget turns")]
    found = await archive.session(session_id)
    assert found is not None
    assert found.ended_at is not None
    watched.fails_at = None
    await keeping.look()
    assert house.expired == 1


async def test_no_round_goes_through_all_that_there_is(sqlite: Database) -> None:
    watched = WatchedDatabase(sqlite)
    archive = SqlArchive(watched)
    await archive.open()
    house = House(archive, SqlQueue(watched))
    for plan in ("free", "gold"):
        told = [Delivery(plan, endpoint, "turn.completed", "{}") for endpoint in ("crm", "gone")]
        only = new(turn(session_of(ALICE), 1, at=house.now - 200), plan=plan, deliveries=told)
        await archive.write([only], house.now - 8 * 86_400)
    watched.asked.clear()
    keeping = house.keeping(default=50.0, free=15.0)
    for _ in range(2):
        await keeping.look()

    assert house.expired == 2
    assert await SqlQueue(sqlite).waiting() == {"crm": 4}, "two say that the sessions have ended"
    assert await watched.scans() == []
