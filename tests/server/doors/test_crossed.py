"""Whichever door an answer begins at, it is watched, resumed and stopped through the others, on another node.

Through Realtime and through Responses, which have what each of these takes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.server.doors.door import Begun, Door, Node, http_to
from tests.server.doors.openai_doors import OPENAI_DOORS, TRANSIENT
from tests.server.doors.page_doors import PAGE_DOORS
from tests.server.realtime.client import Client
from tests.server.two_nodes import two_nodes

pytestmark = pytest.mark.slow

Nodes = list[Node]

DOORS = {**OPENAI_DOORS, **PAGE_DOORS}

every_door = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest_asyncio.fixture
async def nodes(valkey: Server) -> AsyncIterator[Nodes]:
    async with two_nodes(valkey, graphql=True) as nodes:
        yield nodes


async def joined(node: Node, begun: Begun) -> Client:
    """Return a Realtime client of the session, to which all of it is told."""
    client = node.stranger(token=begun.resume)
    await client.resume()
    return client


async def told(door: Door, begun: Begun) -> tuple[str, Any]:
    """Return what whoever asked was told: the text, and how it ended."""
    frames = [frame async for frame in begun.frames]
    return door.said(frames), door.end(frames)


def said(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


@every_door
async def test_it_is_watched_in_mid_answer(nodes: Nodes, door: Door) -> None:
    here, there = nodes
    async with door.begin(here) as begun:
        turn = await here.agent.turn()
        turn.say("one ")
        realtime = await joined(there, begun)
        await realtime.said("one ")
        other: Any = await there.openai()
        watched = await other.responses.retrieve(begun.response, stream=True)
        events = []
        async for event in watched:
            events.append(event)
            if said(events) == "one ":
                break
        turn.say("two ", "three")
        turn.end()
        events += [event async for event in watched]
        await realtime.done()

        assert realtime.answers() == [("completed", "one two three")]
        assert said(events) == "one two three"
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert (events[-1].type, events[-1].response.id) == ("response.completed", begun.response)
        assert await told(door, begun) == ("one two three", door.completed)
    assert there.agent.turns == []


@every_door
async def test_it_is_resumed_in_mid_answer(nodes: Nodes, door: Door) -> None:
    """Who watches it on one node loses the connection, and comes back on the other."""
    here, there = nodes
    async with door.begin(here) as begun:
        turn = await here.agent.turn()
        turn.say("one ")
        realtime = await joined(there, begun)
        await realtime.said("one ")
        other: Any = await there.openai()
        events = []
        async with await other.responses.retrieve(begun.response, stream=True) as watched:
            async for event in watched:
                events.append(event)
                if said(events) == "one ":
                    break
        await realtime.drop()
        await there.no_connections()
        turn.say("two ")

        realtime.port = here.port
        await realtime.resume()
        await realtime.said("two ")
        client: Any = await here.openai()
        rest = await client.responses.retrieve(
            begun.response, stream=True, starting_after=events[-1].sequence_number
        )
        turn.say("three")
        turn.end()
        events += [event async for event in rest]
        await realtime.done()

        assert realtime.resumed is True
        assert realtime.answers() == [("completed", "one two three")]
        assert said(events) == "one two three"
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert await told(door, begun) == ("one two three", door.completed)


@every_door
async def test_it_is_stopped_through_realtime(nodes: Nodes, door: Door) -> None:
    here, there = nodes
    async with door.begin(here) as begun:
        turn = await here.agent.turn()
        turn.say("half")
        realtime = await joined(there, begun)
        await realtime.said("half")

        await realtime.cancel(begun.response)

        assert (await realtime.done())["status"] == "cancelled"
        await turn.closed.wait()
        assert turn.was_stopped
        assert realtime.answers() == [("cancelled", "half")]
        assert await told(door, begun) == ("half", door.cancelled)


@every_door
async def test_it_is_stopped_through_responses(nodes: Nodes, door: Door) -> None:
    here, there = nodes
    async with door.begin(here) as begun:
        turn = await here.agent.turn()
        turn.say("half")
        other: Any = await there.openai()
        watched = await other.responses.retrieve(begun.response, stream=True)
        events = []
        async for event in watched:
            events.append(event)
            if said(events) == "half":
                break

        cancelled = await other.responses.cancel(begun.response)

        assert (cancelled.status, cancelled.output_text) == ("cancelled", "half")
        await turn.closed.wait()
        assert turn.was_stopped
        events += [event async for event in watched]
        assert (events[-1].type, events[-1].response.status) == ("response.incomplete", "cancelled")
        assert await told(door, begun) == ("half", door.cancelled)


@every_door
async def test_it_is_stopped_before_its_first_word(nodes: Nodes, door: Door) -> None:
    here, there = nodes
    async with door.begin(here) as begun:
        turn = await here.agent.turn()
        realtime = await joined(there, begun)

        await realtime.cancel(begun.response)

        assert (await realtime.done())["status"] == "cancelled"
        await turn.closed.wait()
        assert turn.was_stopped
        assert await told(door, begun) == ("", door.unsaid or door.cancelled)


@pytest.mark.parametrize(("door", "why"), TRANSIENT.values(), ids=TRANSIENT)
async def test_what_is_kept_nowhere_is_not_found_elsewhere(nodes: Nodes, door: Door, why: str) -> None:
    here, there = nodes
    async with door.begin(here) as begun, http_to(there) as http:
        turn = await here.agent.turn()
        turn.say("one ")
        path = f"/v1/responses/{begun.response}"
        asked = [
            await http.get(path),
            await http.get(path, params={"stream": "true"}),
            await http.post(f"{path}/cancel"),
        ]
        turn.say("two")
        turn.end()

        assert begun.resume is None, why
        assert [answer.status_code for answer in asked] == [404, 404, 404], why
        assert {answer.json()["error"]["code"] for answer in asked} == {"response_not_found"}
        assert await told(door, begun) == ("one two", door.completed)
    assert not turn.was_stopped
