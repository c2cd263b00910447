"""Clients that don't keep up, or have gone without a word. Letters as in ``test_resume``."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tests.fakes.proxy import Proxy
from tests.server.conftest import Serve
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.client import Client, Frame, whole
from tests.server.realtime.raw import RawClient
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.scripted import ScriptedAgent, answer_to
from unbroken.server.transports.protocol import WebSocketProtocol

HIGH_WATER = 64 * 1024
"""What asyncio buffers of a socket before it holds the writer up."""

SEND_BUFFER = 32 * 1024
"""What the kernel is to buffer of one whose writer is to be held up, roughly."""

BATCH = 20_000
"""More than what these tests have written at once."""

ROOMY = {"log_retain_bytes": 8 << 20, "log_max_bytes": 8 << 20, "max_output_bytes": 4 << 20}
LINE = 1000 * "x" + "\n"


def connection_of(server: Served[Any], raw: RawClient) -> Any:
    """Return uvicorn's end of a client's socket."""
    connections: list[Any] = list(server.server.server_state.connections)
    (found,) = [each for each in connections if each.client[1] == raw.address]
    return found


async def taken(turn: HeldTurn, count: int) -> None:
    """Return once so many pieces of the turn have been taken."""
    await eventually(lambda: turn.taken >= count)


async def held_up(manual: Served[ManualAgent], raw: RawClient) -> tuple[Any, int]:
    """Say lines until the writer of *raw* waits for its socket. Return that, and how many were said."""
    connection = connection_of(manual, raw)
    # The kernel would let its own buffer grow to megabytes, and each line up to there costs what lines do.
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    turn = await manual.agent.turn()
    lines = 0
    while connection.writable.is_set():
        turn.say(LINE)
        lines += 1
        await taken(turn, lines)
    return connection, lines


async def frames_of(raw: RawClient, *, end: str = "response.done") -> list[Frame]:
    """Read up to the event *end*."""
    frames: list[Frame] = []
    while not frames or frames[-1]["type"] != end:
        event = await raw.next()
        assert event is not None, raw.close_code
        if isinstance(event, dict):
            frames.append(event)
    return frames


@pytest.mark.slow
async def test_d1_a_client_that_stops_reading_costs_a_buffer_and_no_more(serve: Serve) -> None:
    """20,000 pieces are produced meanwhile. Whoever watches the same session has them all, at once (D5)."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), patience=0, **ROOMY)
    watcher = await server.client()
    async with RawClient(server.port, resume=watcher.token or "") as raw:
        await raw.response()
        await eventually(lambda: server.app.node.hub.connections == 2)
        connection = connection_of(server, raw)
        await watcher.ask("/tokens 20000")
        await watcher.done()

        assert not connection.writable.is_set()
        assert connection.transport.get_write_buffer_size() < HIGH_WATER + BATCH
        assert connection.queue.qsize() == 0
        assert watcher.answers() == [("completed", answer_to("/tokens 20000"))]

        frames = await frames_of(raw)
        raw.reset()
    deltas = [frame["delta"] for frame in frames if frame["type"] == "response.output_text.delta"]
    assert whole(frames) == watcher.answers()
    assert len(deltas) < 15_000, "when it reads on, it gets fewer, larger pieces"
    assert max(map(len, deltas)) > 1000


async def test_d1_one_that_falls_below_the_floor_is_reset(serve: Serve) -> None:
    """1013, and a snapshot when it comes back. Nothing is generated again."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), max_session_bytes=16 << 20)
    watcher = await server.client()
    await watcher.ask("hi")
    await watcher.done()
    async with RawClient(server.port, resume=watcher.token or "") as raw:
        await raw.response()
        await eventually(lambda: server.app.node.hub.connections == 2)
        connection = connection_of(server, raw)
        while connection.writable.is_set():
            await watcher.ask("/say " + 50_000 * "x")
            await watcher.done()
        for _ in range(20):
            await watcher.ask("/say " + 50_000 * "y")
            await watcher.done()
        seen = [event for event in await raw.rest() if isinstance(event, dict)]
        assert raw.close_code == 1013
    calls = server.agent.calls
    late = server.stranger(token=watcher.token)
    late.last_id = seen[-1]["event_id"]
    await late.resume()
    await late.sync()

    assert late.resumed is False
    items = [frame["item"]["id"] for frame in watcher.of("conversation.item.done")]
    assert [frame["item"]["id"] for frame in late.of("conversation.item.done")] == items
    assert late.of("response.created") == []
    assert server.agent.calls == calls == len(watcher.answers())


async def test_c10_the_reader_goes_on_while_the_writer_is_held_up(serve: Serve) -> None:
    """A ping is answered and a cancel taken, although what was sent before hasn't been read."""
    manual: Served[ManualAgent] = await serve(ManualAgent(), patience=0, **ROOMY)
    async with RawClient(manual.port) as raw:
        await raw.response()
        await raw.send({"type": "response.create"})
        connection, lines = await held_up(manual, raw)
        manual.agent.turns[0].say(LINE)
        lines += 1
        await taken(manual.agent.turns[0], lines)
        await raw.ping(b"alive?")
        await raw.send({"type": "response.cancel"})
        async with asyncio.timeout(10):
            await manual.agent.turns[0].closed.wait()
        assert not connection.writable.is_set()
        events: list[Frame] = []
        while not events or events[-1]["type"] != "response.done":
            event = await raw.next()
            assert event is not None
            events.append(event if isinstance(event, dict) else {"type": "pong", "payload": event})
        raw.reset()

    kinds = [event["type"] for event in events]
    assert kinds.count("pong") == 1
    assert "response.output_text.delta" in kinds[kinds.index("pong") :], "it didn't wait for the writer"
    assert whole([event for event in events if event["type"] != "pong"]) == [("cancelled", lines * LINE)]


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_c11_a_client_that_goes_while_it_is_sent_to(serve: Serve, how: str) -> None:
    await goes_while_it_is_sent_to(serve, how)


@pytest.mark.slow
async def test_c11_a_client_that_goes_half_while_it_is_sent_to(serve: Serve) -> None:
    """It closes its half of the connection, and reads no more of ours."""
    await goes_while_it_is_sent_to(serve, "half close")


async def goes_while_it_is_sent_to(serve: Serve, how: str) -> None:
    """The turn goes on; nothing is logged as an error, and nothing is left of the connection."""
    manual: Served[ManualAgent] = await serve(ManualAgent(), **ROOMY)
    watcher = await manual.client()
    await watcher.ask("go")
    async with RawClient(manual.port, resume=watcher.token or "") as raw:
        await raw.response()
        await eventually(lambda: manual.app.node.hub.connections == 2)
        _, lines = await held_up(manual, raw)
        match how:
            case "reset":
                raw.reset()
            case "close":
                await raw.close()
            case _:
                raw.end()
        await eventually(lambda: manual.app.node.hub.connections == 1)
        turn = manual.agent.turns[0]
        turn.say("end")
        turn.end()
        await watcher.done()

    assert watcher.answers() == [("completed", lines * LINE + "end")]
    assert not turn.was_stopped


@pytest.mark.parametrize("number", range(8))
async def test_c11_a_close_crosses_what_is_being_sent(serve: Serve, number: int) -> None:
    """The client closes after that many frames, in the midst of a burst."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), patience=0)
    client = await server.client()
    await client.ask("/tokens 2000")
    await client.see(5 + number * 31)
    await client.close()
    await server.idle()
    await client.resume()
    await client.done()

    assert client.answers() == [("completed", answer_to("/tokens 2000"))]


@pytest.mark.slow
@pytest.mark.parametrize("is_talking", [False, True])
async def test_d2_a_peer_that_is_gone_without_a_word_is_noticed(serve: Serve, is_talking: bool) -> None:
    """No FIN, no pong: the connection is cut, also in mid-answer. One that answers stays."""
    manual: Served[ManualAgent] = await serve(ManualAgent(), ping_interval=0.2, ping_timeout=0.4)
    async with Proxy(manual.port) as proxy:
        alive = await manual.client()
        await alive.ask("go")
        turn = await manual.agent.turn()
        gone = manual.stranger(port=proxy.port, token=alive.token)
        await gone.resume()
        proxy.hold()
        number = 0
        while manual.app.node.hub.connections == 2:
            if is_talking:
                turn.say(f"{number} ")
                number += 1
                await alive.said(f"{number - 1} ")
            else:
                await alive.sync()
        turn.say("end")
        turn.end()
        await alive.done()
        proxy.release()
        assert await gone.closed() in (1006, 1011)
        await gone.drop()
        await gone.resume()
        await gone.done()

    assert gone.resumed is True
    assert gone.answers() == alive.answers()


async def test_d2_what_is_sent_to_a_peer_just_found_dead_is_no_mistake(server: Served[ScriptedAgent]) -> None:
    """Between the time-out and the end of the socket, the writer is told that the client has gone."""
    client = await server.client()
    (connection,) = server.server.server_state.connections
    assert isinstance(connection, WebSocketProtocol)
    connection.keepalive_timeout()
    with pytest.raises(OSError):
        await connection.send({"type": "websocket.send", "text": "{}"})

    assert await client.closed() == 1011


async def test_d3_bytes_on_the_wire_grow_with_the_answer_not_its_square(
    server: Served[ScriptedAgent],
) -> None:
    for count in (100, 1000):  # a square would be 3 MB of the latter
        async with RawClient(server.port, receive_buffer=1 << 20) as raw:
            await raw.response()
            client = await ask_raw(raw, f"/tokens {count}")
            assert whole(client) == [("completed", answer_to(f"/tokens {count}"))]
            assert raw.received < count * 350, "whether or not words come together"


async def ask_raw(raw: RawClient, text: str) -> list[Frame]:
    part = {"type": "input_text", "text": text}
    item = {"type": "message", "role": "user", "content": [part]}
    await raw.send({"type": "conversation.item.create", "item": item}, {"type": "response.create"})
    return await frames_of(raw)


async def test_d6_a_turn_that_nobody_watches_is_not_held_up(server: Served[ScriptedAgent]) -> None:
    """20,000 pieces and no connection: it ends all the same, and can be read afterwards."""
    client = await server.client()
    await client.ask("/tokens 20000")
    await server.asked(1)
    await client.drop()
    await server.idle()
    late = server.stranger(token=client.token)
    await late.resume()
    await late.until("conversation.item.done")
    answer: Frame = await late.until("conversation.item.done")

    assert answer["item"]["status"] == "completed"
    assert answer["item"]["content"][0]["text"] == answer_to("/tokens 20000")
    assert server.agent.calls == 1


async def say_all(manual: Served[ManualAgent], pieces: list[str]) -> Client:
    client = await manual.client()
    await client.ask("go")
    turn = await manual.agent.turn()
    for number, piece in enumerate(pieces, 1):
        turn.say(piece)
        await taken(turn, number)
    turn.end()
    await client.done()
    return client


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a", "\ud83d", "\ude00", "b"], "a😀b"),
        (["\ud83d", "x"], "\ufffdx"),
        (["x", "\ude00"], "x\ufffd"),
        (["x\ud83d"], "x\ufffd"),
        (["👩", "\u200d", "🚀"], "👩\u200d🚀"),
        (["e", "\u0301", "🇩", "🇪"], "e\u0301🇩🇪"),
        (["\u2028", "\x00", '"', "\\", "\x7f", "\ufeff"], '\u2028\x00"\\\x7f\ufeff'),
    ],
    ids=["halves", "first half", "second half", "last half", "joined", "combined", "escaped"],
)
async def test_d11_characters_that_are_cut_between_pieces(
    manual: Served[ManualAgent], pieces: list[str], text: str
) -> None:
    """Halves of an emoji are joined, alone they are replaced; the rest passes through as it is."""
    client = await say_all(manual, pieces)
    late = await manual.tab(client)
    await late.done()

    assert client.answers() == late.answers() == [("completed", text)]
