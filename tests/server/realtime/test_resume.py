"""Whatever becomes of a connection, the client gets the whole answer once, and the agent is asked once.

The letters are those of the failure modes in the project's list, each seen in other systems.
"""

from __future__ import annotations

import asyncio

import pytest
from websockets.exceptions import ConnectionClosedError

from tests.fakes.proxy import Proxy
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.official import speaking
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent, answer_to

SCRIPT = "/tokens 4"
ANSWER = [("completed", answer_to(SCRIPT))]
FRAMES = [
    "conversation.item.added",
    "conversation.item.done",
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    *4 * ["response.output_text.delta"],
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013])
@pytest.mark.client("openai-python", "resume", "fault")
async def test_the_official_client_resumes_in_mid_answer(server: Served[ScriptedAgent], code: int) -> None:
    server.inspector.close_next(after=9, code=code)
    async with speaking(await server.openai()) as official:
        await official.ask(SCRIPT)
        await official.done()

    assert official.reconnections == [code]
    assert official.types() == FRAMES
    assert official.answers() == ANSWER
    assert server.agent.calls == 1


@pytest.mark.client("openai-python", "network")
async def test_the_official_client_resumes_through_a_broken_network(manual: Served[ManualAgent]) -> None:
    async with Proxy(manual.port) as proxy, speaking(await manual.openai(port=proxy.port)) as official:
        await official.ask("hi")
        turn = await manual.agent.turn()
        turn.say("one ", "two ")
        await official.until("response.output_text.delta")
        proxy.cut()
        turn.say("three")
        turn.end()
        await official.done()

        assert official.reconnections == [1006]
        assert official.answers() == [("completed", "one two three")]
    assert len(manual.agent.turns) == 1


@pytest.mark.client("openai-python", "stop")
async def test_b8_the_official_client_stops_at_1008(server: Served[ScriptedAgent]) -> None:
    server.inspector.close_next(after=9, code=1008)
    async with speaking(await server.openai()) as official:
        await official.ask(SCRIPT)
        with pytest.raises(ConnectionClosedError) as closed:
            await official.done()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert official.reconnections == []
    await server.idle()


@pytest.mark.parametrize("count", range(1, len(FRAMES) + 2))
async def test_a_cut_at_any_frame_loses_and_doubles_nothing(
    server: Served[ScriptedAgent], count: int
) -> None:
    """The client has seen *count* frames; what else was on the wire is lost."""
    client = await server.client()
    await client.ask(SCRIPT)
    await client.see(count - 1)
    await server.asked(1)
    await client.drop()

    await client.resume()
    while len(client.types()) < len(FRAMES):
        await client.next()

    assert client.resumed is True
    assert client.types() == FRAMES
    assert client.answers() == ANSWER
    assert server.agent.calls == 1


@pytest.mark.parametrize("count", range(3, len(FRAMES)))
async def test_the_server_may_close_at_any_frame(server: Served[ScriptedAgent], count: int) -> None:
    server.inspector.close_next(after=count + 1, code=1011)
    client = await server.client()
    await client.ask(SCRIPT)
    assert await client.closed() == 1011

    await client.resume()
    while len(client.types()) < len(FRAMES):
        await client.next()

    assert client.types() == FRAMES
    assert client.answers() == ANSWER


async def test_a_connection_for_each_frame(server: Served[ScriptedAgent]) -> None:
    """One frame a connection is enough to get on."""
    client = await server.client()
    await client.ask(SCRIPT)
    await client.see(1)
    while client.types()[-1] != "response.done":
        await client.drop()
        await client.resume()
        await client.see(1)

    assert client.connections == len(FRAMES)
    assert client.types() == FRAMES
    assert client.answers() == ANSWER
    assert server.agent.calls == 1


async def test_a_cut_among_merged_deltas(server: Served[ScriptedAgent]) -> None:
    """A client that catches up gets larger deltas; it resumes from behind any of them."""
    first = await server.client()
    await first.ask("/tokens 3000")
    await first.done()
    late = server.stranger(token=first.token)
    while not late.types() or late.types()[-1] != "response.done":
        await late.resume()
        await late.see(1)
        await late.drop()

    assert late.answers() == [("completed", answer_to("/tokens 3000"))]
    assert late.connections < 100


async def test_a1_a_new_turn_reaches_a_tab_that_stayed(server: Served[ScriptedAgent]) -> None:
    """Numbers go on: a consumer that drops what is not above its last number misses nothing."""
    first = await server.client()
    second = await server.tab(first)
    for number in range(1, 4):
        await first.ask(f"turn {number}")
        await first.done()
        await second.done()

    assert second.answers() == first.answers()
    assert second.answers() == [("completed", f"You said: turn {number}") for number in (1, 2, 3)]
    assert second.types() == first.types()


async def test_a2_what_is_said_while_a_tab_attaches(manual: Served[ManualAgent]) -> None:
    """Pieces go in at every await of the handshake; each tab has all of them."""
    first = await manual.client()
    await first.ask("go")
    turn = await manual.agent.turn()
    is_over = False

    async def speak() -> None:
        number = 0
        while not is_over:
            turn.say(f"{number} ")
            number += 1
            await asyncio.sleep(0)
        turn.end()

    speaking = asyncio.create_task(speak())
    tabs = [await manual.tab(first) for _ in range(5)]
    is_over = True
    await speaking
    for tab in [first, *tabs]:
        await tab.done()

    answers = first.answers()
    words = answers[0][1].split()
    assert words == [str(number) for number in range(len(words))]
    assert [tab.answers() for tab in tabs] == 5 * [answers]


async def test_a3_the_first_token_is_said_before_anybody_listens(manual: Served[ManualAgent]) -> None:
    client = await manual.client()
    await client.ask("go")
    turn = await manual.agent.turn()
    await client.drop()
    await manual.no_connections()
    turn.say("first ")

    await client.resume()
    await client.said("first ")
    turn.say("second")
    turn.end()
    await client.done()

    assert client.answers() == [("completed", "first second")]


async def test_a4_no_gap_between_backlog_and_live(manual: Served[ManualAgent]) -> None:
    """More is said while the backlog is being sent, piece by piece with the frames."""
    first = await manual.client()
    await first.ask("go")
    turn = await manual.agent.turn()
    turn.say(*(f"{number} " for number in range(600)))
    await first.said("599 ")

    second = await manual.tab(first)
    for number in range(600, 700):
        turn.say(f"{number} ")
        await second.next()
    turn.end()
    await second.done()

    assert second.text().split() == [str(number) for number in range(700)]
    second.answers()


async def test_a5_replay_does_not_overlap_live(manual: Served[ManualAgent]) -> None:
    """Five tabs come and go while the answer is being said. None sees a piece twice."""
    first = await manual.client()
    await first.ask("go")
    turn = await manual.agent.turn()
    tabs = [await manual.tab(first) for _ in range(5)]
    for number in range(100):
        turn.say(f"{number} ")
        await first.said(f"{number} ")
        tab = tabs[number % 5]
        await tab.next()
        if number % 7 == 0:
            await tab.drop()
            await tab.resume()
    turn.end()
    for tab in [first, *tabs]:
        await tab.done()

    assert {tuple(tab.answers()) for tab in [first, *tabs]} == {(("completed", first.text()),)}
    assert first.text().split() == [str(number) for number in range(100)]


async def test_a6_two_resumes_race(manual: Served[ManualAgent]) -> None:
    """The same token and cursor, at the same moment: both go on, and nothing is begun again."""
    client = await manual.client()
    await client.ask("go")
    turn = await manual.agent.turn()
    turn.say("one ")
    await client.said("one ")
    place = client.last_id
    await client.drop()
    racers = [manual.stranger(token=client.token) for _ in range(4)]
    for racer in racers:
        racer.last_id = place
    await asyncio.gather(*(racer.resume() for racer in racers))
    turn.say("two")
    turn.end()
    for racer in racers:
        await racer.done()

    assert [racer.text() for racer in racers] == 4 * ["two"]
    assert [racer.resumed for racer in racers] == 4 * [True]
    assert len(manual.agent.turns) == 1


async def test_a7_a_client_speaks_before_it_has_heard_anything(server: Served[ScriptedAgent]) -> None:
    """What it sends with its first breath on a resumed connection is taken after the replay has its place."""
    client = await server.client()
    await client.ask("one")
    await client.see(3)
    place, token = client.last_id, client.token
    assert place is not None
    assert token is not None
    await client.open(resume=token, after=place)
    await client.send({"type": "session.update", "session": {"type": "realtime", "instructions": "brief"}})
    await client.until("session.updated")
    await client.sync()

    assert client.of("session.updated")[0]["session"]["instructions"] == "brief"
    assert client.answers() == [("completed", "You said: one")]


async def test_a8_a_second_resume_without_news_brings_nothing(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.ask(SCRIPT)
    await client.done()
    for _ in range(3):
        await client.drop()
        await client.resume()
        assert client.resumed is True
        await client.sync()
    await client.ask("next")
    await client.done()

    expected = [*FRAMES, *3 * ["error"], *FRAMES[:6], *3 * ["response.output_text.delta"], *FRAMES[-5:]]
    assert client.types() == expected
    assert client.answers() == [*ANSWER, ("completed", "You said: next")]


async def test_a9_the_old_socket_is_still_open(manual: Served[ManualAgent]) -> None:
    """The network holds everything back: the server can't know that the client has gone."""
    async with Proxy(manual.port) as proxy:
        client = await manual.client(port=proxy.port)
        await client.ask("go")
        turn = await manual.agent.turn()
        turn.say("one ")
        await client.said("one ")
        proxy.hold()
        turn.say("two ")
        successor = manual.stranger(token=client.token)
        successor.last_id = client.last_id
        await successor.resume()
        await successor.said("two ")
        turn.say("three")
        turn.end()
        await successor.done()
        proxy.release()
        await client.done()

    assert successor.resumed is True
    assert successor.text() == "two three"
    assert client.answers() == [("completed", "one two three")]
    assert len(manual.agent.turns) == 1
