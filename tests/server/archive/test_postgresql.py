from __future__ import annotations

import asyncio

import pytest

from tests.fakes.database import WatchedDatabase
from tests.fakes.postgres import PostgresServer
from tests.fakes.proxy import Proxy
from tests.fakes.surroundings import free_port
from tests.server.archive.archive_contract import ArchiveContract
from tests.server.archive.turns import ALICE, new, session_of, turn
from tests.server.realtime.client import WAIT
from unbroken.server.archive.base import ArchiveUnavailable, ArchiveUnusable, Delivery
from unbroken.server.archive.database import Database
from unbroken.server.archive.postgresql import PostgresDatabase
from unbroken.server.archive.queue import SqlQueue
from unbroken.server.archive.sql import SqlArchive

pytestmark = pytest.mark.slow


class TestPostgresArchive(ArchiveContract):
    @pytest.fixture
    def database(self, postgresql: Database) -> Database:
        return postgresql


async def test_several_nodes_may_start_at_once(postgres_url: str) -> None:
    archives = [SqlArchive(PostgresDatabase(postgres_url)) for _ in range(4)]
    await asyncio.gather(*(archive.open() for archive in archives))
    session_id = session_of(ALICE)
    turns = [new(turn(session_id, number)) for number in range(10)]
    written = await asyncio.gather(*(archive.write(turns, 0.0) for archive in archives))

    assert sum(written) == 10
    for archive in archives:
        await archive.aclose()


async def test_old_turns_are_forgotten_by_one_node_at_a_time(postgres_url: str) -> None:
    one, two = (PostgresDatabase(postgres_url) for _ in range(2))
    archive = SqlArchive(one)
    await archive.open()
    await two.open()
    await archive.write([new(turn(session_of(ALICE), 1))], 0.0)
    async with two.transaction() as transaction:
        assert await transaction.claim(1)
        assert await archive.expire({}, 10, default=9999.0) == 0
    assert await archive.expire({}, 10, default=9999.0) == 1
    await one.aclose()
    await two.aclose()


async def test_old_webhooks_are_found_by_an_index(postgres_url: str) -> None:
    watched = WatchedDatabase(PostgresDatabase(postgres_url))
    archive = SqlArchive(watched)
    await archive.open()
    told = [Delivery("a", "gone", "turn.completed", "{}")]
    await archive.write([new(turn(session_of(ALICE), 1), deliveries=told)], 5.0)
    watched.asked.clear()
    assert await SqlQueue(watched).forget(6.0, ["crm"], 10) == 1

    asked, plans = list(watched.asked), list[str]()
    async with watched.transaction() as transaction:
        await transaction.execute("SET LOCAL enable_seqscan = off")  # as where there is more than a page
        for sql, values in asked:
            plan = await transaction.fetch(f"EXPLAIN {sql}", *values)
            plans += ["\n".join(line for (line,) in plan)]
    assert not any("Seq Scan" in plan for plan in plans)
    for index in ("archive_deliveries_buried", "archive_deliveries_by_age"):
        assert any(index in plan for plan in plans)
    await archive.aclose()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://tester:secret-word@127.0.0.1:{port}/none", "there is no database of that name"),
        ("postgresql://tester:secret-word@127.0.0.1:{free}/x", "nothing listens at its address"),
        ("postgresql://tester:secret-word@no.host.invalid/x", ""),
        ("postgresql://tester:secret-word@127.0.0.1:99999999/x", ""),
    ],
)
async def test_what_cannot_be_reached_is_said_in_one_line_without_its_password(
    postgres: PostgresServer, url: str, reason: str
) -> None:
    archive = SqlArchive(PostgresDatabase(url.format(port=postgres.port, free=free_port()), patience=5))
    with pytest.raises(ArchiveUnusable) as caught:
        await archive.open()

    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("The archive's PostgreSQL can't be used: ")
    assert said.endswith("or correct UNBROKEN_ARCHIVE_URL.")
    assert reason in said
    assert "secret-word" not in said


async def test_a_server_that_went_is_used_again_when_it_is_back(postgres: PostgresServer) -> None:
    postgres.sql("CREATE DATABASE coming")
    archive = SqlArchive(PostgresDatabase(postgres.url("coming"), patience=5))
    await archive.open()
    session_id = session_of(ALICE)
    await archive.write([new(turn(session_id, 1))], 0.0)
    postgres.kill()
    for _ in range(2):
        with pytest.raises(ArchiveUnavailable) as caught:
            await archive.write([new(turn(session_id, 2))], 0.0)
        assert "secret-word" not in str(caught.value)
    postgres.start()

    assert await archive.write([new(turn(session_id, 2))], 0.0) == 1
    assert len(await archive.turns(session_id, 10)) == 2
    await archive.aclose()


async def test_a_server_that_hangs_is_waited_for_no_longer_than_set(
    postgres: PostgresServer, postgres_url: str
) -> None:
    session_id = session_of(ALICE)
    async with Proxy(postgres.port) as proxy:
        url = postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        archive = SqlArchive(PostgresDatabase(url, patience=0.3))
        await archive.open()
        await archive.write([new(turn(session_id, 1))], 0.0)
        proxy.hold()
        for _ in range(6):  # more often than there are connections
            with pytest.raises(ArchiveUnavailable):
                async with asyncio.timeout(WAIT):
                    await archive.write([new(turn(session_id, 2))], 0.0)
        proxy.release()

        assert await archive.write([new(turn(session_id, 2))], 0.0) == 1
        assert len(await archive.turns(session_id, 10)) == 2
        proxy.hold()
        await archive.aclose()
