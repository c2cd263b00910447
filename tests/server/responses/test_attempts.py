"""An answer whose node is lost, and that is made again: what clients of Responses are told of it.

The client is OpenAI's own for Python, unmodified. It asks a node that goes on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from openai import ConflictError, NotFoundError
from websockets.asyncio.client import ClientConnection, connect

from tests.conformance.node import node as run_node
from tests.fakes.valkey import Server
from tests.server.doors.door import http_to
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually
from tests.server.two_nodes import some_nodes, two_nodes
from unbroken.sessions.backends.base import Receipt
from unbroken.sessions.entries import Submitted
from unbroken.sessions.ids import SessionId, session_of

pytestmark = pytest.mark.slow

Nodes = list[Served[ManualAgent]]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest_asyncio.fixture
async def nodes(valkey: Server) -> AsyncIterator[Nodes]:
    async with two_nodes(valkey, turn_attempts=2) as nodes:
        yield nodes


async def begun(nodes: Nodes, said: str = "half") -> str:
    """Begin an answer on the first node, have it say a part of it, and return its id."""
    client: Any = await nodes[0].openai()
    response = await client.responses.create(input="hi", background=True, model="default")
    turn = await nodes[0].agent.turn()
    if said:
        turn.say(said)
    return str(response.id)


async def lost(nodes: Nodes) -> HeldTurn:
    """Have the first node leave its answers to the other one, and return the further attempt there."""
    here, there = nodes
    here.app.begin_drain()
    await eventually(lambda: here.app.node.is_handing_over)
    await here.app.drained(0)
    return await there.agent.turn()


def said(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def first_word(stream: Any) -> list[Any]:
    """Return the events up to the first piece."""
    events = []
    async for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta":
            break
    return events


@pytest.mark.client("openai-python", "responses")
async def test_its_stream_ends_with_where_the_answer_is_and_that_is_followed(nodes: Nodes) -> None:
    client: Any = await nodes[1].openai()
    first = await begun(nodes)
    stream = await client.responses.retrieve(first, stream=True)
    events = await first_word(stream)
    turn = await lost(nodes)
    events += [event async for event in stream]
    last = events[-1]
    told = last.response.to_dict()["unbroken"]
    assert (last.type, last.response.status) == ("response.incomplete", "incomplete")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert told["status"] == "interrupted"

    again = told["superseded_by"]
    old = await client.responses.retrieve(first)
    assert (old.status, old.output, old.to_dict()["unbroken"]["superseded_by"]) == ("incomplete", [], again)
    followed = await client.responses.retrieve(again, stream=True)
    turn.say("whole")
    turn.end()
    assert said([event async for event in followed]) == "whole"

    # What goes on from the one that was cut off goes on from what stands for it.
    more = asyncio.create_task(
        client.responses.create(input="more", previous_response_id=first, model="default")
    )
    second = await nodes[1].agent.turn(1)
    assert [getattr(message, "text", None) for message in second.given.messages] == ["hi", "whole", "more"]
    second.end()
    assert (await more).status == "completed"


async def test_who_asks_again_by_the_same_name_gets_the_attempt_that_stands_for_it(nodes: Nodes) -> None:
    async def asked(node: Served[ManualAgent]) -> dict[str, Any]:
        body = {"input": "hi", "background": True}
        async with http_to(node) as http:
            answer = await http.post("/v1/responses", json=body, headers={"Idempotency-Key": "one"})
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    first = await asked(nodes[0])
    (await nodes[0].agent.turn()).say("half")
    turn = await lost(nodes)
    running = await asked(nodes[1])
    assert running["id"] != first["id"]
    assert running["status"] == "in_progress"
    turn.say("whole")
    turn.end()
    await eventually(lambda: not nodes[1].app.node.hub.is_busy)
    answer = await asked(nodes[1])
    assert (answer["id"], answer["status"]) == (running["id"], "completed")


@pytest.mark.client("openai-python", "responses")
@pytest.mark.parametrize("said", ["half", ""])
@pytest.mark.parametrize("by", ["the old id", "the new id"])
async def test_it_is_deleted_with_all_attempts_by_either_id(nodes: Nodes, said: str, by: str) -> None:
    client: Any = await nodes[1].openai()
    first = await begun(nodes, said)
    turn = await lost(nodes)
    turn.say("whole")
    with pytest.raises(ConflictError):  # it is in progress
        await client.responses.delete(first)
    turn.end()
    await eventually(lambda: not nodes[1].app.node.hub.is_busy)
    old = await client.responses.retrieve(first)
    again = old.to_dict()["unbroken"]["superseded_by"]
    assert (old.status, old.output) == ("incomplete", [])  # what it said no longer counts

    await client.responses.delete(first if by == "the old id" else again)
    for name in (first, again):
        for asking in (
            client.responses.retrieve(name),
            client.responses.retrieve(name, stream=True),
            client.responses.delete(name),
        ):
            with pytest.raises(NotFoundError):
                await asking


@pytest.mark.client("openai-python", "responses")
async def test_the_helper_for_streams_takes_it_for_an_end(nodes: Nodes) -> None:
    client: Any = await nodes[1].openai()
    first = await begun(nodes)
    async with client.responses.stream(response_id=first) as stream:
        events = await first_word(stream)
        turn = await lost(nodes)
        events += [event async for event in stream]
    assert events[-1].type == "response.incomplete"
    again = events[-1].response.to_dict()["unbroken"]["superseded_by"]
    async with client.responses.stream(response_id=again) as stream:
        turn.say("whole")
        turn.end()
        final = await stream.get_final_response()
    assert final.output_text == "whole"


async def test_who_waits_for_the_whole_gets_that_of_the_further_attempt(nodes: Nodes) -> None:
    here, there = nodes
    client: Any = await there.openai()
    tab = await here.client()  # which keeps the session there
    await tab.ask("hello")
    (await here.agent.turn()).end()
    await tab.done()
    conversation = (tab.session_id or "").replace("sess_", "conv_")
    asking = asyncio.create_task(
        client.responses.create(input="hi", conversation=conversation, model="default")
    )
    (await here.agent.turn(1)).say("half")
    turn = await lost(nodes)
    turn.say("whole")
    turn.end()
    answer = await asking

    assert (answer.status, answer.output_text) == ("completed", "whole")
    assert (await client.responses.retrieve(answer.id)).output_text == "whole"


async def test_it_is_stopped_by_the_id_that_was_known(nodes: Nodes) -> None:
    client: Any = await nodes[1].openai()
    first = await begun(nodes)
    watched = await client.responses.retrieve(first, stream=True)
    await first_word(watched)
    turn = await lost(nodes)
    cancelled = await client.responses.cancel(first)
    again = cancelled.to_dict()["unbroken"]["superseded_by"]
    await turn.closed.wait()

    assert turn.was_stopped
    assert (await client.responses.retrieve(again)).status == "cancelled"


@pytest.mark.parametrize("door", ["responses", "ui"])
async def test_it_is_stopped_where_nobody_has_heard_yet_that_it_is_attempted_again(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    async with some_nodes(3, valkey, turn_attempts=2) as (*nodes, behind):
        clients: list[Any] = [await each.openai() for each in (behind, nodes[1])]
        first = await begun(nodes)
        streams = [await each.responses.retrieve(first, stream=True) for each in clients]
        for stream in streams:
            await first_word(stream)
        actor = behind.app.node.hub.get(SessionId(str(session_of(first))))
        assert actor is not None
        submit = actor.submit

        async def submitted(given: Submitted) -> Receipt:
            monkeypatch.undo()  # it reads again
            return await submit(given)

        monkeypatch.setattr(actor, "look", lambda: None)
        monkeypatch.setattr(actor, "submit", submitted)
        turn = await lost(nodes)
        assert first in actor.session.responses
        async with http_to(behind) as http:
            chat = f"/v1/ui/chat/{actor.session.id.replace('sess_', 'conv_')}/stop"
            path = f"/v1/responses/{first}/cancel" if door == "responses" else chat
            assert (await http.post(path)).status_code == 200
        async with asyncio.timeout(WAIT):
            await turn.closed.wait()

        assert turn.was_stopped
        for stream in streams:
            await stream.close()


async def test_a_lane_is_told_and_another_says_the_answer(nodes: Nodes) -> None:
    first = await begun(nodes)
    async with lane(nodes[1], f"{first}:0:a") as ws:
        events = [await heard(ws)]
        while events[-1]["type"] != "response.output_text.delta":
            events.append(await heard(ws))
        turn = await lost(nodes)
        while events[-1]["type"] != "response.incomplete":
            events.append(await heard(ws))
    again = events[-1]["response"]["unbroken"]["superseded_by"]
    assert {event["stream_id"] for event in events} == {"a"}
    async with lane(nodes[1], f"{again}:0:a") as ws:
        turn.say("whole")
        turn.end()
        events = [await heard(ws)]
        while events[-1]["type"] != "response.completed":
            events.append(await heard(ws))
    assert "".join(event.get("delta", "") for event in events) == "whole"


@pytest.mark.client("openai-node", "responses")
async def test_openai_for_node_takes_it_for_an_end(nodes: Nodes) -> None:
    first = await begun(nodes)
    base_url = f"http://127.0.0.1:{nodes[1].port}/v1"
    running = asyncio.create_task(run_node("responses.mjs", "again", base_url, first, KEY="alice"))
    await eventually(lambda: nodes[1].app.node.hub.connections == 2)
    turn = await lost(nodes)
    turn.say("whole")
    turn.end()
    seen = await running

    for events in (seen["events"], seen["helped"]):
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[-1]["type"] == "response.incomplete"
    assert seen["answer"] == "whole"


def lane(server: Served[ManualAgent], said_on: str) -> connect:
    url = f"ws://127.0.0.1:{server.port}/v1/responses?continue={said_on}"
    headers = {"Authorization": "Bearer alice"}
    return connect(url, additional_headers=headers, compression=None, proxy=None)


async def heard(ws: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(WAIT):
        event: dict[str, Any] = json.loads(await ws.recv())
    return event
