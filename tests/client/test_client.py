"""The client against a real server: what is said is answered, once, whatever becomes of connections."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.client.conftest import AT_ONCE, Connect, Serve
from tests.fakes.proxy import Proxy
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually
from unbroken.client import (
    AnswerFailed,
    AnswerTooLong,
    ClientClosed,
    ClientError,
    Limits,
    MessageTooLarge,
    QueueFull,
    Restarted,
    SessionGone,
    Tool,
    Turn,
    Usage,
    connect,
)
from unbroken.server.agents.base import FunctionCallPiece
from unbroken.server.agents.scripted import ScriptedAgent, answer_to

SCRIPT = "/tokens 6"
ANSWER = answer_to(SCRIPT)
FRAMES = 18
"""Of a turn with that answer: more than there are."""


async def read(turn: Turn, text: str = "") -> tuple[str, int]:
    """Return what its reader, who has *text*, makes of a turn, and how often it had to begin anew."""
    restarts = 0
    async with asyncio.timeout(WAIT):
        async for piece in turn:
            if isinstance(piece, Restarted):
                text, restarts = piece.text, restarts + 1
            else:
                text += piece
    return text, restarts


async def until_said(turn: Turn, text: str) -> None:
    """Return when the answer has come so far."""
    await eventually(lambda: turn.text.endswith(text))


def users(server: Served[Any]) -> list[str]:
    """Return what was said in the server's only session."""
    (actor,) = server.app.node.hub
    return [item.text for item in actor.session.items() if getattr(item, "role", "") == "user"]


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


# Functions.


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


# Ends.


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
