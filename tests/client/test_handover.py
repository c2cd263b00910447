"""Sessions that several servers share: a client whose server ends goes on with another, where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.conftest import AT_ONCE
from tests.client.reading import read, until_said
from tests.deploy.balanced import Nodes
from tests.fakes.proxy import Proxy
from tests.fakes.valkey import Server
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually
from tests.server.realtime.test_caps import opened
from unbroken.client import AnswerFailed, connect
from unbroken.server.agents.scripted import answer_to

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


async def answering(door: Served[ManualAgent], other: Served[ManualAgent], number: int) -> HeldTurn:
    """Return the turn of that number, of both servers together, once it has begun."""
    await eventually(lambda: len(door.agent.turns + other.agent.turns) > number)
    return (door.agent.turns + other.agent.turns)[number]


@pytest.mark.parametrize("how", ["cut", "drained"])
async def test_the_rest_of_an_answer_comes_from_another_server(valkey: Server, how: str) -> None:
    """What waited for its turn does too."""
    valkey.command("FLUSHALL")
    async with opened(valkey, 2) as (first, second), Proxy(first.port) as proxy:
        async with connect(
            f"http://127.0.0.1:{proxy.port}", key="alice", timing=AT_ONCE, proxy=None
        ) as client:
            turn, waiting = client.send("hi"), client.send("later")
            held = await first.agent.turn()
            held.say("one ")
            await until_said(turn, "one ")
            proxy.target = second.port
            drained: asyncio.Task[None] | None = None
            if how == "cut":
                proxy.cut()
            else:
                first.app.begin_drain()
                drained = asyncio.create_task(first.app.drained(WAIT))
            held.say("two ")
            await until_said(turn, "two ")
            held.say("three")
            held.end()
            text, restarts = await read(turn)
            later = await answering(first, second, 1)
            later.say("four")
            later.end()
            result = await waiting.result()
        if drained is not None:
            await drained
            assert second.agent.turns, "who ends begins nothing"

    assert (text, restarts, result.text) == ("one two three", 0, "four")


@pytest.mark.parametrize("attempts", ["1", "2"])
async def test_a_server_dies_in_mid_answer(valkey: Server, tmp_path: Path, attempts: str) -> None:
    """The turn ends as interrupted, or is attempted again: then what was read is void, and that is said."""
    valkey.command("FLUSHALL")
    nodes = Nodes(tmp_path, valkey.url, 2, UNBROKEN_TURN_ATTEMPTS=attempts)
    nodes.start()
    try:
        async with Proxy(nodes.ports[0]) as proxy:
            url = f"http://127.0.0.1:{proxy.port}"
            async with connect(url, key="alice", timing=AT_ONCE, proxy=None) as client:
                turn = client.send("/tokens 300 10")
                first = str(await anext(turn))
                proxy.target = nodes.ports[1]
                nodes.kill(0)
                if attempts == "2":
                    text, restarts = await read(turn, first)
                    assert (text, restarts) == (answer_to("/tokens 300"), 1)
                else:
                    with pytest.raises(AnswerFailed, match="interrupted") as failed:
                        await turn.result()
                    assert failed.value.text.startswith(first)
                assert (await client.send("hello").result()).text == "You said: hello"
    finally:
        nodes.stop()
