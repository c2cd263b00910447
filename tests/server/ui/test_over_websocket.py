"""``WS /v1/ui/ws``, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually
from tests.server.ui.client import Chunk, said, types, user
from tests.server.ui.conftest import Open
from unbroken.server.agents.scripted import ScriptedAgent


class Socket:
    """A connection, and what came by it of each request: its numbers have to be without a gap."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.frames: list[dict[str, Any]] = []
        self.chunks: dict[str, list[Chunk]] = {}

    async def send(self, kind: str, request: str, **fields: Any) -> None:
        await self.ws.send(orjson.dumps({"type": kind, "requestId": request, **fields}).decode())

    async def ask(self, request: str, *messages: Any, chat: str = "chat-1", **fields: Any) -> None:
        await self.send("send", request, id=chat, trigger="submit-message", messages=messages, **fields)

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT):
            frame: dict[str, Any] = orjson.loads(await self.ws.recv())
        self.frames.append(frame)
        if frame["type"] == "chunk":
            chunks = self.chunks.setdefault(frame["requestId"], [])
            assert frame["sequence"] == len(chunks)
            chunks.append(frame["chunk"])
        return frame

    async def until(self, *kinds: str, request: str | None = None) -> dict[str, Any]:
        while True:
            frame = await self.next()
            if frame["type"] in kinds and request in (None, frame["requestId"]):
                return frame

    async def shows(self, request: str, text: str) -> None:
        while text not in said(self.chunks.get(request, [])):
            await self.next()


Dial = Callable[..., Any]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Opens connections; all are closed at the test's end."""
    opened: list[ClientConnection] = []

    async def dial(server: Served[Any], key: str | None = "alice", **query: str) -> Socket:
        named = "&".join(f"{name}={value}" for name, value in query.items())
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        url = f"ws://127.0.0.1:{server.port}/v1/ui/ws?{named}"
        opened.append(await connect(url, additional_headers=headers, compression=None))
        return Socket(opened[-1])

    yield dial
    for each in opened:
        await each.close()


async def test_an_answer_is_streamed(server: Served[ScriptedAgent], dial: Dial) -> None:
    socket = await dial(server)
    await socket.ask("r1", user("/tokens 2"))
    await socket.until("end")

    assert [frame["type"] for frame in socket.frames] == [
        "start",
        *["chunk"] * len(socket.chunks["r1"]),
        "end",
    ]
    assert types(socket.chunks["r1"]) == [
        *("start", "start-step", "text-start", "text-delta", "text-delta", "text-end"),
        *("finish-step", "finish"),
    ]


async def test_several_are_answered_at_once(manual: Served[ManualAgent], dial: Dial) -> None:
    socket = await dial(manual)
    for number in range(3):
        await socket.ask(f"r{number}", user("hi"), chat=f"chat-{number}")
        (await manual.agent.turn(number)).say(f"answer {number}")
    for number in (2, 0, 1):
        await socket.shows(f"r{number}", f"answer {number}")
        manual.agent.turns[number].end()
        await socket.until("end", request=f"r{number}")


async def test_what_is_aborted_stops(manual: Served[ManualAgent], dial: Dial) -> None:
    socket = await dial(manual)
    await socket.ask("r1", user("hi"))
    turn = await manual.agent.turn()
    turn.say("half")
    await socket.shows("r1", "half")
    await socket.send("abort", "r1")
    await socket.send("abort", "r1")
    await socket.until("end")

    assert turn.was_stopped
    assert types(socket.chunks["r1"])[-1] == "abort"
    await socket.send("abort", "r1")
    await socket.send("resume", "r2", id="chat-1")
    assert await socket.next() == {"type": "no-active", "requestId": "r2"}


async def test_what_is_aborted_before_it_began_stops(manual: Served[ManualAgent], dial: Dial) -> None:
    socket = await dial(manual)
    await socket.ask("r1", user("hi"))
    await socket.send("abort", "r1")
    await socket.until("end")

    assert types(socket.chunks["r1"])[-1] == "abort"
    assert manual.app.node.hub.running == 0


async def test_what_waits_is_aborted_alone(serve: Serve, dial: Dial) -> None:
    manual: Served[ManualAgent] = await serve(ManualAgent(), concurrency="queue", connections_per_session=2)
    socket = await dial(manual)
    await socket.ask("r1", user("hi"))
    turn = await manual.agent.turn()
    turn.say("half ")
    await socket.shows("r1", "half")
    await socket.ask("r2", user("and", "m2"))
    await socket.until("start", request="r2")
    await socket.send("abort", "r2")
    await socket.until("end", request="r2")
    turn.say("whole")
    turn.end()
    await socket.until("end", request="r1")

    assert types(socket.chunks["r2"])[-1] == "abort"
    assert said(socket.chunks["r1"]) == "half whole"
    assert not turn.was_stopped


async def test_a_lost_connection_stops_nothing_and_another_is_told_all(
    manual: Served[ManualAgent], dial: Dial
) -> None:
    first = await dial(manual)
    await first.ask("r1", user("hi"))
    turn = await manual.agent.turn()
    turn.say("half ")
    await first.shows("r1", "half")
    first.ws.transport.abort()
    await manual.no_connections()
    second = await dial(manual)
    await second.send("resume", "r1", id="chat-1")
    await second.shows("r1", "half")
    turn.say("whole")
    turn.end()
    await second.until("end")

    assert second.frames[0] == {"type": "start", "requestId": "r1"}
    assert said(second.chunks["r1"]) == "half whole"
    assert second.chunks["r1"][0] == first.chunks["r1"][0]


async def test_who_comes_back_twice_at_once_stops_nothing(manual: Served[ManualAgent], dial: Dial) -> None:
    """As pages do that are built up twice: the first of two is given up."""
    socket = await dial(manual)
    await socket.ask("r1", user("hi"))
    turn = await manual.agent.turn()
    await socket.send("resume", "r2", id="chat-1")
    await socket.send("abort", "r2")
    await socket.send("resume", "r3", id="chat-1")
    await socket.until("start", request="r3")
    turn.say("whole")
    turn.end()
    await socket.until("end", request="r3")

    assert said(socket.chunks["r3"]) == "whole"


async def test_who_stops_what_they_came_back_to_stops_it(manual: Served[ManualAgent], dial: Dial) -> None:
    first, second = await dial(manual), await dial(manual)
    await first.ask("r1", user("hi"))
    turn = await manual.agent.turn()
    await second.send("resume", "r1", id="chat-1")
    await second.until("start")
    await second.send("abort", "r1")
    await first.until("end")

    assert turn.was_stopped


async def test_what_is_begun_here_is_followed_over_http(
    manual: Served[ManualAgent], dial: Dial, open_page: Open
) -> None:
    socket = await dial(manual)
    await socket.ask("r1", user("hi"))
    turn = await manual.agent.turn()
    turn.say("half ")
    page = open_page(manual)
    async with page.resuming() as chunks:
        turn.say("whole")
        turn.end()
        assert said([chunk async for chunk in chunks]) == "half whole"


async def test_what_cant_be_done_is_told_and_the_connection_goes_on(
    server: Served[ScriptedAgent], dial: Dial
) -> None:
    socket = await dial(server)
    cases: list[tuple[str | bytes, str, str]] = [
        ("nonsense", "", "invalid_json"),
        (b"{}", "", "binary_frame"),
        ('{"type": "send"}', "", "invalid_event"),
        ('{"requestId": "r1"}', "r1", "invalid_event"),
        ('{"requestId": "r1", "type": "other"}', "r1", "unknown_event_type"),
        ('{"requestId": "r1", "type": "send"}', "r1", "invalid_request"),
        ('{"requestId": "r1", "type": "send", "id": "c", "messages": []}', "r1", "invalid_request"),
        ('{"requestId": "r1", "type": "resume", "id": ""}', "r1", "invalid_event"),
        (
            '{"requestId": "r1", "type": "send", "id": "c", "messages": [' + "[" * 99 + "]}",
            "r1",
            "invalid_json",
        ),
    ]
    for data, request, code in cases:
        await socket.ws.send(data)
        frame = await socket.next()
        assert frame["type"] == "error"
        assert (frame["unbroken"]["code"], frame["requestId"] or request) == (code, request), frame
    await socket.ask("r1", user("hi"), body={"unbroken": {"instructions": "Be brief."}})
    await socket.until("end")


async def test_a_request_id_that_is_in_use_is_refused(manual: Served[ManualAgent], dial: Dial) -> None:
    socket = await dial(manual)
    await socket.ask("r1", user("hi"))
    await socket.ask("r1", user("hi"), chat="chat-2")

    assert (await socket.until("error"))["unbroken"]["code"] == "invalid_request"
    (await manual.agent.turn()).end()
    await socket.until("end")
    del socket.chunks["r1"]
    await socket.ask("r1", user("hi"), chat="chat-2")
    (await manual.agent.turn(1)).end()
    await socket.until("end")


async def test_no_more_is_answered_at_once_than_may_be(serve: Serve, dial: Dial) -> None:
    manual = await serve(ManualAgent())
    socket = await dial(manual)
    for number in range(33):
        await socket.ask(f"r{number}", user("hi"), chat=f"chat-{number}")
    refused = await socket.until("error")

    assert refused["unbroken"]["code"] == "websocket_stream_limit_reached"
    await eventually(lambda: len(manual.agent.turns) == 32)
    for turn in manual.agent.turns:
        turn.end()
    for _ in manual.agent.turns:
        await socket.until("end")


async def test_a_ticket_in_the_address_lets_in_once(server: Served[ScriptedAgent], dial: Dial) -> None:
    openai: Any = await server.openai()
    ticket = (await openai.post("/realtime/tickets", body={}, cast_to=object))["value"]
    socket = await dial(server, None, ticket=ticket)
    await socket.ask("r1", user("hi"))
    await socket.until("end")

    with pytest.raises(InvalidStatus) as caught:
        await dial(server, None, ticket=ticket)
    assert caught.value.response.status_code == 401


async def test_a_page_of_another_origin_is_told_in_a_frame(server: Served[ScriptedAgent]) -> None:
    url = f"ws://127.0.0.1:{server.port}/v1/ui/ws"
    async with connect(url, origin="https://elsewhere.example", compression=None) as ws:  # type: ignore[arg-type]
        error = orjson.loads(await ws.recv())
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()

    assert (error["type"], error["unbroken"]["code"]) == ("error", "origin_not_allowed")
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1008


async def test_a_node_that_drains_lets_answers_end(manual: Served[ManualAgent], dial: Dial) -> None:
    socket = await dial(manual)
    await socket.ask("r1", user("hi"))
    turn = await manual.agent.turn()
    manual.app.begin_drain()
    turn.say("whole")
    turn.end()
    await socket.until("end")
    with pytest.raises(ConnectionClosed) as caught:
        await socket.next()

    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1012


async def test_what_a_short_lived_key_settles_holds_for_what_is_asked_with_it(
    manual: Served[ManualAgent], dial: Dial
) -> None:
    openai: Any = await manual.openai()
    session = {"type": "realtime", "instructions": "Be brief."}
    secret = (await openai.realtime.client_secrets.create(session=session)).value
    socket = await dial(manual, secret)
    await socket.ask("r1", user("hi"), body={"unbroken": {"instructions": "Be long."}})
    refused = await socket.until("error")
    await socket.ask("r2", user("hi"))
    turn = await manual.agent.turn()
    (actor,) = manual.app.node.hub
    (running,) = actor.session.responses.values()
    turn.end()
    await socket.until("end")

    assert refused["unbroken"]["code"] == "session_pinned"
    assert turn.given.instructions == "Be brief."
    assert running.request.settled is not None, "whatever becomes of the session before it runs"
    assert running.request.settled.instructions == "Be brief."
