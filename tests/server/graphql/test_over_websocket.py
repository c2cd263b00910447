"""``/graphql`` over a WebSocket, message by message."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.server.conftest import Serve
from tests.server.graphql.client import SEND, Caller, Socket, said
from tests.server.graphql.conftest import Call
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.scripted import ScriptedAgent

DIGEST = hashlib.sha256(b"alice").hexdigest()
MODELS = "{ models { id } }"
CANCEL = "mutation($r: ID!) { cancel(responseId: $r) { status } }"


async def test_an_answer_is_told_piece_by_piece(spoken: Served[ManualAgent], call: Call) -> None:
    socket = await call(spoken).socket()
    await socket.subscribe("1", SEND, **{"in": {"text": "hi"}})
    await socket.until("complete", "1")
    sent = socket.answers["1"][0]["data"]["send"]
    await socket.subscribe("2", response=sent["responseId"])
    turn = await spoken.agent.turn()
    for piece in ("one", " two", " three"):
        turn.say(piece)
        await socket.shows("2", piece)
    turn.end()
    await socket.until("complete", "2")

    events = socket.events["2"]
    assert [event["delta"] for event in events if event["type"] == "DELTA"] == ["one", " two", " three"]
    assert events[-1]["response"] == {
        "id": sent["responseId"],
        "status": "COMPLETED",
        "text": "one two three",
    }


async def test_several_are_told_of_at_once_and_each_as_it_was_asked_for(
    spoken: Served[ManualAgent], call: Call
) -> None:
    alice = call(spoken)
    socket = await alice.socket()
    sent = await alice.send("hi")
    turn = await spoken.agent.turn()
    query = """subscription($r: ID!) { ...It }
    fragment It on Subscription { e: events(responseId: $r) { d: delta } }"""
    await socket.subscribe("named", query, r=sent["responseId"])
    await socket.subscribe("all", session=sent["sessionId"])
    turn.say("half ")
    await socket.shows("all", "half")
    await socket.subscribe("late", session=sent["sessionId"], after=socket.events["all"][-1]["cursor"])
    turn.say("whole")
    turn.end()
    await socket.until("complete", "named")
    await socket.shows("late", "whole")

    told = [answer["data"]["e"] for answer in socket.answers["named"]]
    assert "".join(each["d"] or "" for each in told) == "half whole"
    assert said(socket.events["late"]) == "whole"


async def test_what_is_completed_is_told_of_no_more_and_goes_on(
    spoken: Served[ManualAgent], call: Call
) -> None:
    alice = call(spoken)
    socket = await alice.socket()
    sent = await alice.send("hi")
    turn = await spoken.agent.turn()
    await socket.subscribe("1", response=sent["responseId"])
    turn.say("half ")
    await socket.shows("1", "half")
    await socket.send("complete", id="1")
    await socket.send("complete", id="1")
    await socket.send("complete", id="never")
    await socket.subscribe("2", MODELS)
    await socket.until("complete", "2")
    await eventually(lambda: len(next(iter(spoken.app.node.hub)).feed) == 0)
    turn.say("whole")
    turn.end()
    await socket.subscribe("1", response=sent["responseId"])  # the name is free again
    await socket.until("complete", "1")

    assert not turn.was_stopped
    assert said(socket.events["1"]) == "half half whole"


async def test_what_is_completed_at_once_is_never_told_of(spoken: Served[ManualAgent], call: Call) -> None:
    alice = call(spoken)
    socket = await alice.socket()
    sent = await alice.send("hi")
    await socket.subscribe("1", session=sent["sessionId"])
    await socket.send("complete", id="1")
    await eventually(lambda: len(next(iter(spoken.app.node.hub)).feed) == 0)
    (await spoken.agent.turn()).end()
    await socket.subscribe("2", MODELS)
    await socket.until("complete", "2")


@pytest.mark.parametrize("is_told_of", [False, True])
async def test_what_is_completed_leaves_its_name_to_another_at_once(
    spoken: Served[ManualAgent], call: Call, is_told_of: bool
) -> None:
    alice = call(spoken)
    socket = await alice.socket()
    sent = await alice.send("hi")
    turn = await spoken.agent.turn()
    await socket.subscribe("1", response=sent["responseId"])
    if is_told_of:
        turn.say("half ")
        await socket.shows("1", "half")
    for _ in range(3):
        await socket.send("complete", id="1")
        await socket.subscribe("1", response=sent["responseId"])
    turn.say("whole")
    await socket.shows("1", "whole")
    turn.end()
    await socket.until("complete", "1")


async def test_what_as_many_watch_as_may_is_cancelled(serve: Serve, call: Call) -> None:
    server: Served[ManualAgent] = await serve(ManualAgent(), graphql=True, connections_per_session=1)
    alice = call(server)
    socket = await alice.socket()
    sent = await alice.send("hi")
    await socket.subscribe("1", response=sent["responseId"])
    turn = await server.agent.turn()
    turn.say("half")
    await socket.shows("1", "half")
    await socket.subscribe("2", CANCEL, r=sent["responseId"])
    await socket.until("complete", "2")

    assert turn.was_stopped
    assert socket.answers["2"] == [{"data": {"cancel": {"status": "CANCELLED"}}}]


async def test_what_runs_on_a_node_that_drains_is_cancelled(spoken: Served[ManualAgent], call: Call) -> None:
    alice = call(spoken)
    socket = await alice.socket()
    sent = await alice.send("hi")
    await socket.subscribe("1", response=sent["responseId"])
    turn = await spoken.agent.turn()
    turn.say("half")
    await socket.shows("1", "half")
    spoken.app.begin_drain()
    await socket.subscribe("2", CANCEL, r=sent["responseId"])
    code, _ = await socket.closed()

    assert code == 1012
    assert turn.was_stopped
    assert socket.answers["2"] == [{"data": {"cancel": {"status": "CANCELLED"}}}]


async def test_a_lost_connection_stops_nothing(spoken: Served[ManualAgent], call: Call) -> None:
    alice = call(spoken)
    sent = await alice.send("hi")
    turn = await spoken.agent.turn()
    first = await alice.socket()
    await first.subscribe("1", session=sent["sessionId"])
    turn.say("half ")
    await first.shows("1", "half")
    first.ws.transport.abort()
    await eventually(lambda: spoken.app.node.hub.connections == 0)
    turn.say("whole")
    second = await alice.socket()
    await second.subscribe("1", session=sent["sessionId"], after=first.events["1"][-1]["cursor"])
    await second.shows("1", "whole")
    turn.end()

    assert second.events["1"][0]["resumed"] is True
    assert said(second.events["1"]) == "whole"


async def test_keys_come_with_the_first_message_where_headers_cannot_be_set(serve: Serve, call: Call) -> None:
    server = await serve(ScriptedAgent(), graphql=True, api_keys=(f"app:{DIGEST}",))
    for payload in ({"Authorization": "Bearer alice"}, {"authorization": "bearer alice"}, {"token": "alice"}):
        socket = await call(server, None).socket(payload=payload)
        await socket.subscribe("1", MODELS)
        await socket.until("complete", "1")
    wrong: list[Any] = [None, {}, {"token": "mallory"}, {"Authorization": "alice"}, {"token": 1}]
    for payload in wrong:
        stranger = await call(server, None).raw_socket()
        await stranger.send("connection_init", payload=payload)
        code, reason = await stranger.closed()
        assert (code, reason.partition(":")[0]) == (4401, "invalid_api_key")
    with pytest.raises(InvalidStatus) as caught:
        await call(server, "mallory").raw_socket()
    assert caught.value.response.status_code == 401


async def test_a_key_that_is_good_for_long_is_not_for_pages(serve: Serve, call: Call) -> None:
    server = await serve(ScriptedAgent(), graphql=True, api_keys=(f"app:{DIGEST}",))
    openai: Any = await server.openai()
    secret = (await openai.realtime.client_secrets.create(session={"type": "realtime"})).value
    origin = Origin(f"http://127.0.0.1:{server.port}")
    page = await call(server, None).raw_socket(origin=origin)
    await page.send("connection_init", payload={"token": "alice"})
    code, reason = await page.closed()
    socket = await call(server, None).socket(origin=origin, payload={"token": secret})
    await socket.subscribe("1", MODELS)
    await socket.until("complete", "1")

    assert (code, reason.partition(":")[0]) == (4401, "api_key_in_browser")


async def test_a_page_of_another_origin_is_told_by_the_close(spoken: Served[ManualAgent], call: Call) -> None:
    page = await call(spoken, None).raw_socket(origin=Origin("https://elsewhere.example"))
    code, reason = await page.closed()
    assert (code, reason.partition(":")[0]) == (4403, "origin_not_allowed")


async def test_whoever_offers_another_subprotocol_is_refused(spoken: Served[ManualAgent], call: Call) -> None:
    for offered in (None, [Subprotocol("graphql-ws")]):
        with pytest.raises(InvalidStatus) as caught:
            await call(spoken).raw_socket(subprotocols=offered)
        assert caught.value.response.status_code == 400


@pytest.mark.parametrize("key", ["alice", None])
async def test_whoever_says_nothing_is_not_waited_for(serve: Serve, call: Call, key: str | None) -> None:
    server = await serve(ScriptedAgent(), graphql=True, handshake_timeout=0.2)
    code, _ = await (await call(server, key).raw_socket()).closed()
    assert code == 4408


@pytest.mark.parametrize("key", ["alice", None])
async def test_whoever_has_said_nothing_yet_is_sent_away_by_a_node_that_drains(
    serve: Serve, call: Call, key: str | None
) -> None:
    server = await serve(ScriptedAgent(), graphql=True, handshake_timeout=60)
    socket = await call(server, key).raw_socket()
    await socket.send("ping")
    assert await socket.next() == {"type": "pong"}
    server.app.begin_drain()
    code, _ = await socket.closed()
    assert code == 1012


async def test_what_breaks_the_protocol_ends_the_connection(spoken: Served[ManualAgent], call: Call) -> None:
    alice = call(spoken)

    async def begun() -> Socket:
        return await alice.socket()

    async def closed_after(socket: Socket, *messages: str | bytes) -> int:
        for message in messages:
            await socket.ws.send(message)
        return (await socket.closed())[0]

    init = '{"type":"connection_init"}'
    subscribe = '{"type":"subscribe","id":"1","payload":{"query":"{ models { id } }"}}'
    session_id = (await alice.send("hi"))["sessionId"]
    followed = f'subscription {{ events(sessionId: "{session_id}") {{ type }} }}'
    running = json.dumps({"type": "subscribe", "id": "1", "payload": {"query": followed}})
    (await spoken.agent.turn()).end()
    for raw in (
        "nonsense",
        b"{}",
        "[]",
        '{"type":"other"}',
        '{"type":"subscribe","id":"1"}',
        '{"type":"complete"}',
    ):
        assert await closed_after(await begun(), raw) == 4400
    assert await closed_after(await begun(), '{"type":"subscribe","id":"","payload":{"query":"{a}"}}') == 4400
    assert await closed_after(await begun(), init) == 4429
    assert await closed_after(await alice.raw_socket(), subscribe) == 4401
    assert await closed_after(await call(spoken, None).raw_socket(), subscribe) == 4401
    assert await closed_after(await begun(), running, running) == 4409


async def test_a_ping_is_answered_and_a_pong_taken(spoken: Served[ManualAgent], call: Call) -> None:
    socket = await call(spoken).socket()
    await socket.send("pong")
    await socket.send("ping", payload={"a": 1})
    assert await socket.next() == {"type": "pong"}


async def test_a_ping_is_answered_ahead_of_the_key_so_many_times(serve: Serve, call: Call) -> None:
    server = await serve(ScriptedAgent(), graphql=True, api_keys=(f"app:{DIGEST}",))
    socket = await call(server, None).raw_socket()
    await socket.send("pong")
    await socket.send("ping", payload={"a": 1})
    await socket.send("ping")
    assert [await socket.next() for _ in range(2)] == [{"type": "pong"}] * 2
    await socket.send("connection_init", payload={"token": "alice"})
    assert await socket.next() == {"type": "connection_ack"}

    other = await call(server, None).raw_socket()
    for _ in range(17):
        await other.send("ping")
    assert (await other.closed())[0] == 4401


async def test_what_cannot_be_executed_ends_that_alone(spoken: Served[ManualAgent], call: Call) -> None:
    socket = await call(spoken).socket()
    cases = {
        "{ nothing }": "invalid_document",
        "{ models { id }": "invalid_document",
        "{ __schema { types { " + "fields { type { " * 4 + "name" + " } }" * 4 + " } } }": "invalid_document",
        "{" + " ".join(f"a{number}: models {{ id }}" for number in range(20)) + "}": "document_too_complex",
        "subscription { events { type } }": "invalid_request",
        'subscription { events(sessionId: "x") { type } }': "session_not_found",
        'subscription { events(responseId: "x") { type } }': "response_not_found",
        "subscription($r: ID!) { events(responseId: $r) { type } }": "invalid_document",
    }
    for query, code in cases.items():
        await socket.subscribe("1", query)
        error = await socket.until("error", "1")
        assert error["payload"][0]["extensions"]["code"] == code, (query, error)
    await socket.subscribe("1", MODELS)
    await socket.until("complete", "1")


async def test_no_more_run_at_once_than_may(serve: Serve, call: Call) -> None:
    server: Served[ManualAgent] = await serve(ManualAgent(), graphql=True, graphql_subscriptions=3)
    alice = call(server)
    sent = await alice.send("hi")
    socket = await alice.socket()
    for number in range(4):
        await socket.subscribe(str(number), response=sent["responseId"])
    error = await socket.until("error", "3")
    (await server.agent.turn()).end()
    for number in range(3):
        if str(number) not in socket.completed:
            await socket.until("complete", str(number))
    await socket.subscribe("3", MODELS)
    await socket.until("complete", "3")

    assert error["payload"][0]["extensions"]["code"] == "websocket_stream_limit_reached"


async def test_a_quota_is_refused_as_an_error_of_the_field(serve: Serve, call: Call) -> None:
    server = await serve(ScriptedAgent(), graphql=True, quotas={"default": {"requests_per_minute": 1}})
    socket = await call(server).socket()
    for name in ("1", "2"):
        await socket.subscribe(name, SEND, **{"in": {"text": "hi"}})
        await socket.until("complete", name)

    (error,) = socket.answers["2"][0]["errors"]
    assert error["extensions"]["code"] == "rate_limit_exceeded"
    assert error["extensions"]["retryAfter"] > 0


async def test_a_node_that_drains_lets_answers_end_and_sends_away(
    spoken: Served[ManualAgent], call: Call
) -> None:
    alice = call(spoken)
    socket, idle = await alice.socket(), await alice.socket()
    sent = await alice.send("hi")
    await socket.subscribe("1", response=sent["responseId"])
    await socket.subscribe("2", session=sent["sessionId"])
    turn = await spoken.agent.turn()
    turn.say("half ")
    await socket.shows("2", "half")
    spoken.app.begin_drain()
    refused = asyncio.create_task(refused_with(alice))
    turn.say("whole")
    turn.end()

    code, _ = await socket.closed()
    assert code == 1012
    assert said(socket.events["1"]) == said(socket.events["2"]) == "half whole"
    assert socket.completed == {"1"}, "what is followed for as long as it goes is subscribed to elsewhere"
    assert (await idle.closed())[0] == 1012
    assert await refused == 503


async def refused_with(caller: Caller) -> int:
    with pytest.raises(InvalidStatus) as caught:
        await caller.raw_socket()
    return caught.value.response.status_code


async def test_an_answer_that_is_too_long_is_refused(serve: Serve, call: Call) -> None:
    server = await serve(ScriptedAgent(), graphql=True)
    alice = call(server)
    sent = await alice.send("x" * 100_000)
    await alice.listen(response=sent["responseId"])
    items = "items(first: 2) { edges { node { text json } } }"
    query = f"query($id: ID!) {{ session(id: $id) {{ {' '.join(f'a{n}: {items}' for n in range(12))} }} }}"
    over_http = await alice.refused(query, id=sent["sessionId"])
    socket = await alice.socket()
    await socket.subscribe("1", query, id=sent["sessionId"])
    over_websocket = await socket.next()
    await socket.subscribe("2", f"query($id: ID!) {{ session(id: $id) {{ {items} }} }}", id=sent["sessionId"])
    answered = await socket.next()

    assert over_http["extensions"]["code"] == "document_too_complex"
    assert over_websocket["type"] == "error"
    assert over_websocket["payload"] == [over_http]
    assert (answered["type"], answered["id"]) == ("next", "2")


async def test_a_subscription_that_begins_with_too_much_is_refused(serve: Serve, call: Call) -> None:
    server = await serve(ScriptedAgent(), graphql=True)
    alice = call(server)
    sent = await alice.send("x" * 100_000)
    await alice.listen(response=sent["responseId"])
    items = "items(first: 2) { edges { node { text json } } }"
    query = "subscription($id: ID!) { events(sessionId: $id) { type session { %s } } }"
    much = query % " ".join(f"a{n}: {items}" for n in range(12))
    streamed = await alice.post(much, accept="text/event-stream", id=sent["sessionId"])
    lines = streamed.text.splitlines()
    socket = await alice.socket()
    await socket.subscribe("1", much, id=sent["sessionId"])
    over_websocket = await socket.next()
    await socket.subscribe("1", query % items, id=sent["sessionId"])
    opened = await socket.next()

    assert (over_websocket["type"], over_websocket["id"]) == ("error", "1")
    (error,) = over_websocket["payload"]
    assert error["extensions"]["code"] == "document_too_complex"
    assert lines[:2] == ["event: next", f"data: {json.dumps({'errors': [error]}, separators=(',', ':'))}"]
    assert "event: complete" in lines
    assert opened["payload"]["data"]["events"]["type"] == "OPENED"


async def test_a_subscriber_that_reads_slowly_misses_nothing(serve: Serve, call: Call) -> None:
    server = await serve(ScriptedAgent(), graphql=True)
    alice = call(server)
    sent = await alice.send("/tokens 3000")
    socket = await alice.socket()
    await socket.subscribe("1", session=sent["sessionId"])
    await alice.listen(response=sent["responseId"])
    whole = (await alice.ask("query($r: ID!) { response(id: $r) { text } }", r=sent["responseId"]))[
        "response"
    ]
    while not any(event["type"] == "RESPONSE_DONE" for event in socket.events.get("1", [])):
        await socket.next()

    assert said(socket.events["1"]) == whole["text"]
