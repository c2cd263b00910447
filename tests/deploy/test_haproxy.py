"""Nodes behind the HAProxy that deploy/haproxy/ configures. Each trap that it avoids has a test."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.deploy.balanced import ROOT, Nodes, Talk, open_nodes, start, wait_for_port
from tests.fakes.surroundings import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"


def haproxy() -> str:
    found = shutil.which("haproxy")
    if found is None:
        raise RuntimeError("The configuration is tested with the real program: sudo apt-get install haproxy")
    return found


def settings_of(port: int, nodes: list[int]) -> dict[str, str]:
    named = {f"UNBROKEN_NODE_{number + 1}": f"127.0.0.1:{each}" for number, each in enumerate(nodes)}
    return {"UNBROKEN_BIND": f"127.0.0.1:{port}", **named}


class Balanced:
    def __init__(self, nodes: Nodes, port: int) -> None:
        self.nodes = nodes
        self.port = port

    def number_of(self, talk: Talk) -> int:
        """Return the node that a conversation is connected to."""
        return int(talk.nodes[-1].removeprefix("node")) - 1

    async def all_serve(self) -> None:
        """Return when the balancer has found every node ready."""
        seen: set[str] = set()
        async with asyncio.timeout(30):
            while len(seen) < len(self.nodes.ports):
                talk = Talk(self.port)
                await talk.connect()
                await talk.close()
                seen |= set(talk.nodes)

    async def answering(self, count: int = 20) -> Talk:
        """Return a conversation whose answer has begun."""
        talk = Talk(self.port)
        await talk.connect()
        await talk.ask("/tokens 200 25")
        await talk.until(lambda: len(talk.text.split()) >= count)
        return talk


@pytest_asyncio.fixture
async def balanced(tmp_path: Path) -> AsyncIterator[Balanced]:
    """Run the shipped configuration, with a shorter time-out, and a header that names the node."""
    text = CONFIG.read_text()
    changed = text.replace("timeout tunnel 120s", "timeout tunnel 3s").replace(
        "    default_backend nodes\n", "    default_backend nodes\n    http-response set-header x-node %s\n"
    )
    assert changed.count("x-node") == 1
    assert "tunnel 3s" in changed
    config = tmp_path / "haproxy.cfg"
    config.write_text(changed)
    port, log = free_port(), tmp_path / "haproxy.log"
    async with open_nodes(tmp_path, 3, UNBROKEN_PING_INTERVAL="1", UNBROKEN_DRAIN_TIMEOUT="20") as nodes:
        process = start([haproxy(), "-db", "-f", str(config)], log, **settings_of(port, nodes.ports))
        try:
            await asyncio.to_thread(wait_for_port, port, process, log)
            balanced = Balanced(nodes, port)
            await balanced.all_serve()
            yield balanced
        finally:
            process.kill()
            process.wait()


def test_the_configuration_is_valid() -> None:
    command = [haproxy(), "-c", "-f", str(CONFIG)]
    checked = subprocess.run(
        command, env=settings_of(8080, [1, 2, 3]), capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "warning" not in (checked.stdout + checked.stderr).lower()


async def test_a_session_sticks_to_a_node_without_cookies(balanced: Balanced) -> None:
    """Of those that make up an affinity from the first connection on; of others from the second on."""
    used = set()
    for number in range(24):
        named = Talk(balanced.port, affinity=f"a{number}")
        unnamed = Talk(balanced.port)
        for talk in (named, unnamed):
            await talk.connect()
            await talk.ask("/say hi")
            await talk.until(lambda talk=talk: bool(talk.endings))  # type: ignore[misc]
            for _ in range(2):
                await talk.close()
                await talk.connect()
            await talk.close()
        assert len(set(named.nodes)) == 1
        assert len(set(unnamed.nodes[1:])) == 1
        used |= set(named.nodes)
    assert used == {"node1", "node2", "node3"}


async def test_a_client_can_say_not_that_node(balanced: Balanced) -> None:
    found = set()
    for number in range(12):
        talk = Talk(balanced.port, affinity="mine", **({"try": str(number)} if number else {}))
        await talk.connect()
        await talk.close()
        found |= set(talk.nodes)
    assert len(found) > 1


async def test_a_node_that_drains_says_farewell_and_its_answers_go_on(balanced: Balanced) -> None:
    """With a readiness of 503 instead of 404, connections were cut without a close frame."""
    talk = await balanced.answering()
    first = balanced.number_of(talk)
    process = balanced.nodes.terminate(first)
    await talk.until(lambda: bool(talk.endings))

    assert talk.codes == [1012]
    assert balanced.number_of(talk) != first
    assert talk.endings == ["completed"]
    assert talk.words_are_whole()
    assert len(talk.text.split()) == 200
    assert await asyncio.to_thread(process.wait, 30) == 0


async def test_nothing_new_comes_to_a_node_that_drains(balanced: Balanced) -> None:
    """Its 503 is asked elsewhere at once, also before the balancer knows."""
    talk = await balanced.answering()
    balanced.nodes.terminate(balanced.number_of(talk))
    for number in range(30):
        other = Talk(balanced.port, affinity=f"b{number}")
        await other._connect()  # at the first try
        assert balanced.number_of(other) != balanced.number_of(talk)
        await other.close()
    await talk.close()


async def test_a_killed_node_s_conversation_goes_on_elsewhere(balanced: Balanced) -> None:
    talk = await balanced.answering()
    first = balanced.number_of(talk)
    balanced.nodes.kill(first)
    await talk.until(lambda: bool(talk.endings))

    assert balanced.number_of(talk) != first
    assert talk.endings == ["failed"]
    assert talk.words_are_whole()
    await talk.ask("/say here again")
    await talk.until(lambda: len(talk.endings) == 2)
    assert talk.text.endswith("here again")


async def test_a_frozen_node_is_left_and_comes_back_as_a_follower(balanced: Balanced) -> None:
    """The balancer cuts its connections; its sessions are taken when its lease has run out."""
    talk = await balanced.answering()
    first = balanced.number_of(talk)
    balanced.nodes.freeze(first)
    try:
        await talk.until(lambda: bool(talk.endings))
    finally:
        balanced.nodes.thaw(first)

    assert balanced.number_of(talk) != first
    assert talk.endings == ["failed"]
    assert talk.words_are_whole()
    await talk.ask("/say not twice")
    await talk.until(lambda: len(talk.endings) == 2)
    assert talk.text.endswith("not twice")
    assert talk.endings[1] == "completed"


async def test_an_idle_connection_outlives_the_balancer_s_time_out(balanced: Balanced) -> None:
    """By the node's pings, which come more often."""
    talk = Talk(balanced.port)
    await talk.connect()
    assert talk.socket is not None
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(7):
            await talk.next()
    assert loop.time() - begun >= 7
    await talk.ask("/say still")
    await talk.until(lambda: bool(talk.endings))
    assert talk.codes == []
    assert talk.text == "still"


async def test_what_changes_something_is_not_repeated_on_another_node(tmp_path: Path) -> None:
    """A node that took an upload and died may have stored it: whoever sent it decides."""
    taken: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n")).decode()
        if request.startswith("GET /readyz"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        else:
            await reader.readuntil(b"hello")
            taken.append(request)
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(await asyncio.start_server(serve, "127.0.0.1", 0))
            for _ in range(3)
        ]
        ports = [each.sockets[0].getsockname()[1] for each in servers]
        port, log = free_port(), tmp_path / "haproxy.log"
        process = start([haproxy(), "-db", "-f", str(CONFIG)], log, **settings_of(port, ports))
        try:
            await asyncio.to_thread(wait_for_port, port, process, log)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n"
            writer.write(head + b"connection: close\r\n\r\nhello")
            answer = await reader.read()
            writer.close()
        finally:
            process.kill()
            process.wait()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert len(taken) == 1
