"""What is kept of a user, handed out and erased as a whole."""

from __future__ import annotations

import pytest

from tests.fakes.clock import FakeClock
from tests.server.archive.turns import ALICE, BOB, new, session_of, turn
from unbroken.server.archive.base import Owned
from unbroken.server.archive.database import Database
from unbroken.server.archive.records import Records
from unbroken.server.archive.sql import SqlArchive
from unbroken.sessions.ids import SessionId


@pytest.fixture
async def archive(sqlite: Database) -> SqlArchive:
    archive = SqlArchive(sqlite)
    await archive.open()
    return archive


async def test_a_session_is_read_to_its_end_by_whose_it_is(archive: SqlArchive) -> None:
    session_id = session_of(ALICE)
    turns = [turn(session_id, number) for number in range(45)]
    await archive.write([new(each) for each in turns], 0.0)
    records = Records(archive, FakeClock())

    assert [each async for each in records.read(session_id, ALICE.id)] == turns
    assert [each async for each in records.read(session_id, BOB.id)] == []
    assert [each async for each in records.read(SessionId("sess_none"), ALICE.id)] == []


async def test_a_user_is_erased_and_nobody_else(archive: SqlArchive) -> None:
    clock = FakeClock()
    hers, his = session_of(ALICE), session_of(BOB)
    now = clock.time()
    await archive.write([new(turn(hers, number, at=now - 1)) for number in range(3)], 0.0)
    await archive.write([new(turn(his, 1, at=now - 1), whose=BOB)], 0.0)
    records = Records(archive, clock)

    assert await records.erase("acme", "alice") == 3
    assert await records.erase("other", "bob") == 0
    assert [each.id for each in await archive.sessions(Owned(), 10)] == [his]
    assert await records.erase_session(his) == 1
    assert await archive.sessions(Owned(), 10) == []
