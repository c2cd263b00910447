"""Several nodes over one Redis and one PostgreSQL: what is said is archived, whichever of them dies when."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.postgres import PostgresServer
from tests.fakes.surroundings import free_port, neutral_environment
from tests.fakes.tied import tied
from tests.fakes.valkey import Server
from tests.server.archive.test_over_http import get, said, texts, written
from tests.server.realtime.client import WAIT, Client
from tests.server.realtime.serving import Served, eventually, serving
from unbroken.server.agents.scripted import ScriptedAgent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SECRET = "x" * 32
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest.fixture(autouse=True)
def empty(valkey: Server) -> None:
    valkey.command("FLUSHALL")


def node(valkey: Server, url: str, **settings: Any) -> Any:
    return serving(ScriptedAgent(), redis_url=valkey.url, secret=SECRET, archive_url=url, **settings)


def begun(environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    command = tied([sys.executable, "-m", "unbroken", "serve"])
    silent = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=silent, stderr=silent)


@contextlib.asynccontextmanager
async def process(
    valkey: Server, url: str, folder: Path
) -> AsyncIterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a node in a process of its own, which can be killed."""
    port = free_port()
    environment = neutral_environment() | {
        "PYTHONPATH": str(ROOT),
        "UNBROKEN_AGENT": "scripted",
        "UNBROKEN_PORT": str(port),
        "UNBROKEN_ADMIN_PORT": "0",
        "UNBROKEN_REDIS_URL": valkey.url,
        "UNBROKEN_SECRET": SECRET,
        "UNBROKEN_ARCHIVE_URL": url,
        "UNBROKEN_FILES": "off",
    }
    running = begun(environment, folder)
    try:
        async with asyncio.timeout(WAIT):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                assert running.poll() is None
                await asyncio.sleep(0.05)
        yield running, port
    finally:
        running.kill()
        running.wait()


async def test_a_node_that_is_killed_before_it_has_archived_a_turn_loses_none(
    valkey: Server, postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    async with process(valkey, postgres_url, tmp_path) as (running, port):
        client = Client(port, "alice", None)
        await client.connect()
        await client.ask("one")
        await client.done()
        postgres.kill()
        await client.ask("two")
        await client.done()
        running.send_signal(signal.SIGKILL)
        running.wait()
        await client.close()
    postgres.start()

    async with node(valkey, postgres_url) as served:
        await eventually_archived(served, client, 2)
        page = (await get(served, f"sessions/{client.session_id}")).json()
        assert [texts(turn, "input") for turn in page["data"]] == [["one"], ["two"]]
        assert [turn["status"] for turn in page["data"]] == ["completed", "completed"]
    assert b"out" not in valkey.command("KEYS", "*:out*"), "the outbox is empty"


async def eventually_archived(served: Served[Any], client: Client, turns: int) -> None:
    async with asyncio.timeout(WAIT):
        while True:
            answer = await get(served, f"sessions/{client.session_id}")
            if answer.status_code == 200 and len(answer.json()["data"]) >= turns:
                return
            await asyncio.sleep(0.02)


async def test_a_turn_that_another_node_ends_is_archived_once(valkey: Server, postgres_url: str) -> None:
    async with node(valkey, postgres_url) as one, node(valkey, postgres_url) as two:
        client = await one.client()
        await client.ask("one")
        await client.done()
        await said(one, 1)
        client.port = two.port
        await client.resume()
        await client.ask("two")
        await client.done()
        await eventually(lambda: written(one) + written(two) >= 2)

        page = (await get(two, f"sessions/{client.session_id}")).json()
        assert [texts(turn, "input") for turn in page["data"]] == [["one"], ["two"]]
        for each in (one, two):
            await each.hang_up()
        for each in (one, two):
            await each.no_connections()


async def test_two_archivers_that_race_write_each_turn_once(valkey: Server, postgres_url: str) -> None:
    async with node(valkey, postgres_url) as one, node(valkey, postgres_url) as two:
        clients = [await each.client() for each in (one, two) for _ in range(3)]

        async def talk(client: Client) -> None:
            for number in range(5):
                await client.ask(f"question {number}")
                await client.done()

        stirring = asyncio.create_task(stir(one, two))
        await asyncio.gather(*(talk(client) for client in clients))
        await eventually(lambda: written(one) + written(two) >= 30)
        stirring.cancel()
        await asyncio.wait((stirring,))

        assert written(one) + written(two) == 30
        for client in clients:
            page = (await get(one, f"sessions/{client.session_id}")).json()
            assert [texts(turn, "input") for turn in page["data"]] == [[f"question {n}"] for n in range(5)]
        for each in (one, two):
            await each.hang_up()
        for each in (one, two):
            await each.no_connections()


async def stir(*nodes: Served[Any]) -> None:
    """Have all nodes look for what others have left, again and again: so they take the same."""
    while True:
        for each in nodes:
            assert each.app.archiving is not None
            each.app.archiving._archiver._search_at = 0.0
            each.app.archiving._archiver._wanted.set()
        await asyncio.sleep(0.005)
