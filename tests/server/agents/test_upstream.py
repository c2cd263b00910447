"""The upstream's connections: how many, by way of whom, and when they are given back."""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import httpx2
import pytest

from tests.fakes.dialects import ChatDialect
from tests.fakes.http_peer import Peer, PeerServer
from tests.fakes.upstream import RESPONSE_ID, FakeUpstream, Wire
from tests.server.agents.agent_contract import collect, text_of, turn
from tests.server.agents.upstream_contract import KEY, Observed, fails
from unbroken.server.agents.base import (
    AgentBusy,
    AgentError,
    UpstreamCut,
    UpstreamRejected,
    UpstreamStalled,
    UpstreamUnavailable,
)
from unbroken.server.agents.http_transport import HttpTransport
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.responses import ResponsesAgent
from unbroken.server.agents.upstream import Upstream

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)


@pytest.fixture
async def server() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as server:
        yield server


def upstream_at(base_url: str, **settings: Any) -> Upstream:
    return Upstream(**{"base_url": base_url, "api_key": KEY, "max_retries": 0, **settings})


@pytest.fixture
async def narrow(server: FakeUpstream) -> AsyncIterator[OpenAIAgent]:
    """An agent that has one connection."""
    agent = OpenAIAgent(upstream_at(server.base_url, max_connections=1), model="m")
    await agent.start()
    yield agent
    await agent.stop()


async def is_free(agent: OpenAIAgent, server: FakeUpstream) -> bool:
    """Have one more turn, which waits for nobody."""
    server.answer("free")
    return text_of(await collect(agent, turn("hi"))) == "free"


async def is_waited_for(agent: OpenAIAgent | ResponsesAgent, count: int = 1) -> None:
    """Return once so many wait for a place."""
    free = agent._upstream._places
    while len(free._waiters or ()) < count:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0)


# How many.


async def test_turn_waits_for_the_one_before_it(narrow: OpenAIAgent, server: FakeUpstream) -> None:
    may_end = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.begin()
        await wire.text("first")
        await may_end.wait()
        await wire.finish()

    server.script(script)
    server.answer("second")
    first = asyncio.ensure_future(collect(narrow, turn("hi")))
    await server.request(0)
    second = asyncio.ensure_future(collect(narrow, turn("hi")))
    await is_waited_for(narrow)
    assert len(server.requests) == 1
    may_end.set()

    assert text_of(await first) == "first"
    assert text_of(await second) == "second"
    assert server.connections == 1


async def test_turn_that_waited_in_vain_is_busy_and_takes_nothing(
    server: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.server.agents.upstream._CONNECT_SECONDS", 0.25)
    observed = Observed()
    upstream = upstream_at(server.base_url, max_connections=1, max_retries=2, observer=observed)
    agent = OpenAIAgent(upstream, model="m")
    await agent.start()
    server.never_ending()
    async with aclosing(agent.respond(turn("hi"))) as first:
        await anext(first)
        for _ in range(2):
            await fails(agent, AgentBusy)

    assert await is_free(agent, server)
    assert observed.outcomes == ["agent_busy", "agent_busy", "stopped", "completed"]
    assert observed.requests == ["first", "first"]
    assert len(server.requests) == 2
    await agent.stop()


async def test_place_is_another_s_while_a_request_waits_to_be_tried_again(server: FakeUpstream) -> None:
    agent = OpenAIAgent(upstream_at(server.base_url, max_connections=1, max_retries=1), model="m")
    await agent.start()
    server.status(429, headers={"Retry-After": "3"})
    first = asyncio.ensure_future(collect(agent, turn("hi")))
    await (await server.request(0)).finished.wait()
    server.answer("meanwhile")
    server.answer("at last")

    assert text_of(await collect(agent, turn("hi"))) == "meanwhile"
    assert not first.done()
    assert text_of(await first) == "at last"
    await agent.stop()


@pytest.mark.parametrize("seconds", [5.0, 60.0])
async def test_silence_is_bounded_as_is_said(server: FakeUpstream, seconds: float) -> None:
    """Five seconds is what the HTTP client has by default, and the package passes over."""
    agent = OpenAIAgent(upstream_at(server.base_url, timeout=seconds), model="m")
    await agent.start()

    assert agent._upstream.client.timeout == httpx2.Timeout(seconds, connect=5.0, pool=5.0)
    await agent.stop()


@pytest.mark.parametrize("how", ["cut", "refused", "stalled"])
async def test_failed_turn_gives_its_place_back(server: FakeUpstream, how: str) -> None:
    agent = OpenAIAgent(upstream_at(server.base_url, max_connections=1, timeout=0.25), model="m")
    await agent.start()
    if how == "cut":
        server.cut_after(1)
        await fails(agent, UpstreamCut)
    elif how == "refused":
        server.status(400)
        await fails(agent, UpstreamRejected)
    else:
        server.stall_before_head()
        await fails(agent, UpstreamStalled)

    assert await is_free(agent, server)
    await agent.stop()


@pytest.mark.parametrize("is_streaming", [True, False])
async def test_cancelled_turn_gives_its_place_back(
    narrow: OpenAIAgent, server: FakeUpstream, is_streaming: bool
) -> None:
    if is_streaming:
        server.never_ending()
    else:
        server.stall_before_head()
    task = asyncio.ensure_future(collect(narrow, turn("hi")))
    request = await server.request(0)
    while is_streaming and not request.sent:  # noqa: ASYNC110 - it is counted, and told to nobody
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await request.disconnected.wait()
    assert await is_free(narrow, server)


async def test_turn_that_is_cancelled_as_it_waits_takes_nobody_s_place(
    narrow: OpenAIAgent, server: FakeUpstream
) -> None:
    server.never_ending()
    async with aclosing(narrow.respond(turn("hi"))) as first:
        await anext(first)
        server.answer("patient")
        waiting = [asyncio.ensure_future(collect(narrow, turn("hi"))) for _ in range(3)]
        await is_waited_for(narrow, 3)
        waiting[0].cancel()
        waiting[2].cancel()

    for cancelled in (waiting[0], waiting[2]):
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    assert text_of(await waiting[1]) == "patient"
    assert await is_free(narrow, server)
    assert len(server.requests) == 3


async def test_what_stops_a_response_waits_for_no_place(server: FakeUpstream) -> None:
    """It makes room; and where there is none, the upstream would go on for nobody."""
    agent = ResponsesAgent(upstream_at(server.base_url, max_connections=1), model="m", background=True)
    await agent.start()
    server.never_ending()
    server.never_ending()
    async with aclosing(agent.respond(turn("hi"))) as outputs:
        async for output in outputs:
            if isinstance(output, str):
                break
        waiting = asyncio.ensure_future(collect(agent, turn("hi")))
        await is_waited_for(agent)
    await server.request(1)

    await agent.stop()
    with suppress(AgentError):
        await waiting
    assert server.cancelled[:1] == [RESPONSE_ID]


async def test_connections_that_are_refused_cost_no_place() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        agent = OpenAIAgent(upstream_at(url, max_connections=2), model="m")
        await agent.start()
        for _ in range(3):
            await fails(agent, UpstreamUnavailable)

        assert agent._upstream._places._value == 2
        await agent.stop()


async def test_places_are_as_many_as_before_whatever_became_of_their_turns(server: FakeUpstream) -> None:
    agent = OpenAIAgent(upstream_at(server.base_url, max_connections=2, max_retries=1), model="m")
    await agent.start()
    for what in ("fine", "cut", "refused"):
        if what == "cut":
            server.cut_after(1)
        elif what == "refused":
            server.status(400)
        with suppress(AgentError):
            await collect(agent, turn("hi"))

    assert agent._upstream._places._value == 2
    await agent.stop()


async def test_nothing_is_kept_of_what_an_upstream_sets(server: FakeUpstream) -> None:
    """Turns are of different users; and a name that can't be sent again would fail all that follow."""

    async def script(wire: Wire) -> None:
        wire.head(headers={"Set-Cookie": "whose=ann"})
        await wire.text("set")
        await wire.finish()

    server.script(script)
    agent = OpenAIAgent(upstream_at(server.base_url), model="m")
    await agent.start()
    await collect(agent, turn("hi"))

    assert text_of(await collect(agent, turn("hi"))) == "Hello world"
    assert "cookie" not in server.requests[1].headers
    await agent.stop()


# By way of whom.


async def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []

    async def proxy(peer: Peer) -> None:
        heads.append(await peer.head())
        dialect = ChatDialect()
        events = [dialect.text("by proxy"), *dialect.ending("stop", {})]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        await peer.send(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\n" + body.encode()
        )

    async with PeerServer(proxy, tls=None) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        agent = OpenAIAgent(upstream_at("http://upstream.invalid/v1"), model="m")
        await agent.start()

        assert text_of(await collect(agent, turn("hi"))) == "by proxy"
        await agent.stop()

    assert heads[0].startswith(b"POST http://upstream.invalid/v1/chat/completions HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("name", "is_own"),
    [
        ("", True),
        ("NO_PROXY", True),
        ("no_proxy", True),
        ("FTP_PROXY", True),
        ("http_proxy", False),
        ("HTTPS_PROXY", False),
        ("ALL_PROXY", False),
    ],
)
async def test_transport_of_our_own_is_used_where_no_proxy_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, is_own: bool
) -> None:
    if name:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    upstream = upstream_at("http://127.0.0.1:9/v1")
    await upstream.start()

    assert isinstance(upstream.client._client._transport, HttpTransport) == is_own
    await upstream.stop()


async def test_user_and_password_of_the_address_are_shown_as_before(server: FakeUpstream) -> None:
    base_url = server.base_url.replace("http://", "http://ann:pass%40word@")
    agent = OpenAIAgent(upstream_at(base_url), model="m")
    await agent.start()

    await collect(agent, turn("hi"))

    await agent.stop()
    [request] = server.requests
    assert request.headers["authorization"] == f"Basic {b64encode(b'ann:pass@word').decode()}"
    assert "@" not in request.path


async def test_stopping_closes_connections_in_use_and_idle(server: FakeUpstream) -> None:
    agent = OpenAIAgent(upstream_at(server.base_url), model="m")
    await agent.start()
    server.never_ending()
    outputs = agent.respond(turn("hi"))
    await anext(outputs)
    await collect(agent, turn("hi"))
    await agent.stop()

    with pytest.raises(UpstreamCut):
        async for _ in outputs:
            pass
    await server.requests[0].disconnected.wait()
