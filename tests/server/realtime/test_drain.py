"""The server is told to stop: what runs is finished or interrupted, and clients are told to come back."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.fakes.surroundings import NO_MODEL
from tests.fakes.valkey import Server
from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT, Client
from tests.server.realtime.raw import RawClient
from tests.server.realtime.serving import Served, eventually
from tests.server.realtime.test_caps import opened
from tests.server.realtime.test_limits import all_turns_taken
from unbroken.server.agents.scripted import answer_to

REPOSITORY = Path(__file__).parents[3]


async def status_of(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


async def test_a_running_turn_is_finished(manual: Served[ManualAgent]) -> None:
    """Its client gets all of it, then 1012; one that has nothing to wait for gets that at once."""
    client, idle = await manual.client(), await manual.client()
    await client.ask("go")
    turn = await manual.agent.turn()
    turn.say("one ")
    await client.said("one ")
    assert await status_of(manual.port, "/readyz") == 200

    manual.app.begin_drain()
    drained = asyncio.create_task(manual.app.drained(WAIT))
    assert await idle.closed() == 1012
    assert await status_of(manual.port, "/readyz") == 404
    assert await status_of(manual.port, "/healthz") == 200
    with pytest.raises(InvalidStatus) as refused:
        await manual.client()
    turn.say("two")
    turn.end()
    assert await client.closed() == 1012
    await drained

    assert refused.value.response.status_code == 503
    assert client.answers() == [("completed", "one two")]


async def test_a_new_turn_is_refused(manual: Served[ManualAgent]) -> None:
    """A cancel is still taken."""
    client = await manual.client()
    await client.ask("go")
    await manual.agent.turn()
    beside = {"type": "response.create", "response": {"conversation": "none"}}
    manual.app.begin_drain()
    await client.send(beside)
    assert (await client.error())["code"] == "server_draining"
    await client.cancel()
    assert await client.closed() == 1012

    assert client.answers() == [("cancelled", "")]
    assert len(manual.agent.turns) == 1


async def test_at_the_deadline_turns_are_interrupted(manual: Served[ManualAgent]) -> None:
    """The client is told before it is sent away, also of what was queued."""
    client = await manual.client()
    session = {"type": "realtime", "unbroken": {"concurrency": "queue"}}
    await client.send({"type": "session.update", "session": session})
    await client.ask("go")
    turn = await manual.agent.turn()
    turn.say("one ")
    await client.said("one ")
    await client.send({"type": "response.create"})
    await client.sync()
    manual.app.begin_drain()
    await manual.app.drained(0.01)
    code = await client.closed()

    assert code == 1012
    done = [frame["response"] for frame in client.of("response.done")]
    assert [each["status_details"]["error"]["code"] for each in done] == 2 * ["interrupted"]
    assert [each["unbroken"]["status"] for each in done] == 2 * ["interrupted"]
    assert client.answers()[0] == ("failed", "one ")
    assert turn.was_stopped


async def test_everybody_who_watches_is_told(serve: Serve) -> None:
    manual: Served[ManualAgent] = await serve(ManualAgent())
    client = await manual.client()
    await client.ask("go")
    turn = await manual.agent.turn()
    tabs = [await manual.tab(client) for _ in range(5)]
    manual.app.begin_drain()
    turn.say("one")
    turn.end()
    await manual.app.drained(WAIT)

    assert [await tab.closed() for tab in [client, *tabs]] == 6 * [1012]
    assert [tab.answers() for tab in tabs] == 5 * [[("completed", "one")]]


class Process:
    """``unbroken serve`` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @classmethod
    async def start(cls, **settings: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "unbroken", "serve", "--agent", "scripted"),
            *("--port", "0", "--admin-port", "0"),
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **NO_MODEL, **settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        async with asyncio.timeout(WAIT):
            line = await process.stdout.readline()
        address = re.search(rb"http://127\.0\.0\.1:(\d+)", line)
        assert address is not None, line
        return cls(process, int(address[1]))

    async def ended(self) -> int:
        async with asyncio.timeout(WAIT):
            return await self.process.wait()


@pytest.fixture
async def client() -> Client:
    return Client(0, "alice", None)


@pytest.mark.slow
async def test_sigterm(client: Client) -> None:
    """A real process: the answer is finished, 1012, new upgrades 503, readiness 404, exit code 0."""
    running = await Process.start()
    try:
        client.port = running.port
        await client.connect()
        await client.ask("/tokens 200 10")
        await client.said("word5")
        running.process.send_signal(signal.SIGTERM)
        while await status_of(running.port, "/readyz") != 404:
            pass
        with pytest.raises(InvalidStatus) as refused:
            await Client(running.port, "alice", None).open()
        assert await client.closed() == 1012
        assert await running.ended() == 0
    finally:
        if running.process.returncode is None:
            running.process.kill()
            await running.process.wait()

    assert refused.value.response.status_code == 503
    assert client.answers() == [("completed", answer_to("/tokens 200 10"))]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["/stall after 2", "/slow-close 900 after 2", "/slow-close 60000 after 2"])
async def test_sigterm_with_a_turn_that_does_not_end(client: Client, script: str) -> None:
    """At the deadline its client is told, and then sent away, however long its agent takes to stop."""
    running = await Process.start(UNBROKEN_DRAIN_TIMEOUT="0.3")
    try:
        client.port = running.port
        await client.connect()
        await client.ask(script)
        await client.said("word2")
        running.process.send_signal(signal.SIGTERM)
        assert await client.closed() == 1012
        assert await running.ended() == 0
    finally:
        if running.process.returncode is None:
            running.process.kill()
            await running.process.wait()

    assert client.answers() == [("failed", "word1 word2")]
    (done,) = client.of("response.done")
    assert done["response"]["unbroken"]["status"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("by", ["signal", "command"])
async def test_pages_are_refused_for_a_balancer_to_read_from_a_drain_s_first_moment_on(
    tmp_path: Path, by: str
) -> None:
    """Where another node is there: those that wait for their turn just then, too."""
    with Server(tmp_path / "data").running() as valkey:
        async with opened(valkey) as (door, other):
            assert other.app.node.has_successors
            app = door.app
            await eventually(lambda: app.node.has_successors)
            page = {"Origin": f"http://127.0.0.1:{door.port}"}
            async with all_turns_taken(door), RawClient(door.port, headers=page) as waiting:
                await eventually(lambda: app.turnstile.waiting == 1)
                (app.begin_drain if by == "signal" else app.drain.begin)()
                async with RawClient(door.port, headers=page) as late:
                    for raw in (waiting, late):
                        response = await raw.response()

                        assert response.status_code == 503
                        assert 2 <= int(response.headers["Retry-After"]) <= 4
            await app.drain.stop()
