"""What holds at every door holds at ``/graphql``: keys, load, origins, leaks, slowness, silence, drains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.fakes.clock import FakeClock
from tests.server.conftest import Serve
from tests.server.graphql.client import EVENTS, SEND, said
from tests.server.graphql.conftest import Call
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, eventually
from tests.server.realtime.test_client_secrets import KEYS, issued
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.app import App
from unbroken.server.config import Settings, StartupError
from unbroken.server.protocols.graphql.socket import GraphqlClose
from unbroken.server.transports import sse

CANCEL = "mutation($id: ID!) { cancel(responseId: $id) { status } }"
CARD = "4111 1111 1111 1111"


async def test_too_much_to_do_stops_no_stopping(spoken: Served[ManualAgent], call: Call) -> None:
    alice = call(spoken)
    sent = await alice.send("hi")
    await spoken.agent.turn()
    spoken.app.node.takes_sessions = spoken.app.node.takes_responses = False
    refused = await alice.post(SEND, **{"in": {"text": "hi"}})  # type: ignore[arg-type]
    cancelled = await alice.ask(CANCEL, id=sent["responseId"])

    assert refused.status_code == 503
    assert refused.json()["errors"][0]["extensions"]["code"] == "server_overloaded"
    assert int(refused.headers["retry-after"]) > 0
    assert cancelled["cancel"]["status"] == "CANCELLED"


async def test_whoever_comes_back_is_let_in_however_much_there_is_to_do(
    spoken: Served[ManualAgent], call: Call
) -> None:
    alice = call(spoken)
    sent = await alice.send("hi")
    spoken.app.node.takes_sessions = spoken.app.node.takes_responses = False
    with pytest.raises(InvalidStatus) as caught:
        await alice.raw_socket()
    socket = await alice.socket(query="?continue=yes")
    await socket.subscribe("1", response=sent["responseId"])
    await socket.subscribe("2", CANCEL, id=sent["responseId"])
    await socket.until("complete", "1")

    assert caught.value.response.status_code == 503
    assert socket.events["1"][-1]["response"]["status"] == "CANCELLED"


async def test_a_connection_ends_with_what_it_was_let_in_with(serve: Serve, call: Call) -> None:
    clock = FakeClock()
    served = await serve(ManualAgent(), graphql=True, api_keys=KEYS, clock=clock, client_session_lifetime=600)
    key = await issued(served)
    page = call(served, None)
    socket = await page.socket(payload={"token": key})
    await socket.subscribe("1", SEND, **{"in": {"text": "hi"}})
    await socket.until("complete", "1")
    clock.advance(601)
    said_last = await socket.next()
    code, _ = await socket.closed()
    (await served.agent.turn()).end()

    assert said_last["type"] == "ping"
    assert said_last["payload"]["extensions"]["code"] == "credential_expired"
    assert code == 1008


async def test_what_a_short_lived_key_settles_holds(serve: Serve, call: Call) -> None:
    served = await serve(ManualAgent(), graphql=True)
    openai: Any = await served.openai()
    session = {"type": "realtime", "instructions": "Be brief."}
    secret = (await openai.realtime.client_secrets.create(session=session)).value
    socket = await call(served, None).socket(payload={"token": secret})
    await socket.subscribe("1", SEND, **{"in": {"text": "hi", "instructions": "Be long."}})
    await socket.until("complete", "1")
    await socket.subscribe("2", SEND, **{"in": {"text": "hi"}})
    await socket.until("complete", "2")
    turn = await served.agent.turn()
    turn.end()

    assert socket.answers["1"][0]["errors"][0]["extensions"]["code"] == "session_pinned"
    assert turn.given.instructions == "Be brief."


async def test_what_may_not_leave_does_not_leave_here_either(serve: Serve, call: Call) -> None:
    served = await serve(ManualAgent(), graphql=True, leaks={"default": "on"})
    alice = call(served)
    sent = await alice.send("hi")
    turn = await served.agent.turn()
    turn.say("It is ", CARD[:9], CARD[9:], ".")
    turn.end()
    events = await alice.listen(response=sent["responseId"])

    assert CARD not in said(events) and said(events).startswith("It is ")
    assert events[-1]["response"]["text"] == said(events)


async def test_pages_of_listed_origins_may_ask(serve: Serve, call: Call) -> None:
    page = "https://shop.example"
    served = await serve(ScriptedAgent(), graphql=True, allowed_origins=(page,))
    http = call(served).http
    asked = {"query": "{ models { id } }"}
    answer = await http.post("/graphql", json=asked, headers={"origin": page, "x-request-id": "trace-1"})
    wanted = {"origin": page, "access-control-request-headers": "authorization,content-type"}
    preflight = await http.options("/graphql", headers=wanted)
    refused = await http.post("/graphql", json=asked, headers={"origin": "https://other.example"})

    assert answer.headers["access-control-allow-origin"] == page
    assert answer.headers["x-request-id"] == "trace-1"
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
    assert refused.status_code == 403
    assert refused.json()["errors"][0]["extensions"] == {"code": "origin_not_allowed"}


async def test_silence_is_broken_by_a_lone_colon(
    spoken: Served[ManualAgent], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "_HEARTBEAT", 0.01)
    alice = call(spoken)
    sent = await alice.send("hi")
    body = {"query": EVENTS, "variables": {"session": sent["sessionId"]}}
    headers = {"accept": "text/event-stream"}
    async with alice.http.stream("POST", "/graphql", json=body, headers=headers) as response:
        assert response.headers["x-accel-buffering"] == "no"
        assert "no-transform" in response.headers["cache-control"]
        async for line in response.aiter_lines():
            if line == ":":
                break
    (await spoken.agent.turn()).end()


async def test_whoever_falls_behind_is_told_to_begin_anew(serve: Serve, call: Call) -> None:
    served = await serve(ManualAgent(), graphql=True, log_retain_bytes=4096, log_max_bytes=8192)
    alice = call(served)
    sent = await alice.send("hi")
    turn = await served.agent.turn()
    socket = await alice.socket()
    await socket.subscribe("1", session=sent["sessionId"])
    turn.say("x")
    await socket.shows("1", "x")
    last = socket.events["1"][-1]["cursor"]
    (actor,) = served.app.node.hub
    for cursor in list(actor.feed._cursors):
        cursor.seq = -1  # as if the log had gone on without it
    turn.say("y")
    error = await socket.until("error", "1")
    await socket.subscribe("2", session=sent["sessionId"], after=last)
    await socket.shows("2", "y")
    turn.end()

    assert error["payload"][0]["extensions"]["code"] == "response_events_gone"
    assert socket.events["2"][0]["resumed"] is True


async def test_what_is_in_no_store_is_had_here_alone(spoken: Served[ManualAgent], call: Call) -> None:
    alice = call(spoken)
    sent = await alice.send("hi", store=False)
    turn = await spoken.agent.turn()
    turn.say("whole")
    async with alice.listening(response=sent["responseId"]) as events:
        turn.end()
        assert said([event async for event in events]) == "whole"

    assert sent["resume"] is None
    assert len(spoken.app.node.hub) == 0


async def test_functions_are_called_and_answered(serve: Serve, call: Call) -> None:
    served = await serve(ScriptedAgent(), graphql=True)
    alice = call(served)
    tools = [{"name": "add", "description": "Adds.", "parameters": {"type": "object"}}]
    first = await alice.send('/call add {"a": 1}', tools=tools)
    await alice.listen(response=first["responseId"])
    query = "query($id: ID!) { response(id: $id) { output { type name callId arguments } } }"
    (called,) = (await alice.ask(query, id=first["responseId"]))["response"]["output"]
    output = {"type": "function_call_output", "callId": called["callId"], "output": "2"}
    answer = {"items": [output], "previousResponseId": first["responseId"], "tools": tools}
    second = (await alice.ask(SEND, **{"in": answer}))["send"]
    events = await alice.listen(response=second["responseId"])

    assert (called["type"], called["name"], called["arguments"]) == ("function_call", "add", '{"a": 1}')
    assert said(events) == "Returned: 2"
    assert second["sessionId"] == first["sessionId"]


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({}, "items"),
        ({"text": "hi", "items": []}, "items"),
        ({"text": "hi", "sessionId": "sess_x", "previousResponseId": "resp_x"}, "sessionId"),
        ({"text": "hi", "tools": [{"name": "a", "parameters": [1]}]}, "tools"),
        ({"text": "hi", "model": "other"}, "model"),
        ({"items": [{"role": "user", "content": [{"type": "nothing"}]}]}, None),
    ],
)
async def test_what_makes_no_sense_is_told_with_its_field(
    serve: Serve, call: Call, wanted: dict[str, Any], param: str | None
) -> None:
    served = await serve(ScriptedAgent(), graphql=True)
    error = await call(served).refused(SEND, **{"in": wanted})
    if param is not None:
        assert error["extensions"]["param"] == param
    assert error["path"] == ["send"]


async def test_a_node_that_drains_ends_streams_of_sessions(spoken: Served[ManualAgent], call: Call) -> None:
    alice = call(spoken)
    sent = await alice.send("hi")
    turn = await spoken.agent.turn()
    body = {"query": EVENTS, "variables": {"session": sent["sessionId"]}}
    headers = {"accept": "text/event-stream"}
    async with alice.http.stream("POST", "/graphql", json=body, headers=headers) as response:
        lines = response.aiter_lines()
        assert await anext(lines) == "event: next"
        spoken.app.begin_drain()
        turn.say("whole")
        turn.end()
        rest = [line async for line in lines]

    assert any('"delta":"whole"' in line for line in rest)
    assert '"code":"server_draining"' in rest[-5]
    assert rest[-3:] == ["event: complete", "data: ", ""] or rest[-2:] == ["event: complete", "data: "]
    await eventually(lambda: spoken.app.node.hub.connections == 0)


def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "strawberry", None)
    with pytest.raises(StartupError, match=r"pip install 'unbroken\[graphql\]'"):
        App(Settings(agent="scripted", graphql=True), ScriptedAgent(), FakeClock())


def test_every_close_code_of_its_own_is_documented() -> None:
    document = (Path(__file__).parents[3] / "docs" / "graphql.md").read_text()
    assert all(f"| {code.value} |" in document for code in GraphqlClose)
