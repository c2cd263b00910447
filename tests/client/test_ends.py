"""How the client ends: closed, refused or full, or to go on in another process."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.client.conftest import AT_ONCE, Connect, Serve
from tests.client.reading import read, until_said, users
from tests.fakes.proxy import Proxy
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.serving import Served, eventually
from unbroken.client import (
    AnswerFailed,
    AnswerTooLong,
    ClientClosed,
    ClientError,
    Limits,
    MessageTooLarge,
    QueueFull,
    SessionGone,
    connect,
)
from unbroken.server.agents.scripted import ScriptedAgent


@pytest.mark.client("own-python", "failure")
async def test_an_answer_that_fails_raises_with_what_was_said(
    server: Served[ScriptedAgent], clients: Connect
) -> None:
    client = await clients(server.port)
    turn = client.send("/fail upstream_rate_limited after 2")
    said = await anext(turn)
    with pytest.raises(AnswerFailed, match="upstream_rate_limited") as failed:
        await turn.result()
    with pytest.raises(AnswerFailed):
        said = f"{said}{''.join([str(piece) async for piece in turn])}"

    assert failed.value.text == turn.text == "word1 word2"
    assert turn.text.startswith(str(said))
    assert (await client.send("/length 2").result()).reason == "max_output_tokens"
    assert (await client.send("/filter after 2").result()).reason == "content_filter"


async def test_a_server_that_has_lost_the_session_says_so_and_all_ends(
    serve: Serve, clients: Connect
) -> None:
    """With its store in memory, it is another server after a restart."""
    first: Served[ManualAgent] = await serve(ManualAgent())
    second: Served[ScriptedAgent] = await serve(ScriptedAgent())
    async with Proxy(first.port) as proxy:
        client = await clients(proxy.port)
        turn = client.send("hi")
        held = await first.agent.turn()
        proxy.target = second.port
        proxy.cut()
        with pytest.raises(SessionGone):
            await turn.result()
        with pytest.raises(SessionGone):
            client.send("again")
        held.end()
        assert isinstance(client.trouble, SessionGone)
        await client.close()


async def test_a_session_in_which_nothing_was_said_is_begun_anew(serve: Serve, clients: Connect) -> None:
    first: Served[ScriptedAgent] = await serve(ScriptedAgent())
    second: Served[ScriptedAgent] = await serve(ScriptedAgent())
    async with Proxy(first.port) as proxy:
        client = await clients(proxy.port)
        before = client.session_id
        proxy.target = second.port
        proxy.cut()
        result = await client.send("hi").result()

        assert result.text == "You said: hi"
        assert client.session_id != before
        await client.close()


async def test_nothing_outlives_a_client(manual: Served[ManualAgent], clients: Connect) -> None:
    before = asyncio.all_tasks()
    async with connect(f"http://127.0.0.1:{manual.port}", key="alice", timing=AT_ONCE) as client:
        turn, waiting = client.send("hi"), client.send("later")
        held: HeldTurn = await manual.agent.turn()
    for each in (turn, waiting):
        with pytest.raises(ClientClosed):
            await each.result()
    with pytest.raises(ClientClosed):
        client.send("more")
    await client.close()
    mine = {task for task in asyncio.all_tasks() - before if "unbroken/client" in str(task.get_coro())}

    assert {task for task in mine if not task.done()} == set()
    assert not held.closed.is_set(), "the server goes on with it"
    held.end()


async def test_a_client_that_is_cancelled_while_it_connects_leaves_nothing(
    manual: Served[ManualAgent],
) -> None:
    async with Proxy(manual.port) as proxy:
        proxy.hold()
        before = asyncio.all_tasks()

        async def come_in() -> None:
            async with connect(f"http://127.0.0.1:{proxy.port}", key="alice"):
                raise AssertionError("it can't")

        task = asyncio.create_task(come_in())
        await eventually(lambda: proxy.accepted > 0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        left = [each for each in asyncio.all_tasks() - before if "client" in repr(each.get_coro())]
        assert left == []


async def test_bounds(manual: Served[ManualAgent], clients: Connect) -> None:
    client = await clients(manual.port, limits=Limits(turns=2, message_bytes=500, answer_bytes=10))
    with pytest.raises(MessageTooLarge):
        client.send("x" * 500)
    turn = client.send("hi")
    waiting = client.send("later")
    with pytest.raises(QueueFull):
        client.send("one too many")
    held = await manual.agent.turn()
    held.say("x" * 11)
    with pytest.raises(AnswerTooLong) as long:
        await turn.result()
    await held.closed.wait()
    (await manual.agent.turn(1)).end()

    assert held.was_stopped, "what nobody takes isn't answered any further"
    assert long.value.text == "x" * 11
    assert (await waiting.result()).status == "completed"


async def test_a_frame_that_the_server_finds_too_large_ends_its_turn_alone(
    serve: Serve, clients: Connect
) -> None:
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), max_frame_bytes=2048)
    client = await clients(server.port)
    turn = client.send("x" * 4000)
    with pytest.raises(MessageTooLarge):
        await turn.result()

    assert (await client.send("hi").result()).text == "You said: hi"


async def test_whatever_goes_wrong_is_of_one_kind(server: Served[ScriptedAgent], clients: Connect) -> None:
    client = await clients(server.port)
    with pytest.raises(ClientError):
        await client.send("/crash after 1").result()


# Going on in another process.


@pytest.mark.parametrize("is_said_meanwhile", [False, True])
async def test_another_client_goes_on_from_the_state_of_one(
    manual: Served[ManualAgent], clients: Connect, is_said_meanwhile: bool
) -> None:
    client = await clients(manual.port)
    turn, waiting = client.send("hi"), client.send("later")
    held = await manual.agent.turn()
    held.say("one ")
    assert await anext(turn) == "one "
    held.say("two ")
    await until_said(turn, "two ")
    state = json.loads(json.dumps(client.state))
    await client.close()
    if is_said_meanwhile:
        held.say("three")
        held.end()
    again = await clients(manual.port, state=state)
    mine, later = again.turns
    if not is_said_meanwhile:
        held.say("three")
        held.end()
    rest, restarts = await read(mine)
    (await manual.agent.turn(1)).end()

    assert (rest, restarts) == ("two three", 0)
    assert (await mine.result()).text == "one two three"
    assert (await later.result()).status == "completed"
    assert (mine.id, later.id) == (turn.id, waiting.id)
    assert users(manual) == ["hi", "later"]


async def test_who_is_sent_away_for_being_idle_comes_back_with_the_next_message(
    serve: Serve, clients: Connect
) -> None:
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), connection_idle_timeout=1)
    client = await clients(server.port)
    await client.send("one").result()
    await eventually(lambda: not client.is_connected)
    await server.no_connections()
    result = await client.send("two").result()

    assert result.text == "You said: two"
    assert users(server) == ["one", "two"]


async def test_a_state_that_is_older_than_what_was_sent_runs_nothing_twice(
    server: Served[ScriptedAgent], clients: Connect
) -> None:
    """Made before anything was sent; whoever made it has been answered since."""
    client = await clients(server.port)
    first, second = client.send("one"), client.send("two")
    state = json.loads(json.dumps(client.state))
    await first.result()
    await second.result()
    await client.close()
    again = await clients(server.port, state=state)
    texts = [await read(turn) for turn in again.turns]

    assert texts == [("You said: one", 0), ("You said: two", 0)]
    assert users(server) == ["one", "two"]
    assert server.agent.calls == 2
