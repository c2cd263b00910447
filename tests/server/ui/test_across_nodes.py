"""A chat is the same on each node: asked in here, and come back to, gone on with and stopped there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.serving import Served, eventually
from tests.server.two_nodes import two_nodes
from tests.server.ui.client import said, types, user
from tests.server.ui.conftest import Open

pytestmark = pytest.mark.slow

Nodes = list[Served[ManualAgent]]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest_asyncio.fixture
async def nodes(valkey: Server) -> AsyncIterator[Nodes]:
    async with two_nodes(valkey) as nodes:
        yield nodes


async def begun(nodes: Nodes, number: int) -> HeldTurn:
    """Return the turn of that number of all, wherever it is."""

    def turns() -> list[HeldTurn]:
        return [turn for node in nodes for turn in node.agent.turns]

    await eventually(lambda: len(turns()) > number)
    return turns()[number]


async def first(chunks: AsyncIterator[Any], kind: str) -> list[Any]:
    """Return what comes up to the first chunk of that kind."""
    seen = []
    async for chunk in chunks:
        seen.append(chunk)
        if chunk["type"] == kind:
            break
    return seen


async def test_an_answer_is_come_back_to_on_another_node(nodes: Nodes, open_page: Open) -> None:
    here, there = (open_page(node) for node in nodes)
    async with here.asking(user("hi")) as chunks:
        turn = await begun(nodes, 0)
        turn.say("half ")
        seen = await first(chunks, "text-delta")
    async with there.resuming() as chunks:
        turn.say("whole")
        turn.end()
        resumed = [chunk async for chunk in chunks]

    assert said(resumed) == "half whole"
    assert resumed[0] == seen[0]
    assert await there.resume() is None


async def test_an_answer_is_stopped_from_another_node(nodes: Nodes, open_page: Open) -> None:
    here, there = (open_page(node) for node in nodes)
    async with here.asking(user("hi")) as chunks:
        turn = await begun(nodes, 0)
        turn.say("half")
        await first(chunks, "text-delta")
        assert await there.stop()
        rest = [chunk async for chunk in chunks]

    assert types(rest)[-1] == "abort"
    assert turn.was_stopped
    assert await here.messages() == await there.messages()


async def test_a_message_that_is_sent_again_to_another_node_runs_once(nodes: Nodes, open_page: Open) -> None:
    here, there = (open_page(node) for node in nodes)
    async with here.asking(user("hi")) as one, there.asking(user("hi")) as other:
        turn = await begun(nodes, 0)
        turn.say("once")
        turn.end()
        assert said([chunk async for chunk in one]) == said([chunk async for chunk in other]) == "once"

    assert sum(len(node.agent.turns) for node in nodes) == 1


async def test_a_chat_that_rests_is_gone_on_with_anywhere(nodes: Nodes, open_page: Open) -> None:
    here, there = (open_page(node) for node in nodes)
    async with here.asking(user("one")) as chunks:
        turn = await begun(nodes, 0)
        turn.say("answer")
        turn.end()
        seen = [chunk async for chunk in chunks]
    await nodes[0].idle()
    while len(nodes[0].app.node.hub):
        await nodes[0].app.node.sweep()
    messages = await there.messages()
    async with there.asking(*messages, user("two", "u2")) as chunks:
        turn = await begun(nodes, 1)
        turn.end()
        async for _ in chunks:
            pass

    assert [message["id"] for message in messages] == ["u1", seen[0]["messageId"]]
    assert [message.text for message in turn.given.messages] == ["one", "answer", "two"]
    (again,) = [message["parts"][-1]["text"] for message in await there.messages() if message["id"] == "u2"]
    assert again == "two"
