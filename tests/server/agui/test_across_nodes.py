"""A thread is the same on each node: run in here, and come back to, gone on with and stopped there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import orjson
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.fakes.valkey import Server
from tests.server.agui.client import Event, said, user
from tests.server.agui.conftest import Open
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.serving import Served, eventually
from tests.server.two_nodes import two_nodes

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


async def first(events: AsyncIterator[Event]) -> list[Event]:
    """Return what comes up to the first piece of the answer."""
    seen = []
    async for event in events:
        seen.append(event)
        if event["type"] == "TEXT_MESSAGE_CONTENT":
            break
    return seen


async def test_a_run_is_gone_on_with_on_another_node_by_the_same_numbers(
    nodes: Nodes, open_thread: Open
) -> None:
    here, there = (open_thread(node) for node in nodes)
    async with here.running(user("hi")) as events:
        turn = await begun(nodes, 0)
        turn.say("half ")
        await first(events)
    async with there.resuming(runId="run-1") as events:
        turn.say("whole")
        turn.end()
        assert said([event async for event in events]) == "half whole"
    wholes = [await thread.resume(runId="run-1") for thread in (here, there)]

    assert wholes[0] is not None
    assert wholes[1] is not None
    assert wholes[0].ids == wholes[1].ids
    for number, offset in enumerate(wholes[0].ids[:-1]):
        assert await there.resume(offset=offset) == wholes[0][number + 1 :]


async def test_a_run_is_stopped_from_another_node(nodes: Nodes, open_thread: Open) -> None:
    here, there = (open_thread(node) for node in nodes)
    async with here.running(user("hi")) as events:
        turn = await begun(nodes, 0)
        turn.say("half")
        await first(events)
        assert await there.stop()
        rest = [event async for event in events]

    assert rest[-1]["outcome"] == {"type": "cancelled"}
    assert turn.was_stopped
    assert await here.messages() == await there.messages()


async def test_a_run_that_is_sent_again_to_another_node_runs_once(nodes: Nodes, open_thread: Open) -> None:
    here, there = (open_thread(node) for node in nodes)
    async with here.running(user("hi")) as one, there.running(user("hi")) as other:
        turn = await begun(nodes, 0)
        turn.say("once")
        turn.end()
        assert said([event async for event in one]) == said([event async for event in other]) == "once"

    assert sum(len(node.agent.turns) for node in nodes) == 1


async def test_what_runs_here_is_told_to_sockets_there(nodes: Nodes, open_thread: Open) -> None:
    """By an event's id alone; and to a widget, which knows the chat's name and no more."""
    here = open_thread(nodes[0])
    async with here.http.stream("POST", here.url, json=here.body(user("hi"))) as response:
        turn = await begun(nodes, 0)
        turn.say("half ")
        offset = ""
        async for line in response.aiter_lines():
            offset = line.removeprefix("id: ") if line.startswith("id: ") else offset
            if "TEXT_MESSAGE_CONTENT" in line:
                break
    headers = {"Authorization": "Bearer alice"}
    base = f"ws://127.0.0.1:{nodes[1].port}/v1"
    async with (
        connect(f"{base}/agui/ws?offset={offset}", additional_headers=headers) as run,
        connect(f"{base}/widget/deepchat?chat=thread-1", additional_headers=headers) as widget,
    ):
        assert orjson.loads(await widget.recv())["text"] == "half "
        turn.say("whole")
        turn.end()
        frames = [orjson.loads(frame) async for frame in run]
        rest = [orjson.loads(await widget.recv())["text"] for _ in range(2)]

    assert said([frame["chunk"] for frame in frames]) == "whole"
    assert frames[-1]["chunk"]["type"] == "RUN_FINISHED"
    assert (frames[-1]["chunk"]["threadId"], frames[-1]["chunk"]["runId"]) == ("thread-1", "run-1")
    assert rest == ["whole", "[[END]]"]
    assert sum(len(node.agent.turns) for node in nodes) == 1


async def test_a_thread_goes_on_anywhere(nodes: Nodes, open_thread: Open) -> None:
    here, there = (open_thread(node) for node in nodes)
    async with here.running(user("one")) as events:
        turn = await begun(nodes, 0)
        turn.say("answer")
        turn.end()
        async for _ in events:
            pass
    await nodes[0].idle()
    async with there.running(user("one"), user("two", "m2"), run="run-2") as events:
        turn = await begun(nodes, 1)
        turn.end()
        async for _ in events:
            pass

    assert [message.text for message in turn.given.messages] == ["one", "answer", "two"]
    assert await here.messages() == await there.messages()
