from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from tests.server.archive.archive_contract import ArchiveContract
from tests.server.archive.turns import ALICE, new, session_of, turn
from unbroken.server.archive.base import ArchiveUnavailable, ArchiveUnusable
from unbroken.server.archive.database import Database
from unbroken.server.archive.sql import SqlArchive
from unbroken.server.archive.sqlite import SqliteDatabase
from unbroken.sessions.ids import ResponseId


class TestSqliteArchive(ArchiveContract):
    @pytest.fixture
    def database(self, sqlite: Database) -> Database:
        return sqlite


async def test_it_is_there_when_it_is_opened_again_and_nobody_else_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    session_id = session_of(ALICE)
    for _ in range(2):
        archive = SqlArchive(SqliteDatabase(path))
        await archive.open()
        await archive.write([new(turn(session_id, 1))], 0.0)
        assert len(await archive.turns(session_id, 10)) == 1
        await archive.aclose()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and long enough to be none at all" * 20)
    for path in (tmp_path / "none" / "archive.db", tmp_path, tmp_path / "text"):
        with pytest.raises(
            ArchiveUnusable, match=r"^The archive's file .* can't be used \(.*UNBROKEN_ARCHIVE_URL\.$"
        ):
            await SqlArchive(SqliteDatabase(path)).open()


async def test_another_process_that_writes_for_long_is_waited_for_and_then_said(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    archive = SqlArchive(SqliteDatabase(path, patience=0.2))
    await archive.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ArchiveUnavailable, match="locked"):
        await archive.write([new(turn(session_of(ALICE), 1))], 0.0)
    other.execute("ROLLBACK")
    other.close()

    assert await archive.write([new(turn(session_of(ALICE), 1))], 0.0) == 1
    await archive.aclose()
    with pytest.raises(ArchiveUnavailable):
        await archive.write([new(turn(session_of(ALICE), 1))], 0.0)


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize("how", ["session", "answer", "everything", "retention"])
async def test_nothing_of_what_is_erased_is_left_on_disk(tmp_path: Path, how: str) -> None:
    archive = SqlArchive(SqliteDatabase(tmp_path / "archive.db"))
    await archive.open()
    session_id = session_of(ALICE)
    await archive.write([new(turn(session_id, number)) for number in range(30)], 0.0)
    assert b"answer 7 " in on_disk(tmp_path)

    match how:
        case "session":
            await archive.erase_session(session_id, 2000.0)
        case "answer":
            for number in range(30):
                await archive.erase_answer(session_id, ResponseId(f"resp_{number}"), 2000.0)
        case "everything":
            await archive.erase(ALICE.id, 2000.0)
        case "retention":
            await archive.expire({}, 100, default=5000.0)

    assert b"answer 7 " not in on_disk(tmp_path)
    await archive.aclose()


async def test_what_another_process_reads_meanwhile_is_scrubbed_by_the_next_round(tmp_path: Path) -> None:
    # Who waited for the other process would wait for longer than the test may take.
    archive = SqlArchive(SqliteDatabase(tmp_path / "archive.db", patience=600.0))
    await archive.open()
    session_id = session_of(ALICE)
    await archive.write([new(turn(session_id, 7))], 0.0)
    other = sqlite3.connect(tmp_path / "archive.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM archive_turns").fetchall()

    await archive.erase_session(session_id, 2000.0)
    assert b"answer 7 " in on_disk(tmp_path)
    other.execute("ROLLBACK")
    other.close()
    await archive.expire({}, 100, default=None)

    assert b"answer 7 " not in on_disk(tmp_path)
    await archive.aclose()
