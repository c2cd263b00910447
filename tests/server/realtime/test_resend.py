"""What is sent twice is taken once (C12). A retry costs nothing, whatever the first became."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Client, Frame, user_item
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent

ASK: Frame = {"type": "response.create"}


def message(text: str, *, item_id: str | None = None, **extra: Any) -> Frame:
    return {"type": "conversation.item.create", "item": user_item(text, item_id), **extra}


NAMES = [
    pytest.param({"item_id": "msg-1"}, id="item id"),
    pytest.param({"event_id": "evt-1"}, id="event id"),
    pytest.param({"unbroken": {"message_id": "m-1"}}, id="message id"),
]


async def move(server: Served[Any], client: Client, how: str) -> Client:
    """Return the client on another connection, or another client of the same session."""
    match how:
        case "dropped":
            await client.drop()
            await client.resume()
        case "from the start":
            client = await server.tab(client)
            await client.sync()  # it is shown earlier refusals, too
        case "reset":
            await client.drop()
            await client.resume(after="garbage")
        case _:
            pass
    return client


def texts(client: Client) -> list[str]:
    items = [frame["item"] for frame in client.of("conversation.item.added")]
    return [item["content"][0]["text"] for item in items if item["role"] == "user"]


@pytest.mark.parametrize("how", ["same", "dropped", "from the start", "reset"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_message_sent_twice_is_there_once(
    server: Served[ScriptedAgent], name: dict[str, Any], how: str
) -> None:
    client = await server.client()
    await client.send(message("hello", **name))
    await client.sync()
    client = await move(server, client, how)
    await client.send(message("hello", **name))
    await client.sync()

    assert texts(client) == ["hello"]
    assert set(client.errors()) == {"item_not_found"}


@pytest.mark.parametrize("how", ["same", "dropped", "from the start", "reset"])
@pytest.mark.parametrize("name", [NAMES[0], NAMES[2]])
async def test_the_same_name_for_another_message_is_an_error(
    server: Served[ScriptedAgent], name: dict[str, Any], how: str
) -> None:
    client = await server.client()
    await client.send(message("hello", **name))
    await client.sync()
    client = await move(server, client, how)
    await client.send(message("goodbye", **{**name, "event_id": "second"}))
    error = await client.error()

    assert (error["code"], error["event_id"]) == ("message_id_reused", "second")
    assert texts(client) == ["hello"]


async def test_an_event_id_may_be_reused_for_something_else(server: Served[ScriptedAgent]) -> None:
    """SDKs count from one in each connection."""
    client = await server.client()
    await client.send(message("hello", event_id="evt-1"))
    await client.sync()
    await client.drop()
    await client.resume()
    await client.send(message("goodbye", event_id="evt-1"))
    await client.sync()

    assert texts(client) == ["hello", "goodbye"]


@pytest.mark.parametrize("how", ["same", "dropped", "from the start", "reset"])
@pytest.mark.parametrize("name", [{"event_id": "ask-1"}, {"unbroken": {"message_id": "a-1"}}])
async def test_a_response_asked_for_twice_is_generated_once(
    server: Served[ScriptedAgent], name: dict[str, Any], how: str
) -> None:
    """Also after it has ended, when nothing else would refuse it."""
    client = await server.client()
    await client.send(message("hello"), {**ASK, **name})
    await client.done()
    client = await move(server, client, how)
    await client.send({**ASK, **name})
    await client.sync()

    assert server.agent.calls == 1
    assert set(client.errors()) == {"item_not_found"}


async def test_a_retry_while_the_first_is_running(manual: Served[ManualAgent]) -> None:
    """Under each policy, and from both connections at once."""
    client = await manual.client()
    other = await manual.tab(client)
    named = {"unbroken": {"message_id": "a-1"}}
    for policy in ("reject", "queue", "merge", "interrupt"):
        session = {"type": "realtime", "unbroken": {"concurrency": policy}}
        await client.send({"type": "session.update", "session": session})
        await asyncio.gather(client.send({**ASK, **named}), other.send({**ASK, **named}))
        await client.sync()
        await other.sync()
    turn = await manual.agent.turn()
    turn.say("one")
    turn.end()
    await client.done()
    await other.done()

    assert client.answers() == other.answers() == [("completed", "one")]
    assert len(manual.agent.turns) == 1


async def test_what_was_refused_is_refused_again(manual: Served[ManualAgent]) -> None:
    """A retry gets the answer that was lost, as often as it asks."""
    client = await manual.client()
    await client.send(message("hello", item_id="msg-1"), ASK)
    await manual.agent.turn()
    again = {**ASK, "event_id": "again"}
    for _ in range(2):
        await client.send(again)
        error = await client.error()
        assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "again")
        await client.drop()
        await client.resume()
    await client.cancel()
    await client.done()

    assert len(manual.agent.turns) == 1


async def test_a_cut_leaves_the_client_unsure_and_a_resend_settles_it(serve: Serve) -> None:
    """The socket breaks at every possible moment of sending; the client sends all of it again."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), max_sessions=100)
    for moment in range(6):
        calls = server.agent.calls
        client = await server.client()
        events = [message(f"moment {moment}", item_id="msg-1"), {**ASK, "event_id": "ask-1"}]
        for event in events[:moment]:
            await client.send(event)
        if moment > 2:
            await client.see(moment)
        await client.drop()
        await client.resume()
        await client.send(*events)
        await client.done()
        await client.sync()

        assert client.answers() == [("completed", f"You said: moment {moment}")]
        assert server.agent.calls == calls + 1


async def test_a_message_of_another_session_has_names_of_its_own(server: Served[ScriptedAgent]) -> None:
    first, second, stranger = await server.client(), await server.client(), await server.client("mallory")
    for client in (first, second, stranger):
        await client.send(message("hello", item_id="msg-1", unbroken={"message_id": "m-1"}))
        await client.sync()

        assert texts(client) == ["hello"]
