"""How many may connect, from where, and how long for: over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.conformance.wire import Opcode, Peer, frame, handshake
from tests.fakes.clock import FakeClock
from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.raw import RawClient
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.auth.base import Credentials, Grant

PROXY = {"trusted_proxies": ("127.0.0.1",)}
KEY = "correct-horse-battery-staple"
KEYS = (f"alice:{hashlib.sha256(KEY.encode()).hexdigest()}",)


def through(*hops: str) -> dict[str, str]:
    """Return the header that a proxy before the server sends, of a client that came by these hops."""
    return {"X-Forwarded-For": ", ".join(hops)}


async def admitted(raw: RawClient) -> bool:
    """Return whether the connection can be had. If not, it is because of its address."""
    response = await raw.response()
    if response.status_code == 101:
        frame = await raw.next()
        return isinstance(frame, dict) and frame["type"] == "session.created"
    assert (response.status_code, response.headers["Retry-After"]) == (429, "2")
    error = json.loads(response.body or b"")["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "too_many_connections_from_address")
    assert "UNBROKEN_CONNECTIONS_PER_ADDRESS" in error["message"]
    return False


@contextlib.asynccontextmanager
async def crowd(server: Served[ScriptedAgent], *origins: dict[str, str]) -> AsyncIterator[list[bool]]:
    """Connect one after the other, and yield who was let in."""
    async with contextlib.AsyncExitStack() as stack:
        results = []
        for headers in origins:
            raw = await stack.enter_async_context(RawClient(server.port, headers=headers))
            results.append(await admitted(raw))
        yield results


async def test_an_address_behind_a_trusted_proxy_has_a_limit(serve: Serve) -> None:
    """Whoever leaves makes room; whoever else there is, isn't concerned."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), connections_per_address=3, **PROXY)
    one, other = through("203.0.113.1"), through("203.0.113.2")
    async with crowd(server, one, one, one, one, other) as results:
        assert results == [True, True, True, False, True]
    await server.no_connections()
    async with crowd(server, one, one, one) as results:
        assert results == 3 * [True]


async def test_what_a_client_says_of_itself_is_not_believed(serve: Serve) -> None:
    """Neither left of what its proxy adds, nor from an address that is no proxy's."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), connections_per_address=2, **PROXY)
    made_up = [through(f"198.51.100.{number}", "203.0.113.1") for number in range(3)]
    async with crowd(server, *made_up) as results:
        assert results == [True, True, False]


async def test_without_trusted_proxies_the_header_is_nothing(serve: Serve) -> None:
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), connections_per_address=1)
    async with crowd(server, *3 * [through("203.0.113.1")]) as results:
        assert results == 3 * [True], "this machine has no limit"


async def test_an_ipv6_network_of_64_bits_is_one_address(serve: Serve) -> None:
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), connections_per_address=2, **PROXY)
    addresses = ["2001:db8:0:1::1", "2001:db8:0:1:a::1", "2001:db8:0:1:b::1", "2001:db8:0:2::1"]
    async with crowd(server, *map(through, addresses)) as results:
        assert results == [True, True, False, True]


async def test_a_browser_is_told_of_its_address_in_a_frame(serve: Serve) -> None:
    """And with a code that has official clients come back later."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), connections_per_address=1, **PROXY)
    origin = {"Origin": f"http://127.0.0.1:{server.port}"}
    page = RawClient(server.port, headers={**through("203.0.113.1"), **origin})
    async with crowd(server, through("203.0.113.1")), page as raw:
        assert (await raw.response()).status_code == 101
        event, *others = await raw.rest()
    assert isinstance(event, dict)
    assert event["error"]["code"] == "too_many_connections_from_address"
    assert (others, raw.close_code) == ([], 1013)


async def test_a_key_has_a_limit_over_all_its_sessions(serve: Serve) -> None:
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), connections_per_principal=2)
    first = await server.client("alice")
    await server.tab(first)
    async with RawClient(server.port, "alice") as raw:
        response = await raw.response()
    assert response.status_code == 429
    assert json.loads(response.body or b"")["error"]["code"] == "too_many_connections_of_key"
    await server.client("bob")
    await first.drop()
    await eventually(lambda: server.app.admission.connections == 2)
    await first.resume()


async def test_a_node_has_a_limit(serve: Serve) -> None:
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), max_connections=2)
    first = await server.client("alice")
    await server.tab(first)
    async with RawClient(server.port, "bob") as raw:
        response = await raw.response()

    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert json.loads(response.body or b"")["error"]["code"] == "server_full"


async def test_whoever_tries_too_many_keys_has_to_wait(serve: Serve) -> None:
    """With right ones too: else trying would go on. Others don't have to."""
    clock = FakeClock()
    server: Served[ScriptedAgent] = await serve(
        ScriptedAgent(), api_keys=KEYS, auth_failures=3, clock=clock, **PROXY
    )
    one, other = through("203.0.113.1"), through("203.0.113.2")

    async def status(key: str, headers: dict[str, str]) -> tuple[int, int]:
        async with RawClient(server.port, key, headers=headers) as raw:
            response = await raw.response()
            return response.status_code, int(response.headers.get("Retry-After", 0))

    assert [await status("wrong", one) for _ in range(3)] == 3 * [(401, 0)]
    assert await status("wrong", one) == (429, 20)
    assert await status(KEY, one) == (429, 20)
    assert await status(KEY, other) == (101, 0)
    clock.advance(20)
    assert await status(KEY, one) == (101, 0)


async def test_whoever_connects_too_often_has_to_wait(serve: Serve) -> None:
    """Whatever became of the earlier attempts, and before a key is looked at. Others don't have to."""
    clock = FakeClock()
    server: Served[ScriptedAgent] = await serve(
        ScriptedAgent(), api_keys=KEYS, rate_handshakes=0.4, clock=clock, **PROXY
    )
    one, other = through("203.0.113.1"), through("203.0.113.2")

    async def answer(key: str, headers: dict[str, str]) -> tuple[int, str | None]:
        async with RawClient(server.port, key, headers=headers) as raw:
            response = await raw.response()
            return response.status_code, response.headers.get("Retry-After")

    assert [await answer(key, one) for key in (KEY, "wrong", KEY, "wrong")] == 2 * [(101, None), (401, None)]
    assert [await answer(key, one) for key in (KEY, "wrong")] == 2 * [(429, "3")]
    assert await answer(KEY, other) == (101, None)
    origin = {"Origin": f"http://127.0.0.1:{server.port}"}
    async with RawClient(server.port, KEY, headers={**one, **origin}) as page:
        assert (await page.response()).status_code == 101
        event, *others = await page.rest()
    assert isinstance(event, dict)
    assert event["error"]["code"] == "too_many_handshakes"
    assert (others, page.close_code) == ([], 1013)
    clock.advance(3)
    assert [await answer(KEY, one) for _ in range(2)] == [(101, None), (429, "2")]


async def test_who_sends_too_fast_is_held_back_and_nothing_is_lost(serve: Serve) -> None:
    """Over any transport: what comes beyond the rate is taken later."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), rate_messages=200, burst_messages=10)
    async with RawClient(server.port) as raw:
        await raw.response()
        assert isinstance(await raw.next(), dict)
        await raw.send(*[{"type": "nonsense", "event_id": str(number)} for number in range(60)])
        errors = [await raw.next() for _ in range(60)]

    told = [event["error"]["event_id"] for event in errors if isinstance(event, dict)]
    assert told == [str(number) for number in range(60)]


async def test_every_way_to_come_and_go_gives_the_place_back(serve: Serve) -> None:
    server: Served[ScriptedAgent] = await serve(
        ScriptedAgent(), api_keys=KEYS, connections_per_address=4, auth_failures=1000, **PROXY
    )
    admission = server.app.admission
    for number in range(60):
        key = "wrong" if number % 5 == 4 else KEY
        origin = {"Origin": "http://evil.example"} if number % 7 == 6 else {}
        token = "&resume=rt_bad" if number % 6 == 5 else ""
        headers = {"Authorization": f"Bearer {key}", "X_Forwarded_For": "203.0.113.1", **origin}
        async with Peer(server.port) as peer:
            await peer.send(handshake(f"/v1/realtime?model=default{token}", **headers))
            if number % 3:
                await peer.header()
            match number % 4:
                case 0:
                    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                case 1:
                    await peer.send(frame(Opcode.CLOSE))
                case 2:
                    await peer.send(b"\xff\xff")
                case _:
                    peer.socket.shutdown(socket.SHUT_WR)
        await eventually(lambda: admission.is_empty)
    async with crowd(server, *4 * [{**through("203.0.113.1"), "Authorization": f"Bearer {KEY}"}]) as results:
        assert results == 4 * [True]


async def test_a_connection_on_which_nothing_is_said_is_closed_and_comes_back(serve: Serve) -> None:
    """Where the operator wants that: with a code after which official clients don't return by themselves."""
    clock = FakeClock()
    server: Served[ManualAgent] = await serve(
        ManualAgent(), clock=clock, connection_idle_timeout=100, stall_timeout=1000
    )
    client = await server.client()
    await client.ask("hi")
    turn = await server.agent.turn(0)
    clock.advance(50)
    clock.advance(50)
    clock.advance(50)
    turn.say("still here")
    await client.said("still here")
    turn.end()
    await client.done()
    clock.advance(99)
    await client.sync()
    clock.advance(99)
    await client.sync()
    clock.advance(126)

    assert await client.closed() == 1000
    await client.resume()
    assert client.resumed is True


async def test_an_official_client_is_told_that_it_ended_and_does_not_return(serve: Serve) -> None:
    clock = FakeClock()
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), clock=clock, connection_idle_timeout=100)
    client: AsyncOpenAI = await server.openai()
    returns: list[Any] = []

    def on_reconnecting(event: Any) -> None:
        returns.append(event)

    async with client.realtime.connect(model="default", on_reconnecting=on_reconnecting) as connection:
        kinds = []
        async for event in connection:
            kinds.append(event.type)
            clock.advance(126)
    assert kinds == ["session.created"]
    assert returns == []


async def test_by_default_an_idle_connection_stays(serve: Serve) -> None:
    clock = FakeClock()
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), clock=clock)
    client = await server.client()
    await client.ask("hi")
    await client.done()
    clock.advance(3600)
    await client.sync()


async def test_pings_keep_nobody_from_being_idle(serve: Serve) -> None:
    clock = FakeClock()
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), clock=clock, connection_idle_timeout=100)
    async with RawClient(server.port) as raw:
        await raw.response()
        await raw.next()
        for _ in range(5):
            await raw.ping(b"p")
            assert await raw.next() == b"p"
            clock.advance(25)
        await raw.rest()
        assert raw.close_code == 1000


async def test_a_handshake_has_the_time_that_is_set(serve: Serve) -> None:
    """However steadily its header comes."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), handshake_timeout=0.2)
    async with Peer(server.port) as slow, Peer(server.port) as mute:
        ended = asyncio.ensure_future(slow.rest())
        for byte in handshake()[:-4] + b"\r\nX: " + 100_000 * b"x":
            if ended.done():
                break
            await slow.send(bytes((byte,)))
            await asyncio.sleep(0)  # the server reads it
        assert await ended == b""
        assert await mute.rest() == b""
    await server.no_connections()


async def test_sockets_beyond_those_that_may_be_are_closed(serve: Serve) -> None:
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), max_connections=1)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(1001):
            await stack.enter_async_context(Peer(server.port))
        beyond = await stack.enter_async_context(Peer(server.port))
        assert await beyond.rest() == b""
    await server.no_connections()
    await server.client()


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_too_many_pings_are_closed_with_a_reason(serve: Serve, opcode: Opcode) -> None:
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), rate_pings=2)
    async with Peer(server.port) as peer:
        await peer.upgrade()
        await peer.next()
        await peer.send(30 * frame(opcode))
        while (event := await peer.next()) is not None and event[0] != Opcode.CLOSE:
            pass

    assert event is not None
    assert event[1] == (1008).to_bytes(2, "big") + b"too many pings: at most 2 a second"


@contextlib.asynccontextmanager
async def all_turns_taken(server: Served[Any]) -> AsyncIterator[None]:
    """Have nobody's turn come: these don't lose their places, however long they keep them."""
    server.app.turnstile._tick = 3600.0
    async with contextlib.AsyncExitStack() as crowd:
        for _ in range(16):
            await crowd.enter_async_context(server.app.turnstile.turn())
        yield


async def test_who_gives_up_as_a_crowd_is_served_is_not_looked_at(serve: Serve) -> None:
    """Else the server works for those that have come anew meanwhile."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), trusted_proxies=("127.0.0.1",))
    turnstile = server.app.turnstile
    turnstile._longest = 3600.0
    async with all_turns_taken(server):
        async with RawClient(server.port):
            await eventually(lambda: turnstile.waiting == 1)
            assert b"unbroken_handshakes_waiting 1.0" in server.app.metrics.exposition()
        await eventually(lambda: turnstile.waiting == 0)
    assert server.app.admission.connections == 0
    assert len(server.app.node.hub) == 0
    await server.client("alice")


def has_begun_sessions(server: Served[ScriptedAgent]) -> bool:
    return b'unbroken_sessions_attached_total{result="new"}' in server.app.metrics.exposition()


async def test_who_leaves_in_the_moment_in_which_its_turn_comes_costs_no_session(serve: Serve) -> None:
    server: Served[ScriptedAgent] = await serve(ScriptedAgent())
    turnstile = server.app.turnstile
    async with all_turns_taken(server), RawClient(server.port):
        await eventually(lambda: turnstile.waiting == 1)
        (connection,) = server.server.server_state.connections
        connection.transport.abort()
        turnstile.open()
        await server.idle()
    assert not has_begun_sessions(server)
    await server.client("alice")
    assert has_begun_sessions(server)


async def test_who_leaves_while_its_key_is_looked_at_costs_no_session(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a place for it, and so nobody waits who would be told."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent())
    authenticator = server.app.auth.authenticator
    authenticate, is_asked, may_answer = authenticator.authenticate, asyncio.Event(), asyncio.Event()

    async def slowly(credentials: Credentials) -> Grant:
        is_asked.set()
        await may_answer.wait()
        return await authenticate(credentials)

    monkeypatch.setattr(authenticator, "authenticate", slowly)
    async with RawClient(server.port):
        await asyncio.wait_for(is_asked.wait(), WAIT)
    await server.no_connections()
    may_answer.set()
    await server.idle()
    assert not has_begun_sessions(server)
    await server.client("alice")
    assert has_begun_sessions(server)


async def test_who_is_refused_by_a_cap_waits_for_no_turn(serve: Serve) -> None:
    """Nor does it take one, while room is looked for: many of them would keep everybody out."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), connections_per_principal=1)
    await server.client("alice")
    async with all_turns_taken(server), RawClient(server.port, "alice") as raw:
        assert (await raw.response()).status_code == 429


@pytest.mark.parametrize(
    ("end", "code"),
    [("signal", "server_draining"), ("command", "server_draining"), ("late", "server_overloaded")],
    ids=["signal", "command", "late"],
)
async def test_who_waits_in_vain_is_told_to_come_again(serve: Serve, end: str, code: str) -> None:
    server: Served[ScriptedAgent] = await serve(ScriptedAgent())
    turnstile = server.app.turnstile
    if end == "late":
        turnstile._longest = 0.01
    async with all_turns_taken(server), RawClient(server.port, "alice") as raw:
        if end != "late":
            await eventually(lambda: turnstile.waiting == 1)
            (server.app.begin_drain if end == "signal" else server.app.drain.begin)()
        response = await raw.response()
    assert response.status_code == 503
    assert json.loads(response.body or b"")["error"]["code"] == code
    assert int(response.headers["Retry-After"]) > 0
