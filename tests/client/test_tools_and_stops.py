"""The client has its functions called, once each, and stops what it is told to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client.conftest import Connect
from tests.client.reading import until_said, users
from tests.fakes.proxy import Proxy
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, eventually
from unbroken.client import (
    AnswerTooLong,
    Limits,
    Tool,
)
from unbroken.server.agents.base import FunctionCallPiece
from unbroken.server.agents.scripted import ScriptedAgent


async def weather(arguments: dict[str, Any]) -> object:
    if arguments["city"] == "Atlantis":
        raise LookupError("not on any map")
    return {"city": arguments["city"], "weather": "rain"}


@pytest.mark.client("own-python", "tools")
@pytest.mark.parametrize("frames", range(0, 36, 3))
async def test_functions_are_run_once_whatever_becomes_of_connections(
    server: Served[ScriptedAgent], clients: Connect, frames: int
) -> None:
    calls: list[str] = []

    async def noted(arguments: dict[str, Any]) -> object:
        calls.append(arguments["city"])
        return await weather(arguments)

    server.inspector.close_next(after=frames, code=1012)
    server.inspector.close_next(after=frames, code=1012)
    client = await clients(server.port, tools=[Tool("weather", noted, "The weather.")])
    turn = client.send(
        '/say Let me see.\n/call weather {"city": "Ulm"}\n/call weather {"city": "Atlantis"}\n/call gone'
    )
    result = await turn.result()

    outputs = [
        '{"city":"Ulm","weather":"rain"}',
        '{"error":"The function failed: LookupError."}',
        '{"error":"There is no such function."}',
    ]
    assert result.text == f"Let me see.Returned: {', '.join(outputs)}"
    assert sorted(calls) == ["Atlantis", "Ulm"]
    assert server.agent.calls == 2


async def test_who_calls_again_and_again_is_stopped(server: Served[ScriptedAgent], clients: Connect) -> None:
    client = await clients(server.port, limits=Limits(rounds=3))
    with pytest.raises(AnswerTooLong):
        await client.send("/insist f {}").result()

    assert server.agent.calls == 3
    assert (await client.send("hi").result()).text == "You said: hi"


async def test_stopping_a_turn_stops_its_functions(manual: Served[ManualAgent], clients: Connect) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hangs(_: dict[str, Any]) -> object:
        begun.set()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    client = await clients(manual.port, tools=[Tool("hangs", hangs)])
    turn = client.send("hi")
    held = await manual.agent.turn()
    held.say(FunctionCallPiece(0, "{}", "k", "hangs"))
    held.end()
    await begun.wait()
    turn.stop()

    assert (await turn.result()).status == "cancelled"
    await ended.wait()


# Stopping.


@pytest.mark.client("own-python", "cancel")
async def test_a_turn_is_stopped_in_mid_answer(manual: Served[ManualAgent], clients: Connect) -> None:
    client = await clients(manual.port)
    turn, second = client.send("hi"), client.send("and?")
    held = await manual.agent.turn()
    held.say("one ")
    await until_said(turn, "one ")
    turn.stop()
    turn.stop()
    result = await turn.result()
    (await manual.agent.turn(1)).end()

    assert (result.text, result.status, result.reason) == ("one ", "cancelled", "client_cancelled")
    assert held.was_stopped
    assert (await second.result()).status == "completed"


async def test_a_turn_that_waits_is_never_sent(manual: Served[ManualAgent], clients: Connect) -> None:
    client = await clients(manual.port)
    first, second, third = (client.send(text) for text in ("one", "two", "three"))
    held = await manual.agent.turn()
    second.stop()
    assert (await second.result()).status == "cancelled"
    held.end()
    (await manual.agent.turn(1)).end()
    await first.result()
    await third.result()

    assert users(manual) == ["one", "three"]


async def test_a_stop_without_a_connection_is_heard_when_there_is_one(
    manual: Served[ManualAgent], clients: Connect
) -> None:
    async with Proxy(manual.port) as proxy:
        client = await clients(proxy.port)
        turn = client.send("hi")
        held = await manual.agent.turn()
        held.say("one ")
        await until_said(turn, "one ")
        proxy.refuse()
        proxy.cut()
        await eventually(lambda: not client.is_connected)
        turn.stop()
        await proxy.accept()

        assert (await turn.result()).status == "cancelled"
        assert held.was_stopped
        await client.close()


async def test_the_conversation_is_stopped_whoever_asked(
    manual: Served[ManualAgent], clients: Connect
) -> None:
    client = await clients(manual.port)
    turn = client.send("hi")
    (await manual.agent.turn()).end()
    await turn.result()
    token = client.state["token"]
    other = manual.stranger(token=token)
    await other.resume()
    await other.ask("theirs")
    theirs = await manual.agent.turn(1)
    waiting = client.send("later")
    await until_active(client)
    client.stop()
    await other.until("response.done", **{})
    await theirs.closed.wait()

    assert theirs.was_stopped
    assert (await waiting.result()).status == "cancelled"


async def until_active(client: Any) -> None:
    await eventually(lambda: bool(client._conversation._active))


async def test_the_answer_to_another_client_is_waited_for(
    manual: Served[ManualAgent], clients: Connect
) -> None:
    """The session takes one response at a time, from whomever; this client asks again under another name."""
    client = await clients(manual.port)
    turn = client.send("hi")
    (await manual.agent.turn()).end()
    await turn.result()
    other = manual.stranger(token=client.state["token"])
    await other.resume()
    await other.ask("theirs")
    theirs = await manual.agent.turn(1)
    mine = client.send("mine")
    await eventually(lambda: "mine" in users(manual))
    theirs.say("to them")
    theirs.end()
    ours = await manual.agent.turn(2)
    ours.say("to us")
    ours.end()

    assert (await mine.result()).text == "to us"
    assert [message.text for message in ours.given.messages][-1] in ("mine", "to them")
