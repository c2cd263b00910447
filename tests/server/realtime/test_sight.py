"""What an operator sees of connections and answers, and what an overloaded server does."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

from tests.fakes.clock import FakeClock
from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Frame
from tests.server.realtime.raw import RawClient
from tests.server.realtime.serving import Served, eventually
from tests.server.realtime.test_slow_reader import LINE, ROOMY, held_up
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.overload import Level
from unbroken.sessions.clock import SystemClock


def value(server: Served[Any], name: str, **labels: str) -> float:
    return server.app.metrics.registry.get_sample_value(f"unbroken_{name}", labels) or 0.0


# Overload.


class Overloaded:
    """A server whose loop is late by as much as the test says."""

    def __init__(self, server: Served[ManualAgent], clock: FakeClock) -> None:
        self.server = server
        self.clock = clock

    def lag(self, seconds: float) -> None:
        for _ in range(20):
            self.clock.block(0.1 + seconds)

    def recover(self) -> None:
        self.clock.advance(10)


@pytest.fixture
async def overloaded(serve: Serve) -> Overloaded:
    clock = FakeClock()
    server: Served[ManualAgent] = await serve(ManualAgent(), clock=clock, patience=0, overload_lag=0.2)
    return Overloaded(server, clock)


async def test_an_overloaded_server_takes_no_new_sessions(overloaded: Overloaded) -> None:
    """Clients that can read it get a 503 with Retry-After, others a frame and 1013: both come back."""
    server = overloaded.server
    overloaded.lag(0.3)
    waits: set[str] = set()
    for _ in range(40):
        with pytest.raises(InvalidStatus) as refused:
            await server.stranger().open()
        response = refused.value.response
        assert response.status_code == 503
        assert json.loads(response.body)["error"]["code"] == "server_overloaded"
        waits.add(response.headers["Retry-After"])
    assert all(2 <= int(wait) < 10 for wait in waits)
    assert len(waits) > 1, "they don't come back all at once"
    async with RawClient(server.port, headers={"Origin": f"http://127.0.0.1:{server.port}"}) as raw:
        assert (await raw.response()).status_code == 101
        (frame,) = await raw.rest()
        assert isinstance(frame, dict)
        assert frame["error"]["code"] == "server_overloaded"
        assert 2 <= frame["error"]["unbroken"]["retry_after"] < 10
        assert raw.close_code == 1013
    assert value(server, "connections_refused_total", code="server_overloaded") == 41

    overloaded.recover()
    await server.client()


async def test_who_is_in_goes_before_who_is_not(overloaded: Overloaded) -> None:
    """Answers go on, sessions are resumed, and ask for answers: until the server is swamped."""
    server = overloaded.server
    client = await server.client()
    await client.ask("hi")
    turn = await server.agent.turn()
    overloaded.lag(0.3)
    await client.drop()
    await client.resume()
    turn.say("going ", "on")
    await client.said("going on")
    turn.end()
    await client.done()
    await client.ask("more")
    (await server.agent.turn(1)).end()

    assert (await client.done())["status"] == "completed"
    assert client.resumed is True


async def test_a_swamped_server_begins_no_response(overloaded: Overloaded) -> None:
    """The refusal isn't in the log: the same event, sent again, is taken when there is time for it."""
    server = overloaded.server
    client = await server.client()
    overloaded.lag(1.5)
    request = {"type": "response.create", "event_id": "go"}
    await client.say("hi", id="mine")
    await client.send(request)
    error = await client.error()
    assert (error["code"], error["event_id"]) == ("server_overloaded", "go")
    assert "Try again" in error["message"]
    assert 2 <= error["unbroken"]["retry_after"] < 10
    await client.drop()
    await client.resume()
    assert server.agent.turns == []

    overloaded.recover()
    await client.send(request)
    (await server.agent.turn()).end()
    assert (await client.done())["status"] == "completed"


async def test_readiness_stays_while_it_is_overloaded(overloaded: Overloaded) -> None:
    """Taken out, its share would go to the others, and they would be next."""
    server = overloaded.server
    overloaded.lag(2.0)
    async with httpx2.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{server.port}/readyz")

    assert (answer.status_code, answer.json()) == (200, {"status": "overloaded"})


@pytest.mark.slow
async def test_a_loop_that_is_really_blocked(serve: Serve) -> None:
    """With the machine's own clock: something holds the loop again and again, and then no more."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), clock=SystemClock(), overload_lag=0.05)
    node = server.app.node
    while node.takes_sessions:
        time.sleep(0.2)  # noqa: ASYNC251 - the very fault
        await asyncio.sleep(0)
    with pytest.raises(InvalidStatus) as refused:
        await server.stranger().open()
    assert refused.value.response.status_code == 503
    assert value(server, "event_loop_lag_worst_seconds") > 0
    assert value(server, "overload_level") >= Level.BUSY

    async with asyncio.timeout(50):
        while not node.takes_sessions:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
    await server.client()
    assert value(server, "overload_level") == Level.CALM


# Connections and answers.


async def test_connections_are_counted_from_beginning_to_end(server: Served[ScriptedAgent]) -> None:
    leaving, dropped = await server.client(), await server.client()
    assert value(server, "connections") == value(server, "connections_opened_total") == 2
    await leaving.close()
    await dropped.drop()
    async with RawClient(server.port) as raw:
        await raw.response()
        await raw.close(4321)
        await raw.rest()
    await server.no_connections()
    await eventually(lambda: value(server, "connections") == 0)

    assert value(server, "connections_opened_total") == 3
    for code in ("1000", "1005", "other"):
        assert value(server, "connections_closed_total", code=code) == 1, code


async def test_what_the_server_closes_is_counted_by_its_own_code(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    server.app.begin_drain()
    assert await client.closed() == 1012
    await server.no_connections()
    await eventually(lambda: value(server, "connections") == 0)

    assert value(server, "connections_closed_total", code="1012") == 1
    assert value(server, "draining") == 1


async def test_slow_readers_are_seen_and_seen_to_catch_up(serve: Serve) -> None:
    manual: Served[ManualAgent] = await serve(ManualAgent(), **ROOMY)
    async with RawClient(manual.port) as raw:
        await raw.response()
        await raw.send({"type": "response.create"})
        await held_up(manual, raw)
        manual.agent.turns[0].say(LINE)
        await eventually(lambda: value(manual, "connections_slow") == 1)
        assert value(manual, "connections_slowed_total") >= 1
        manual.agent.turns[0].end()
        frames: list[Frame] = []
        while not frames or frames[-1]["type"] != "response.done":
            event = await raw.next()
            assert isinstance(event, dict)
            frames.append(event)
        await eventually(lambda: value(manual, "connections_slow") == 0)


async def test_a_reader_that_keeps_up_is_never_slow(serve: Serve) -> None:
    """Where messages wait for a task to send them, they did it for a moment each, and each was counted."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), patience=0)
    client = await server.client()
    await client.ask("/tokens 60")
    await client.done()

    assert value(server, "connections_slowed_total") == 0


async def test_a_slow_reader_that_has_caught_up_is_slow_no_more(serve: Serve) -> None:
    """Also while its answer goes on, and nothing else is there to be sent."""
    manual: Served[ManualAgent] = await serve(ManualAgent(), **ROOMY)
    async with RawClient(manual.port) as raw:
        await raw.response()
        await raw.send({"type": "response.create"})
        _, lines = await held_up(manual, raw)
        manual.agent.turns[0].say(LINE)
        await eventually(lambda: value(manual, "connections_slow") == 1)
        read = 0
        while read < (lines + 1) * len(LINE):
            event = await raw.next()
            assert isinstance(event, dict)
            read += len(event.get("delta", ""))
        await eventually(lambda: value(manual, "connections_slow") == 0)
        assert value(manual, "connections_slowed_total") == 1
        manual.agent.turns[0].end()


async def test_a_slow_reader_that_leaves_is_slow_no_more(serve: Serve) -> None:
    manual: Served[ManualAgent] = await serve(ManualAgent(), **ROOMY)
    async with RawClient(manual.port) as raw:
        await raw.response()
        await raw.send({"type": "response.create"})
        await held_up(manual, raw)
        manual.agent.turns[0].say(LINE)  # what filled its buffers may have been all there was
        await eventually(lambda: value(manual, "connections_slow") == 1)
        raw.reset()
        await eventually(lambda: value(manual, "connections") == 0)
    assert value(manual, "connections_slow") == 0


async def test_answers_are_counted_as_they_run_wait_and_end(serve: Serve) -> None:
    clock = FakeClock()
    manual: Served[ManualAgent] = await serve(ManualAgent(), clock=clock, concurrency="queue")
    client = await manual.client()
    for _ in range(3):
        await client.ask("hi")
    turn = await manual.agent.turn()
    await client.sync()
    assert (value(manual, "sessions_running"), value(manual, "responses_waiting")) == (1, 2)
    for piece, seconds in (("a", 0.0), ("b", 0.3), ("c", 0.1)):
        clock.advance(seconds)
        turn.say(piece)
        await client.said(piece)
    turn.end()
    for number in (1, 2):
        (await manual.agent.turn(number)).end()
    for _ in range(3):
        await client.done()

    assert (value(manual, "sessions_running"), value(manual, "responses_waiting")) == (0, 0)
    assert value(manual, "responses_total", status="completed") == 3
    assert value(manual, "longest_gap_seconds_count") == 1, "the others had no two pieces"
    assert value(manual, "longest_gap_seconds_sum") == pytest.approx(0.3)
    assert value(manual, "inputs_waiting") == 0


async def test_inputs_that_wait_are_counted_and_those_of_who_left_are_not(serve: Serve) -> None:
    """Its answers aren't read: nothing more is taken from it."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), input_queue=4)
    async with RawClient(server.port) as raw:
        await raw.response()
        await raw.send(*["nonsense"] * 4)
        await raw.next()
        raw.reset()
        await server.no_connections()
        await eventually(lambda: value(server, "connections") == 0)

    assert value(server, "inputs_waiting") == 0


# What is logged.


async def test_refused_connections_are_logged_without_their_secrets(serve: Serve) -> None:
    """With the reason and the address; of many only some, and how many not."""
    clock = FakeClock()
    strict: Served[ScriptedAgent] = await serve(ScriptedAgent(), clock=clock, api_keys=("a:" + 64 * "0",))
    with capture_logs() as logs:
        for number in range(12):
            with pytest.raises(InvalidStatus):
                await strict.stranger(f"sk-secret-{number}").open(resume="rt_secret")
        clock.advance(60)
        with pytest.raises(InvalidStatus):
            await strict.stranger("sk-secret").open()
    lines = [line for line in logs if line["event"] == "connection refused"]

    assert len(lines) == 11
    assert [line["unsaid"] for line in lines] == [0] * 10 + [2]
    assert {(line["code"], line["status"], line["address"]) for line in lines} == {
        ("invalid_api_key", 401, "127.0.0.1")
    }
    assert "secret" not in str(lines)
