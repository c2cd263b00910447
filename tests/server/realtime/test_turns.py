"""Turns: how they end, who may stop them, and what is sent twice. Letters as in ``test_resume``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.store import DistantStore
from tests.server.conftest import Serve
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.client import WAIT, Client, user_item
from tests.server.realtime.serving import Served, eventually
from unbroken.server import store_selection
from unbroken.server.agents.base import AgentError, UpstreamCut, Usage, Working
from unbroken.server.agents.scripted import ScriptedAgent, answer_to
from unbroken.sessions.backends.base import Receipt
from unbroken.sessions.backends.memory import MemoryStore


async def ask(manual: Served[ManualAgent], *pieces: str) -> tuple[Client, HeldTurn]:
    """Return a client that has heard *pieces* of an answer, and the turn."""
    client = await manual.client()
    await client.ask("go")
    turn = await manual.agent.turn()
    turn.say(*pieces)
    await client.said("".join(pieces))
    return client, turn


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        ("/crash", "agent_crashed", ""),
        ("/crash after 2", "agent_crashed", "word1 word2"),
        ("/fail", "agent_error", ""),
        ("/fail upstream_cut after 2", "upstream_cut", "word1 word2"),
        ("/fail upstream_rate_limited", "upstream_rate_limited", ""),
        ("/nonsense", "bad_script", ""),
    ],
)
async def test_b1_a_failure_is_a_terminal_event(
    server: Served[ScriptedAgent], script: str, code: str, text: str
) -> None:
    """B1, B2, B4: it ends the response, keeps what was said, and the session goes on."""
    client = await server.client()
    await client.ask(script)
    response = await client.done()
    await client.ask("still there?")
    await client.done()

    assert response["status_details"]["type"] == "failed"
    assert response["status_details"]["error"]["code"] == code
    assert client.answers() == [("failed", text), ("completed", "You said: still there?")]
    assert "the script says so" not in str(client.frames)


async def test_b2_an_answer_of_nothing_is_complete(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.ask("/empty")
    response = await client.done()

    assert (response["status"], response["output"]) == ("completed", [])
    assert client.types()[2:] == ["response.created", "response.done"]


@pytest.mark.parametrize("end", ["end", "fail", "crash", "cancel"])
async def test_b3_a_terminal_event_is_kept_for_those_who_are_away(
    manual: Served[ManualAgent], end: str
) -> None:
    client, turn = await ask(manual, "one ")
    other = await manual.tab(client)
    await client.drop()
    match end:
        case "end":
            turn.end()
        case "fail":
            turn.fail(UpstreamCut())
        case "crash":
            turn.fail(ZeroDivisionError())
        case _:
            await other.cancel()
    await other.done()
    await other.close()
    await manual.idle()
    await client.resume()
    await client.done()

    assert client.resumed is True
    status = {"end": "completed", "fail": "failed", "crash": "failed", "cancel": "cancelled"}[end]
    assert client.answers() == other.answers() == [(status, "one ")]


async def test_b5_an_agent_that_stalls_is_stopped(serve: Serve) -> None:
    clock = FakeClock()
    manual: Served[ManualAgent] = await serve(ManualAgent(), clock=clock, stall_timeout=30)
    client, turn = await ask(manual, "one ")
    clock.advance(31)
    clock.advance(31)
    response = await client.done()

    assert response["status_details"]["error"]["code"] == "agent_stalled"
    assert client.answers() == [("failed", "one ")]
    assert turn.was_stopped


async def test_b5_an_agent_that_works_is_not(serve: Serve) -> None:
    clock = FakeClock()
    manual: Served[ManualAgent] = await serve(ManualAgent(), clock=clock, stall_timeout=30)
    client, turn = await ask(manual, "one ")
    taken = turn.taken
    for number in range(1, 6):
        turn.say(Working())
        await eventually(lambda number=number: turn.taken == taken + number)  # type: ignore[misc]
        clock.advance(29)
    turn.say("two")
    turn.end()
    await client.done()

    assert client.answers() == [("completed", "one two")]


async def test_b6_a_completed_turn_is_not_run_again(server: Served[ScriptedAgent]) -> None:
    """However often the client comes and goes, and with whatever cursor."""
    client = await server.client()
    await client.ask("once")
    await client.done()
    places = [frame["event_id"] for frame in client.frames]
    for place in [*places, "garbage"]:
        await client.drop()
        await client.resume(after=place)
        await client.sync()
        assert set(client.errors()) == {"item_not_found"}

    assert server.agent.calls == 1


async def test_b7_a_cancelled_turn_keeps_what_was_said(manual: Served[ManualAgent]) -> None:
    """Its item is incomplete; the next turn is given it."""
    client, turn = await ask(manual, "one ", "two ")
    await client.cancel()
    response = await client.done()
    turn.say("never")
    await client.ask("and?")
    second = await manual.agent.turn(1)
    second.end()
    await client.done()

    assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert response["output"][0]["status"] == "incomplete"
    assert client.answers() == [("cancelled", "one two "), ("completed", "")]
    assert [(each.role, each.text) for each in second.given.messages] == [
        ("user", "go"),
        ("assistant", "one two "),
        ("user", "and?"),
    ]


@pytest.mark.parametrize("how", ["drop", "close"])
async def test_c1_to_disconnect_is_not_to_cancel(manual: Served[ManualAgent], how: str) -> None:
    client, turn = await ask(manual, "one ")
    await (client.drop() if how == "drop" else client.close())
    await manual.no_connections()
    assert not turn.closed.is_set()
    turn.say("two")
    turn.end()
    await manual.idle()
    await client.resume()
    await client.done()

    assert client.answers() == [("completed", "one two")]
    assert not turn.was_stopped


async def test_c1_to_cancel_stops_the_agent_at_once(manual: Served[ManualAgent]) -> None:
    client, turn = await ask(manual, "one ")
    await client.cancel()
    async with asyncio.timeout(10):
        await turn.closed.wait()
    await client.done()

    assert turn.was_stopped
    assert client.answers() == [("cancelled", "one ")]


async def test_c1_a_stop_is_taken_although_its_connection_is_closed_at_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is everything that was sent before it, also where the store takes its time."""

    class Slow(DistantStore):
        async def submit(self, *args: Any) -> Receipt:
            for _ in range(50):
                await asyncio.sleep(0)
            return await super().submit(*args)

    monkeypatch.setattr(store_selection, "MemoryStore", lambda **_: Slow(MemoryStore(), 3))
    manual: Served[ManualAgent] = await serve(ManualAgent())
    client, turn = await ask(manual, "one ")
    said = [
        {"type": "conversation.item.create", "item": user_item("more", f"m{number}")} for number in range(5)
    ]
    await client.send(*said, {"type": "response.cancel"})
    await client.close()
    await manual.no_connections()
    async with asyncio.timeout(WAIT):
        await turn.closed.wait()
    await client.resume()
    await client.done()

    assert client.answers() == [("cancelled", "one ")]
    done = [frame["item"]["id"] for frame in client.of("conversation.item.done")]
    assert done[-6:-1] == [f"m{number}" for number in range(5)]


async def test_c3_stop_before_the_response_has_an_id(manual: Served[ManualAgent]) -> None:
    """It is sent in one breath with the message."""
    client = await manual.client()
    item = {"type": "conversation.item.create", "item": user_item("go")}
    await client.send(item, {"type": "response.create"}, {"type": "response.cancel"})
    await client.done()

    assert client.answers() == [("cancelled", "")]
    assert client.errors() == []
    assert all(turn.was_stopped for turn in manual.agent.turns)


@pytest.mark.parametrize("outputs", [[], [Working(), Working()], [""]], ids=["nothing", "working", "empty"])
async def test_c4_stop_before_the_first_token(manual: Served[ManualAgent], outputs: list[Any]) -> None:
    """C4, C5: also while it works on something else."""
    client = await manual.client()
    await client.ask("go")
    turn = await manual.agent.turn()
    turn.say(*outputs)
    await eventually(lambda: turn.taken == len(outputs))
    await client.cancel()
    response = await client.done()

    assert (response["status"], response["output"]) == ("cancelled", [])
    assert turn.was_stopped


async def test_c6_stop_from_another_connection(manual: Served[ManualAgent]) -> None:
    client, turn = await ask(manual, "one ")
    other = await manual.tab(client)
    await other.cancel(client.of("response.created")[0]["response"]["id"])
    await client.done()
    await other.done()

    assert client.answers() == other.answers() == [("cancelled", "one ")]
    assert turn.was_stopped


async def test_c6_stop_twice(manual: Served[ManualAgent]) -> None:
    """One end. Whether the second comes in time to find something to stop, it harms nothing."""
    client, _ = await ask(manual, "one ")
    await client.send({"type": "response.cancel"}, {"type": "response.cancel"})
    await client.done()
    await client.sync()

    assert client.answers() == [("cancelled", "one ")]
    assert set(client.errors()) <= {"response_cancel_not_active", "item_not_found"}


async def test_c6_stop_after_the_end(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.ask("hi")
    response = await client.done()
    await client.send({"type": "response.cancel", "response_id": response["id"], "event_id": "late"})
    error = await client.error()

    assert (error["code"], error["event_id"]) == ("response_cancel_not_active", "late")
    assert client.answers() == [("completed", "You said: hi")]


async def test_c6_nobody_stops_another_users_turn(manual: Served[ManualAgent]) -> None:
    """The same refusal as for an id that never was."""
    client, turn = await ask(manual, "one ")
    mallory = await manual.client("mallory")
    name = client.of("response.created")[0]["response"]["id"]
    await mallory.cancel(name)
    await mallory.cancel(unknown := "resp_" + "0" * 24)
    errors = [await mallory.error(), await mallory.error()]
    turn.end()
    await client.done()

    assert errors[0]["message"].replace(name, unknown) == errors[1]["message"]
    assert {error["code"] for error in errors} == {"response_cancel_not_active"}
    assert client.answers() == [("completed", "one ")]


async def test_c13_no_task_outlives_its_connection_or_its_turn(server: Served[ScriptedAgent]) -> None:
    """However each conversation ends. An idle session has no task either."""
    baseline = len(asyncio.all_tasks())
    scripts = ["hi", "/crash after 3", "/fail after 2", "/empty", "/tokens 300", "/stall after 2"]
    endings: list[Callable[[Client], Any]] = [Client.drop, Client.close]
    clients = []
    for number in range(12):
        client = await server.client()
        await client.ask(scripts[number % 6])
        clients.append(client)
    for client in clients[5::6]:
        await client.said("word2")
        await client.cancel()
    for number, client in enumerate(clients):
        await client.done()
        await endings[number % 2](client)
    await server.idle()
    await eventually(lambda: len(asyncio.all_tasks()) == baseline)

    assert server.agent.running == 0
    assert len(server.app.node.hub) == 12


async def test_usage_is_told_also_of_a_failure(manual: Served[ManualAgent]) -> None:
    client, turn = await ask(manual, "one ")
    turn.say(Usage(input_tokens=7, output_tokens=1, cached_tokens=5))
    turn.fail(AgentError())
    response = await client.done()

    usage = response["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 1, 8)
    assert usage["input_token_details"]["cached_tokens"] == 5


async def test_one_answer_for_all_that_watch(server: Served[ScriptedAgent]) -> None:
    """Each sees the others' messages, too."""
    clients = [await server.client()]
    clients += [await server.tab(clients[0]) for _ in range(7)]
    for number, client in enumerate(clients):
        await client.ask(f"from {number}")
        for each in clients:
            await each.done()

    expected = [("completed", answer_to(f"from {number}")) for number in range(8)]
    assert [client.answers() for client in clients] == 8 * [expected]
    assert server.agent.calls == 8
    ninth = await server.tab(clients[0])
    assert (await clients[0].error())["code"] == "too_many_connections"
    assert await clients[0].closed() == 1008, "it doesn't come back by itself"
    await clients[7].ask("from 8")
    await clients[7].done()
    while len(ninth.answers()) < 9:
        await ninth.done()
    assert ninth.answers() == clients[7].answers()
