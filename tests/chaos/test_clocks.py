"""Nodes whose clocks differ by an hour: what is taken over is taken over as always, in either direction."""

from __future__ import annotations

import signal
from asyncio import create_task
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.cluster import cluster_of
from tests.chaos.nodes import NodeProcess
from tests.chaos.words import answer_to, digest_of, prompt
from tests.server.realtime.client import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_HOUR: Final = 3600
_WORDS: Final = 40

Fate = Callable[[NodeProcess, Client], Awaitable[None]]


async def drains(node: NodeProcess, client: Client) -> None:
    """Its sessions are handed over."""
    ending = create_task(node.terminate())
    assert await client.closed() == 1012
    await ending


async def crashes(node: NodeProcess, client: Client) -> None:
    """The others see that it listens no longer."""
    await node.kill()
    await client.drop()


async def freezes(node: NodeProcess, client: Client) -> None:
    """Its connections stay: the others find that its lease has run out."""
    node.signal(signal.SIGSTOP)
    await client.drop()


async def goes_on(client: Client, fate: Fate, leaves: NodeProcess, takes: NodeProcess) -> None:
    """Ask on a node, and see the answer's end on the other."""
    asked = prompt(leaves.name, _WORDS, 0.05)
    await client.ask(asked)
    await client.until("response.output_text.delta")
    await fate(leaves, client)
    client.port = takes.port
    await client.resume()
    done = await client.done()

    said = done["output"][0]["content"][0]["text"]
    assert done["status"] == "completed"
    assert said == answer_to(asked, digest_of(said))


@pytest.mark.parametrize("fate", [drains, crashes, freezes])
async def test_an_answer_goes_on_where_the_clocks_say_something_else(tmp_path: Path, fate: Fate) -> None:
    async with cluster_of(
        tmp_path, nodes=2, agent="upstream", settings={"UNBROKEN_LEAKS": "off"}, has_proxies=False
    ) as cluster:
        right, wrong = cluster.nodes
        await wrong.replace("tests.chaos.wrong_clock", CHAOS_CLOCK=str(_HOUR))
        client = Client(right.port, "alice", None)
        await client.connect(headers=None)
        await goes_on(client, fate, right, wrong)
        await right.kill()
        await right.start()
        await goes_on(client, fate, wrong, right)
        await client.close()

        assert cluster.upstream is not None
        assert [key for _, key in cluster.upstream.begun] == [right.name, wrong.name], (
            "none was asked for twice"
        )
        assert [node.problems() for node in cluster.nodes] == [[], []]
