"""The client against a real server: what is said is answered, once, whatever becomes of connections."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client.conftest import Connect, Serve
from tests.client.reading import ANSWER, FRAMES, SCRIPT, read, until_said, users
from tests.fakes.proxy import Proxy
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, eventually
from unbroken.client import (
    Restarted,
    Usage,
)
from unbroken.server.agents.scripted import ScriptedAgent, answer_to


@pytest.mark.client("own-python", "conversation")
async def test_a_turn_is_streamed_and_ends(manual: Served[ManualAgent], clients: Connect) -> None:
    client = await clients(manual.port)
    turn = client.send("hi")
    held = await manual.agent.turn()
    held.say("one ")
    first = await anext(turn)
    held.say("two")
    held.end()
    rest, _ = await read(turn)
    result = await turn.result()

    assert (first, rest) == ("one ", "two")
    assert (result.text, result.status, result.reason) == ("one two", "completed", None)
    assert [message.text for message in held.given.messages] == ["hi"]
    assert client.turns == ()
    assert turn.is_over


async def test_turns_are_answered_in_the_order_in_which_they_were_sent(
    server: Served[ScriptedAgent], clients: Connect
) -> None:
    client = await clients(server.port)
    turns = [client.send(f"turn {number}") for number in range(5)]
    results = [await turn.result() for turn in turns]

    assert [result.text for result in results] == [f"You said: turn {number}" for number in range(5)]
    assert users(server) == [f"turn {number}" for number in range(5)]
    assert results[0].usage == Usage(input_tokens=2, output_tokens=4)


async def test_what_each_turn_asks_for_reaches_the_agent(
    manual: Served[ManualAgent], clients: Connect
) -> None:
    client = await clients(manual.port, instructions="Be brief.")
    first = client.send("one", max_output_tokens=7, metadata={"mine": "x"})
    (one := await manual.agent.turn()).end()
    await first.result()
    second = client.send("two", instructions="Be long.")
    (two := await manual.agent.turn(1)).end()
    await second.result()

    assert (one.given.instructions, one.given.max_output_tokens) == ("Be brief.", 7)
    assert two.given.instructions == "Be long."


# Connections are lost.


@pytest.mark.client("own-python", "resume", "fault")
@pytest.mark.parametrize(
    ("frames", "code"), [*((frames, 1012) for frames in range(FRAMES)), (9, 1001), (9, 1011), (9, 1013)]
)
async def test_the_server_may_close_at_any_frame(
    server: Served[ScriptedAgent], clients: Connect, frames: int, code: int
) -> None:
    server.inspector.close_next(after=frames, code=code)
    client = await clients(server.port)
    text, restarts = await read(client.send(SCRIPT))

    assert (text, restarts) == (ANSWER, 0)
    assert server.agent.calls == 1


@pytest.mark.client("own-python", "network")
@pytest.mark.parametrize("length", range(0, 6_000, 211))
async def test_a_cut_anywhere_in_the_bytes_loses_and_doubles_nothing(
    server: Served[ScriptedAgent], clients: Connect, length: int
) -> None:
    """Also in the middle of a handshake, or of a frame."""
    async with CuttingProxy(server.port, length) as proxy:
        client = await clients(proxy.port)
        text, restarts = await read(client.send(SCRIPT))

        assert (text, restarts) == (ANSWER, 0)
        await client.close()
    assert server.agent.calls == 1


class CuttingProxy(Proxy):
    """Cuts its first connection after so many bytes to the client."""

    def __init__(self, target: int, length: int) -> None:
        super().__init__(target)
        self._left = length

    async def _deliver(self, pieces: Any, writer: Any, gate: Any) -> None:
        counted: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1)
        is_down = any(gate is link.down for link in self._links)
        if self.accepted > 1 or not is_down:
            await super()._deliver(pieces, writer, gate)
            return
        task = asyncio.create_task(super()._deliver(counted, writer, gate))
        try:
            while True:
                due, data = await pieces.get()
                allowed, self._left = data[: self._left], max(self._left - len(data), 0)
                await counted.put((due, allowed))
                if not data:
                    await task
                    return
                if not self._left:
                    await writer.drain()
                    self.cut()
                    return
        finally:
            task.cancel()
            await asyncio.wait((task,))


@pytest.mark.client("own-python", "outbox")
async def test_what_is_said_without_a_connection_is_sent_later_once_and_in_order(
    server: Served[ScriptedAgent], clients: Connect
) -> None:
    async with Proxy(server.port) as proxy:
        client = await clients(proxy.port)
        await client.send("first").result()
        proxy.refuse()
        proxy.cut()
        await eventually(lambda: not client.is_connected)
        turns = [client.send(f"turn {number}") for number in range(4)]
        await proxy.accept()
        texts = [(await turn.result()).text for turn in turns]

        assert texts == [f"You said: turn {number}" for number in range(4)]
        assert users(server) == ["first", *(f"turn {number}" for number in range(4))]
        assert server.agent.calls == 5
        await client.close()


async def test_nobody_has_to_wait_for_the_first_connection(
    server: Served[ScriptedAgent], clients: Connect
) -> None:
    async with Proxy(server.port) as proxy:
        proxy.refuse()
        client = await clients(proxy.port, open_timeout=0)
        turn = client.send("hi")
        await eventually(lambda: client.trouble is not None)
        await proxy.accept()

        assert (await turn.result()).text == "You said: hi"
        await client.close()


async def test_what_a_slow_reader_has_not_read_is_merged(
    server: Served[ScriptedAgent], clients: Connect
) -> None:
    client = await clients(server.port)
    turn = client.send("/tokens 2000")
    await turn.result()
    pieces = [piece async for piece in turn]

    assert pieces == [answer_to("/tokens 2000")]


async def test_a_reader_who_is_cancelled_misses_nothing(
    manual: Served[ManualAgent], clients: Connect
) -> None:
    client = await clients(manual.port)
    turn = client.send("hi")
    held = await manual.agent.turn()
    for _ in range(3):
        waiting = asyncio.create_task(turn.__anext__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait((waiting,))
    held.say("one ", "two")
    held.end()

    assert (await read(turn))[0] == "one two"
    assert (await turn.result()).text == "one two"


# Starting over.


async def test_who_has_to_start_over_is_told_the_text_as_it_stands(
    manual: Served[ManualAgent], clients: Connect
) -> None:
    """A place that no log has: the server shows the conversation as it stands."""
    client = await clients(manual.port)
    turn = client.send("hi")
    held = await manual.agent.turn()
    held.say("one ")
    assert await anext(turn) == "one "
    held.say("two ")
    await until_said(turn, "two ")
    state = {**client.state, "after": "nowhere"}
    await client.close()
    held.say("three ")
    await eventually(lambda: held.taken == 3)
    again = await clients(manual.port, state=state)
    (mine,) = again.turns
    restarted = await anext(mine)
    held.say("four")
    held.end()
    rest, restarts = await read(mine)

    assert isinstance(restarted, Restarted)
    assert (restarted.text, str(restarted)) == ("one two three ", "\none two three ")
    assert (rest, restarts) == ("four", 0)
    assert (await mine.result()).text == "one two three four"
    assert len(manual.agent.turns) == 1


@pytest.mark.parametrize("has_read", [False, True])
async def test_what_ended_before_the_log_begins_is_found_in_the_conversation(
    serve: Serve, clients: Connect, has_read: bool
) -> None:
    """While the client was away others went on for so long that its place is forgotten."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), log_retain_bytes=4096)
    async with Proxy(server.port) as proxy:
        client = await clients(proxy.port)
        await client.send("hello").result()
        turn = client.send("/tokens 5 20")
        if has_read:
            assert (taken := await anext(turn)) == "word1"
        else:
            await eventually(lambda: server.agent.calls == 2)
            taken = ""
        proxy.refuse()
        proxy.cut()
        await eventually(lambda: not client.is_connected)
        state = client.state
        other = server.stranger(token=state["token"])
        await other.resume(after=state["after"])
        await other.done()
        for number in range(20):
            await other.ask(f"/tokens {200 + number}")
            await other.done()
        third = server.stranger(token=state["token"])
        await third.resume(after=state["after"])
        assert third.resumed is False
        await proxy.accept()
        text, restarts = await read(turn, str(taken))
        result = await turn.result()

        assert text == result.text == answer_to("/tokens 5")
        assert restarts == has_read
        assert result.status == "completed"
        assert server.agent.calls == 22
        await client.close()


async def test_a_request_that_the_server_may_have_lost_is_asked_again(
    manual: Served[ManualAgent], clients: Connect
) -> None:
    """It was sent, and whoever starts over doesn't see what became of it: it runs once all the same."""
    client = await clients(manual.port)
    turn = client.send("hi")
    held = await manual.agent.turn()
    state = {**client.state, "after": "nowhere"}
    await client.close()
    turn.stop()
    held.say("one")
    held.end()
    await held.closed.wait()
    again = await clients(manual.port, state=state)
    (mine,) = again.turns

    assert (await mine.result()).text == "one"
    assert len(manual.agent.turns) == 1
    assert users(manual) == ["hi"]


async def test_of_an_answer_without_a_word_it_is_not_known_how_it_ended(
    manual: Served[ManualAgent], clients: Connect
) -> None:
    client = await clients(manual.port)
    client.send("hi")
    held = await manual.agent.turn()
    state = {**client.state, "after": "nowhere"}
    await client.close()
    held.end()
    await held.closed.wait()
    again = await clients(manual.port, state=state)
    (mine,) = again.turns
    result = await mine.result()

    assert (result.text, result.status) == ("", "unknown")
    assert len(manual.agent.turns) == 1
