"""What begins on one door and one node is watched, gone on with and cancelled on others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, eventually
from tests.server.two_nodes import two_nodes
from unbroken.server.agents.base import Message

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest_asyncio.fixture
async def nodes(valkey: Server) -> AsyncIterator[list[Served[ManualAgent]]]:
    async with two_nodes(valkey) as nodes:
        yield nodes


def said(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def test_begun_over_http_watched_elsewhere_in_mid_answer(nodes: list[Served[ManualAgent]]) -> None:
    here, there = nodes
    client: Any = await here.openai()
    other: Any = await there.openai()
    stream = await client.responses.create(input="hi", stream=True, model="default")
    first = (await anext(stream)).response
    turn = await here.agent.turn()
    turn.say("one ")
    async for event in stream:
        if event.type == "response.output_text.delta":
            break

    watched = await other.responses.retrieve(first.id, stream=True)
    realtime = there.stranger(token=first.to_dict()["unbroken"]["resume"])
    await realtime.resume()
    await realtime.said("one ")
    assert (await other.responses.retrieve(first.id)).status == "in_progress"
    turn.say("two")
    turn.end()

    events = [event async for event in watched]
    rest = [event async for event in stream]
    assert said(events) == "one " + said(rest) == "one two"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (await realtime.done())["status"] == "completed"
    assert (await other.responses.retrieve(first.id)).output_text == "one two"


async def test_begun_over_http_cancelled_elsewhere(nodes: list[Served[ManualAgent]]) -> None:
    here, there = nodes
    client: Any = await here.openai()
    other: Any = await there.openai()
    response = await client.responses.create(input="hi", background=True, model="default")
    turn = await here.agent.turn()
    turn.say("half")

    cancelled = await other.responses.cancel(response.id)

    assert cancelled.status == "cancelled"
    await turn.closed.wait()
    assert turn.was_stopped


async def test_begun_over_http_cancelled_elsewhere_over_a_websocket(
    nodes: list[Served[ManualAgent]],
) -> None:
    here, there = nodes
    client: Any = await here.openai()
    response = await client.responses.create(input="hi", background=True, model="default")
    turn = await here.agent.turn()
    realtime = there.stranger(token=response.to_dict()["unbroken"]["resume"])
    await realtime.resume()

    await realtime.cancel(response.id)

    assert (await realtime.done())["status"] == "cancelled"
    await turn.closed.wait()


async def test_begun_over_a_websocket_watched_gone_on_with_and_cancelled_elsewhere(
    nodes: list[Served[ManualAgent]],
) -> None:
    here, there = nodes
    realtime = await here.client()
    await realtime.ask("hi")
    turn = await here.agent.turn()
    turn.say("one")
    response_id = (await realtime.until("response.created"))["response"]["id"]
    other: Any = await there.openai()
    watched = await other.responses.retrieve(response_id, stream=True)
    turn.end()
    events = [event async for event in watched]
    assert said(events) == "one"

    second = await other.responses.create(
        input="and?", previous_response_id=response_id, background=True, model="default"
    )
    await there.agent.turn() if there.agent.turns else await here.agent.turn(1)
    await other.responses.cancel(second.id)

    await realtime.until("response.done")
    assert (await realtime.done())["id"] == second.id


async def test_what_rests_is_had_on_any_node(nodes: list[Served[ManualAgent]]) -> None:
    here, there = nodes
    client: Any = await here.openai()
    other: Any = await there.openai()
    asked = await client.responses.create(input="hi", background=True, model="default", metadata={"a": "b"})
    turn = await here.agent.turn()
    turn.say("x" * 5_000)  # more than what is kept of the log of one that rests
    turn.end()
    await here.idle()
    while len(here.app.node.hub):
        await here.app.node.sweep()

    kept = await other.responses.retrieve(asked.id)

    assert (kept.status, kept.output_text, kept.metadata) == ("completed", "x" * 5_000, {"a": "b"})
    second = await other.responses.create(
        input="more", previous_response_id=asked.id, background=True, model="default"
    )
    items = await client.responses.input_items.list(second.id, order="asc")
    assert [item.content[0].text[:4] for item in items.data] == ["hi", "xxxx", "more"]
    await client.responses.cancel(second.id)


async def test_a_request_that_is_sent_again_to_another_node_runs_once(
    nodes: list[Served[ManualAgent]],
) -> None:
    header = {"Idempotency-Key": "message-1"}
    clients: list[Any] = [await node.openai() for node in nodes]
    ids = [
        (
            await client.responses.create(
                input="once", background=True, model="default", extra_headers=header
            )
        ).id
        for client in clients
    ]

    assert ids[0] == ids[1]
    assert len(nodes[0].agent.turns) + len(nodes[1].agent.turns) == 1
    await clients[0].responses.cancel(ids[0])


async def test_begun_in_chat_watched_gone_on_with_and_cancelled_elsewhere(
    nodes: list[Served[ManualAgent]],
) -> None:
    here, there = nodes
    client: Any = await here.openai()
    other: Any = await there.openai()
    wanted: Any = {"model": "default", "stream": True}
    one: Any = {"role": "user", "content": "one"}
    stream = await client.chat.completions.create(
        **wanted, messages=[one], extra_headers={"Unbroken-Session": "new"}
    )
    told = (await anext(stream)).to_dict()["unbroken"]
    turn = await here.agent.turn()
    turn.say("half ")
    watched = await other.responses.retrieve(told["response"], stream=True)
    turn.say("whole")
    turn.end()

    assert said([event async for event in watched]) == "half whole"
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "half whole"
    answer: Any = {"role": "assistant", "content": "half whole"}
    stream = await other.chat.completions.create(
        **wanted,
        messages=[one, answer, {"role": "user", "content": "two"}],
        extra_headers={"Unbroken-Session": told["session"]},
    )
    second = (await anext(stream)).to_dict()["unbroken"]
    await eventually(lambda: bool(here.agent.turns[1:] or there.agent.turns))
    (turn,) = here.agent.turns[1:] or there.agent.turns
    texts = [item.text for item in turn.given.messages]
    cancelled = await client.responses.cancel(second["response"])
    chunks = [chunk.to_dict() async for chunk in stream]

    assert texts == ["one", "half whole", "two"]
    assert cancelled.status == "cancelled"
    assert chunks[-1]["unbroken"]["status"] == "cancelled"


async def test_two_that_go_on_from_the_same_in_the_same_moment_dont_hear_each_other(
    nodes: list[Served[ManualAgent]],
) -> None:
    """Whoever is first has the last word there, and the other one goes on in a copy."""
    clients: list[Any] = [await node.openai() for node in nodes]
    conversations = []
    for number in range(6):
        begun = len(nodes[0].agent.turns)
        first = await clients[0].responses.create(input="hi", background=True, model="default")
        (await nodes[0].agent.turn(begun)).end()
        await nodes[0].idle()

        asked = [
            client.responses.create(
                input=f"{number} {name}", previous_response_id=first.id, background=True, model="default"
            )
            for client, name in zip(clients, ("left", "right"), strict=True)
        ]
        answers = await asyncio.gather(*asked)
        for answer, name in zip(answers, ("left", "right"), strict=True):
            items = await clients[number % 2].responses.input_items.list(answer.id, order="asc")
            assert [item.content[0].text for item in items.data] == ["hi", f"{number} {name}"]
            conversations.append(answer.conversation.id == first.conversation.id)
            await clients[0].responses.cancel(answer.id)

    assert sum(conversations) == 6  # one of each two
    assert all(len(turn.given.messages) <= 2 for node in nodes for turn in node.agent.turns)


async def test_what_was_said_on_one_is_summed_up_on_another(nodes: list[Served[ManualAgent]]) -> None:
    here, there = nodes
    client: Any = await here.openai()
    other: Any = await there.openai()
    asking = asyncio.create_task(client.responses.create(input="one", model="default"))
    turn = await here.agent.turn()
    turn.say("1")
    turn.end()
    first = await asking

    asking = asyncio.create_task(other.responses.compact(previous_response_id=first.id, model="default"))
    summing = await there.agent.turn()
    summing.say("One was said.")
    summing.end()
    window = (await asking).to_dict(mode="json", warnings=False)["output"]
    asking = asyncio.create_task(client.responses.create(input=window, model="default"))
    turn = await here.agent.turn(1)
    turn.end()
    await asking

    assert [item.text for item in summing.given.items if isinstance(item, Message)][:2] == ["one", "1"]
    read = [item.text for item in turn.given.items if isinstance(item, Message)]
    assert read == ["one", "Summary of the conversation so far:\n\nOne was said."]
