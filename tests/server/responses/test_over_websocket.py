"""``WS /v1/responses`` as the official client sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from openai.types.responses.responses_server_event import ResponsesServerEvent
from pydantic import TypeAdapter
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.transports.responses_socket import say_alone

EVENT: TypeAdapter[Any] = TypeAdapter(ResponsesServerEvent)


class Raw:
    """A connection, and what comes by it: each message checked against the official types."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.events: list[dict[str, Any]] = []

    async def send(self, **fields: Any) -> None:
        await self.ws.send(orjson.dumps({"type": "response.create", "model": "default", **fields}).decode())

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT):
            event: dict[str, Any] = orjson.loads(await self.ws.recv())
        EVENT.validate_python(event)
        self.events.append(event)
        return event

    async def until(self, *kinds: str) -> dict[str, Any]:
        while (event := await self.next())["type"] not in kinds:
            pass
        return event


async def opened(server: Served[Any], key: str = "alice", **query: str) -> Raw:
    named = "&".join(f"{name}={value}" for name, value in query.items())
    ws = await connect(
        f"ws://127.0.0.1:{server.port}/v1/responses?{named}",
        additional_headers={"Authorization": f"Bearer {key}"},
        compression=None,
    )
    server._stack.push_async_callback(ws.close)
    return Raw(ws)


def said(events: list[dict[str, Any]], lane: str | None = None) -> str:
    return "".join(
        event["delta"]
        for event in events
        if event["type"] == "response.output_text.delta" and event.get("stream_id") == lane
    )


@pytest.mark.client("openai-python", "lanes")
async def test_the_official_client_is_answered(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    async with client.responses.connect() as connection:
        await connection.response.create(model="default", input="hello")
        events = []
        async for event in connection:
            events.append(event)
            if event.type == "response.completed":
                break

    assert events[-1].response.output_text == "You said: hello"
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_lanes_dont_wait_for_each_other(manual: Served[ManualAgent]) -> None:
    raw = await opened(manual)
    await raw.send(input="one", stream_id="a")
    first = await manual.agent.turn()
    await raw.send(input="two", stream_id="b")
    second = await manual.agent.turn(1)

    second.say("quick")
    second.end()
    done = await raw.until("response.completed")
    first.say("slow")
    first.end()
    last = await raw.until("response.completed")

    assert (done["stream_id"], last["stream_id"]) == ("b", "a")
    assert (said(raw.events, "a"), said(raw.events, "b")) == ("slow", "quick")


async def test_in_one_lane_answers_come_in_turn(manual: Served[ManualAgent]) -> None:
    raw = await opened(manual)
    for text in ("one", "two"):
        await raw.send(input=text)
    first = await manual.agent.turn()
    assert len(manual.agent.turns) == 1

    first.say("1")
    first.end()
    await raw.until("response.completed")
    second = await manual.agent.turn(1)
    second.say("2")
    second.end()
    await raw.until("response.completed")

    assert said(raw.events) == "12"


async def test_it_is_gone_on_from(server: Served[ScriptedAgent]) -> None:
    raw = await opened(server)
    await raw.send(input="one")
    first = (await raw.until("response.completed"))["response"]
    await raw.send(input="two", previous_response_id=first["id"])
    second = (await raw.until("response.completed"))["response"]

    assert second["conversation"] == first["conversation"]


async def test_what_was_cut_off_is_said_on_by_the_next_connection(manual: Served[ManualAgent]) -> None:
    raw = await opened(manual)
    await raw.send(input="one", stream_id="a")
    turn = await manual.agent.turn()
    turn.say("some ")
    seen = await raw.until("response.output_text.delta")
    await raw.ws.close()
    turn.say("more")
    turn.end()

    response_id = raw.events[0]["response"]["id"]
    manual.app.node.takes_sessions = False  # who comes back is let in all the same
    again = await opened(manual, **{"continue": f"{response_id}:{seen['sequence_number']}:a"})
    await again.until("response.completed")

    assert again.events[0]["sequence_number"] == seen["sequence_number"] + 1
    assert said(raw.events + again.events, "a") == "some more"


async def test_a_response_is_cancelled(manual: Served[ManualAgent]) -> None:
    raw = await opened(manual)
    await raw.send(input="one")
    await manual.agent.turn()
    response_id = (await raw.next())["response"]["id"]

    await raw.ws.send(orjson.dumps({"type": "response.cancel", "response_id": response_id}).decode())

    assert (await raw.until("response.incomplete"))["response"]["status"] == "cancelled"


@pytest.mark.parametrize(
    ("key", "origin", "status", "code"),
    [
        ("wrong", None, 401, "invalid_api_key"),
        ("wrong", "https://evil.example", 403, "origin_not_allowed"),
    ],
)
async def test_a_page_that_is_refused_is_told_the_status_in_a_frame(
    server: Served[ScriptedAgent], key: str, origin: str | None, status: int, code: str
) -> None:
    protocols: Any = ["realtime", f"openai-insecure-api-key.ek_{key}"]
    page: Any = origin or f"http://127.0.0.1:{server.port}"
    url = f"ws://127.0.0.1:{server.port}/v1/responses"
    async with connect(url, origin=page, subprotocols=protocols, compression=None) as ws:
        error = await Raw(ws).next()

    assert (error["status"], error["error"]["code"]) == (status, code)


@pytest.mark.parametrize("status", [429, 503])
def test_to_come_back_later_has_the_status_of_its_reason(status: int) -> None:
    error = orjson.loads(say_alone("server_full", "Later.", status=status, retry_after=2))

    assert error["status"] == status


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\x00", "binary_frame"),
        ("no json", "invalid_json"),
        ("[" * 100, "invalid_json"),
        ('{"a": 1}', "invalid_event"),
        ('{"type": "response.unheard_of"}', "unknown_event_type"),
        ('{"type": "response.create", "input": 5}', "invalid_request"),
        ('{"type": "response.create", "input": "x", "background": true}', "invalid_request"),
        ('{"type": "response.create", "input": "x", "generate": false}', "invalid_request"),
        ('{"type": "response.create", "input": "x", "stream_id": "no spaces"}', "invalid_stream_id"),
        ('{"type": "response.create", "input": "x", "model": "other"}', "model_not_found"),
        (
            '{"type": "response.create", "input": "x", "previous_response_id": "r"}',
            "previous_response_not_found",
        ),
        ('{"type": "response.cancel"}', "invalid_event"),
        ('{"type": "response.cancel", "response_id": "r"}', "response_not_found"),
    ],
)
async def test_a_mistake_is_told_and_the_connection_goes_on(
    server: Served[ScriptedAgent], message: str | bytes, code: str
) -> None:
    raw = await opened(server)
    await raw.ws.send(message)

    assert (await raw.next())["error"]["code"] == code
    await raw.send(input="hello")
    assert (await raw.until("response.completed"))["response"]["status"] == "completed"


async def test_nobody_is_steered(server: Served[ScriptedAgent]) -> None:
    raw = await opened(server)
    steer = {"type": "response.steer", "previous_response_id": "resp_1", "input": "left"}
    await raw.ws.send(orjson.dumps(steer).decode())

    assert (await raw.next())["error"]["code"] == "steering_not_supported"


async def test_more_than_may_wait_is_refused(serve: Serve) -> None:
    manual: Served[ManualAgent] = await serve(ManualAgent(), input_queue=4)
    raw = await opened(manual)
    for _ in range(6):
        await raw.send(input="x")

    assert (await raw.until("error"))["error"]["code"] == "input_queue_full"


async def test_lanes_are_bounded(manual: Served[ManualAgent]) -> None:
    raw = await opened(manual)
    for number in range(33):
        await raw.send(input="x", stream_id=f"lane-{number}")

    error = await raw.until("error")
    assert error["error"]["code"] == "websocket_stream_limit_reached"
    assert error["stream_id"] == "lane-32"


async def test_an_address_that_makes_no_sense_is_refused(server: Served[ScriptedAgent]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await opened(server, **{"continue": "nothing"})
    assert refused.value.response.status_code == 400


async def test_whoever_drains_sends_silent_connections_away(manual: Served[ManualAgent]) -> None:
    silent, busy = await opened(manual), await opened(manual)
    await busy.send(input="one")
    turn = await manual.agent.turn()

    manual.app.begin_drain()
    with pytest.raises(ConnectionClosed):
        await silent.next()
    assert silent.ws.close_code == 1012
    turn.say("the end")
    turn.end()
    await busy.until("response.completed")
    with pytest.raises(ConnectionClosed):
        await busy.next()
    assert busy.ws.close_code == 1012


async def test_nothing_is_left_of_a_connection(manual: Served[ManualAgent]) -> None:
    raw = await opened(manual)
    await raw.send(input="one")
    turn = await manual.agent.turn()
    await raw.ws.close()

    await manual.no_connections()
    turn.end()
    await manual.idle()
    await eventually(lambda: not manual.app.metrics.connections._value.get())
