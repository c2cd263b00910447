"""An answer whose node is lost, and that is made again: what clients of GraphQL are told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.server.graphql.client import Caller, Event
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually
from tests.server.two_nodes import two_nodes

pytestmark = pytest.mark.slow

SHOWN = "{ id status text output { text } supersededBy }"
RESPONSE = f"query($id: ID!) {{ response(id: $id) {SHOWN} }}"
CANCEL = f"mutation($id: ID!) {{ cancel(responseId: $id) {SHOWN} }}"

EVENTS = f"""subscription($session: ID, $response: ID) {{
  events(sessionId: $session, responseId: $response) {{ type kind delta response {SHOWN} }}
}}"""


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest_asyncio.fixture
async def nodes(valkey: Server) -> AsyncIterator[list[Served[ManualAgent]]]:
    async with two_nodes(valkey, graphql=True, turn_attempts=2) as nodes:
        yield nodes


async def test_who_asks_for_it_is_told_where_the_answer_is(nodes: list[Served[ManualAgent]]) -> None:
    here, there = (Caller(node.port) for node in nodes)
    sent = await here.send("hi")
    first = sent["responseId"]
    (await nodes[0].agent.turn()).say("half")
    socket = await there.socket()
    await socket.subscribe("1", EVENTS, response=first)
    await socket.subscribe("2", EVENTS, session=sent["sessionId"])
    for name in ("1", "2"):
        await socket.shows(name, "half")
    nodes[0].app.begin_drain()
    await eventually(lambda: nodes[0].app.node.is_handing_over)
    await nodes[0].app.drained(0)
    turn = await nodes[1].agent.turn()
    turn.say("whole")
    async with asyncio.timeout(WAIT):
        await socket.until("complete", "1")
        await socket.shows("2", "halfwhole")

    shown = (await there.ask(RESPONSE, id=first))["response"]
    again = shown.pop("supersededBy")
    cut_off = {"id": first, "status": "INTERRUPTED", "text": "", "output": []}
    assert shown == cut_off
    for name in ("1", "2"):
        assert ended(socket.events[name]) == [{**cut_off, "supersededBy": again}]
    assert (await there.ask(CANCEL, id=first))["cancel"] == {**cut_off, "supersededBy": again}
    assert turn.was_stopped
    shown = (await there.ask(RESPONSE, id=again))["response"]
    assert (shown["status"], shown["text"], shown["supersededBy"]) == ("CANCELLED", "whole", None)
    for caller in (here, there):
        await caller.aclose()


def ended(events: list[Event]) -> list[Event]:
    return [event["response"] for event in events if event["type"] == "RESPONSE_DONE"]
