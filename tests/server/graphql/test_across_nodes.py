"""What begins in GraphQL on one node is watched, gone on with and cancelled on others, and vice versa."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.server.graphql.client import Caller, said
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.serving import Served, eventually
from tests.server.two_nodes import two_nodes

pytestmark = pytest.mark.slow

CANCEL = "mutation($id: ID!) { cancel(responseId: $id) { status } }"


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest_asyncio.fixture
async def nodes(valkey: Server) -> AsyncIterator[list[Served[ManualAgent]]]:
    async with two_nodes(valkey, graphql=True) as nodes:
        yield nodes


@pytest_asyncio.fixture
async def callers(nodes: list[Served[ManualAgent]]) -> AsyncIterator[list[Caller]]:
    callers = [Caller(node.port) for node in nodes]
    yield callers
    for caller in callers:
        await caller.aclose()


async def turn_on(nodes: list[Served[ManualAgent]], number: int = 0) -> HeldTurn:
    """Return the turn of that number, on whichever node it runs."""
    turns: list[HeldTurn] = []

    def found() -> bool:
        turns[:] = [turn for node in nodes for turn in node.agent.turns]
        return len(turns) > number

    await eventually(found)
    return turns[number]


async def test_begun_here_and_followed_elsewhere_through_every_door(
    nodes: list[Served[ManualAgent]], callers: list[Caller]
) -> None:
    here, there = callers
    sent = await here.send("hi")
    turn = await nodes[0].agent.turn()
    turn.say("one ")
    openai: Any = await nodes[1].openai()
    realtime = nodes[1].stranger(token=sent["resume"])
    await realtime.resume()
    await realtime.said("one ")
    socket = await there.socket()
    await socket.subscribe("1", response=sent["responseId"])
    await socket.shows("1", "one ")
    watched = await openai.responses.retrieve(sent["responseId"], stream=True)
    turn.say("two")
    turn.end()
    await socket.until("complete", "1")
    events = [event async for event in watched]

    assert said(socket.events["1"]) == "one two"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "one two"
    assert (await realtime.done())["id"] == sent["responseId"]


async def test_begun_here_and_cancelled_elsewhere_over_realtime(
    nodes: list[Served[ManualAgent]], callers: list[Caller]
) -> None:
    here, _ = callers
    sent = await here.send("hi")
    turn = await nodes[0].agent.turn()
    turn.say("half")
    realtime = nodes[1].stranger(token=sent["resume"])
    await realtime.resume()
    await realtime.cancel(sent["responseId"])
    events = await here.listen(response=sent["responseId"])
    await turn.closed.wait()

    assert turn.was_stopped
    assert events[-1]["response"]["status"] == "CANCELLED"


async def test_begun_here_and_cancelled_elsewhere_through_responses(
    nodes: list[Served[ManualAgent]], callers: list[Caller]
) -> None:
    here, _ = callers
    sent = await here.send("hi")
    turn = await nodes[0].agent.turn()
    openai: Any = await nodes[1].openai()
    cancelled = await openai.responses.cancel(sent["responseId"])
    await turn.closed.wait()

    assert cancelled.status == "cancelled"


async def test_begun_over_realtime_and_followed_gone_on_with_and_cancelled_here(
    nodes: list[Served[ManualAgent]], callers: list[Caller]
) -> None:
    _, there = callers
    realtime = await nodes[0].client()
    await realtime.ask("hi")
    turn = await nodes[0].agent.turn()
    turn.say("one ")
    created = (await realtime.until("response.created"))["response"]["id"]
    async with there.listening(session=realtime.session_id) as events:
        shown = []
        async for event in events:
            shown.append(event)
            if event["type"] == "DELTA" and "one" in event["delta"]:
                turn.say("two")
                turn.end()
            if event["type"] == "RESPONSE_DONE":
                break
    assert said(shown) == "one two"
    assert shown[-1]["response"]["id"] == created

    sent = await there.send("more", sessionId=realtime.session_id)
    turn = await turn_on(nodes, 1)
    assert [item.text for item in turn.given.messages] == ["hi", "one two", "more"]
    cancelled = await there.ask(CANCEL, id=sent["responseId"])
    assert cancelled["cancel"]["status"] == "CANCELLED"
    await realtime.until("response.done")
    assert (await realtime.done())["status"] == "cancelled"


async def test_begun_through_responses_and_cancelled_here(
    nodes: list[Served[ManualAgent]], callers: list[Caller]
) -> None:
    _, there = callers
    openai: Any = await nodes[0].openai()
    response = await openai.responses.create(input="hi", background=True, model="default")
    turn = await nodes[0].agent.turn()
    cancelled = await there.ask(CANCEL, id=response.id)
    await turn.closed.wait()

    assert cancelled["cancel"]["status"] == "CANCELLED"
    assert (await openai.responses.retrieve(response.id)).status == "cancelled"


async def test_a_cursor_is_gone_on_behind_on_another_node(
    nodes: list[Served[ManualAgent]], callers: list[Caller]
) -> None:
    here, there = callers
    sent = await here.send("hi")
    turn = await nodes[0].agent.turn()
    socket = await here.socket()
    await socket.subscribe("1", session=sent["sessionId"])
    await socket.subscribe("2", response=sent["responseId"])
    for piece in ("one ", "two "):
        turn.say(piece)
        await socket.shows("1", piece)
        await socket.shows("2", piece)
    other = await there.socket()
    await other.subscribe("1", session=sent["sessionId"], after=socket.events["1"][-1]["cursor"])
    await other.subscribe("2", response=sent["responseId"], after=socket.events["2"][-1]["cursor"])
    turn.say("three")
    await other.shows("1", "three")
    turn.end()
    await other.until("complete", "2")

    for name in ("1", "2"):
        assert other.events[name][0]["resumed"] is True
        assert said(other.events[name]) == "three"


async def test_a_message_that_is_sent_again_to_another_node_runs_once(
    nodes: list[Served[ManualAgent]], callers: list[Caller]
) -> None:
    sent = [await caller.send("once", messageId="m1") for caller in callers]

    assert sent[0]["responseId"] == sent[1]["responseId"]
    assert sum(len(node.agent.turns) for node in nodes) == 1
    await callers[0].ask(CANCEL, id=sent[0]["responseId"])
