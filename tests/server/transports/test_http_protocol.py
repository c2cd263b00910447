"""Connections before they are WebSockets, with peers that don't do their part."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections import Counter

import pytest
from starlette.types import Receive, Scope, Send

from tests.server.transports.exchange import Echo, Exchange
from tests.server.transports.quick import (
    TEXT_FRAME,
    UNMASKED_FRAME,
    UPGRADE,
    PatientWebSocketProtocol,
    QuickHttpProtocol,
    closed,
    collect,
    done,
    echo,
    errors,
    serving,
)
from tests.sessions.conversation import settle
from unbroken.server.transports.http_protocol import HttpProtocol


@pytest.mark.parametrize("sent", [b"", b"GET / HT", UPGRADE[:-4]], ids=["nothing", "a line", "a handshake"])
async def test_a_header_that_does_not_end_is_cut(sent: bytes) -> None:
    async with serving(done) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(sent)

        assert await closed(reader) == b""
        writer.close()


async def test_a_later_header_has_the_same_limit() -> None:
    """uvicorn's keep-alive timer stops at the first byte of the next request."""
    async with serving(done) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET / HTTP/1.1\r\nHos")

        assert await closed(reader) == b""
        writer.close()


async def test_a_header_without_end_is_not_collected() -> None:
    async with serving(done) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * (HttpProtocol.max_header_bytes + 1))

        assert await closed(reader) == b""
        writer.close()


async def test_an_address_has_only_so_many_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that becomes a WebSocket isn't among them, and one that ends makes room."""
    monkeypatch.setattr(QuickHttpProtocol, "address_of", staticmethod(str.encode))
    monkeypatch.setattr(QuickHttpProtocol, "max_address_sockets", 2)
    monkeypatch.setattr(QuickHttpProtocol, "header_timeout", 60.0)
    counted: Counter[bytes] = Counter()
    monkeypatch.setattr(QuickHttpProtocol, "_sockets", counted)
    async with serving(echo) as served:
        upgraded, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(UPGRADE)
        await upgraded.readuntil(b"\r\n\r\n")
        assert counted == {}
        writers = [(await asyncio.open_connection("127.0.0.1", served.port))[1] for _ in range(2)]
        reader, late = await asyncio.open_connection("127.0.0.1", served.port)
        assert await closed(reader) == b""
        assert counted == {b"127.0.0.1": 2}
        for each in (late, *writers, writer):
            each.close()
        async with asyncio.timeout(5):
            while counted or served.state.connections:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_headers_behind_a_body_are_not_collected(is_answered: bool) -> None:
    """As trailers of a body in chunks, they may come for as long as the application waits for its end."""

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        while not is_answered and (await receive()).get("more_body"):
            pass
        await done(scope, receive, send)

    lines = b"".join(b"x-%d: y\r\n" % number for number in range(1000))
    sent = 0
    async with serving(waiting) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        with contextlib.suppress(OSError):
            while sent < 16 << 20:
                writer.write(lines)
                await writer.drain()
                sent += len(lines)
        await closed(reader)
        writer.close()

    assert sent < 8 << 20, "what fits into the buffers on the way, and no more"


async def test_a_large_body_is_no_header() -> None:
    size = 4 * HttpProtocol.max_header_bytes
    async with serving(done) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(bytes(size))

        assert (await closed(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_the_header_limit_ends_with_the_handshake() -> None:
    """An echo takes longer than the limit, and comes."""
    async with serving(echo) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x81\x81\x00\x00\x00\x00x")

        assert await asyncio.wait_for(reader.readexactly(3), 5) == b"\x81\x01x"
        writer.close()


@pytest.mark.parametrize(
    ("header", "status"),
    [(b"Cookie: " + b"x" * 9000, (b"431", b"400")), (b"Content-Length: 5", (b"400",))],
    ids=["too large", "a body"],
)
async def test_a_handshake_that_websockets_refuses_is_answered(
    header: bytes, status: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """httptools takes it, and uvicorn doesn't look at what websockets made of it."""
    async with serving(collect, ws=PatientWebSocketProtocol) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(UPGRADE[:-2] + header + b"\r\n\r\n" + b"hello")

        assert (await closed(reader)).split(b" ")[1] in status
        writer.close()
        await served.finished()
    assert errors(caplog) == []


@pytest.mark.parametrize(
    ("header", "rest"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", b"x"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", b"123456789"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", b"x"),
    ],
    ids=["POST", "GET", "all of it", "other upgrade"],
)
async def test_what_comes_after_the_answer_keeps_nothing_open(header: bytes, rest: bytes) -> None:
    """uvicorn's keep-alive timer stops at the first byte of it, and never starts again."""
    async with serving(done) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(header)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(rest)

        await closed(reader)
        writer.close()


async def test_the_limit_after_an_answer_ends_with_the_next_request() -> None:
    """Be that an upgrade: the echo takes longer than the limit, and comes."""

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        await (done if scope["type"] == "http" else echo)(scope, receive, send)

    async with serving(both) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
        await reader.readuntil(b"ok")
        writer.write(b"x")
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x81\x81\x00\x00\x00\x00x")

        assert await asyncio.wait_for(reader.readexactly(3), 5) == b"\x81\x01x"
        writer.close()


# Handshakes that are none, or not yet.


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (UPGRADE.replace(b"Host: x\r\n", b""), b"400"),
        (UPGRADE.replace(b"Host: x\r\n", b"Host: x\r\nHost: y\r\n"), b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", b"400"),
        (UPGRADE[:-2] + b"Origin: http://a\r\nOrigin: http://b\r\n\r\n", b"400"),
        (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), b"200"),
        (UPGRADE.replace(b"HTTP/1.1", b"HTTP/2.0"), b"200"),
        (b"GET / HTTP/1.0\r\n\r\n", b"200"),
    ],
    ids=[
        *("no host", "two hosts", "a request without host", "an old request with two", "two origins"),
        *("an upgrade of HTTP/1.0", "an upgrade of HTTP/2", "an old request"),
    ],
)
async def test_what_is_no_handshake_becomes_no_websocket(request_: bytes, status: bytes) -> None:
    """Nearly all of it is taken by uvicorn. RFC 9112, 3.2: 400. RFC 9110, 7.8: HTTP/1.0 has no upgrades."""
    exchange = Exchange(Echo())
    await exchange.read(request_)

    assert exchange.written.split(b" ")[1] == status
    await exchange.end()


@pytest.mark.parametrize(
    "begin", [UPGRADE[:-2], b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["upgrade", "request"]
)
async def test_a_header_that_one_read_brings_may_not_be_larger(begin: bytes) -> None:
    """Such as a loop that reads 256 KiB at a time: all of it is there before anything was counted."""
    lines = b"".join(b"x-%d: %s\r\n" % (number, 4000 * b"x") for number in range(20))
    app = Echo()
    exchange = Exchange(app)
    await exchange.read(begin + lines + b"\r\n")

    assert exchange.written.startswith(b"HTTP/1.1 400")
    assert app.scopes == []
    await exchange.end()


@pytest.mark.parametrize(
    "behind", [UPGRADE, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["handshake", "request"]
)
async def test_who_answers_a_request_is_told_that_its_client_is_gone_whatever_came_behind(
    behind: bytes,
) -> None:
    """uvicorn: hands over the socket, or tells the request behind; and who answers waits for good."""
    begun, told = asyncio.Event(), asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    exchange = Exchange(endless)
    await exchange.read(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + behind)
    assert begun.is_set()

    await exchange.end()
    assert told.is_set()


async def test_a_handshake_behind_a_request_that_runs_is_answered_as_a_request() -> None:
    """In its turn. A server may leave an upgrade be (RFC 9110, 7.8)."""
    app = Echo()
    exchange = Exchange(app)
    await exchange.read(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n" + UPGRADE)

    assert exchange.written.count(b"HTTP/1.1 200") == 2
    assert [(scope["type"], scope["path"]) for scope in app.scopes] == [("http", "/first"), ("http", "/")]
    await exchange.end()


async def test_a_handshake_behind_an_answer_that_is_not_read_is_none() -> None:
    """The limit for an answer that isn't read would cut the WebSocket later."""
    exchange = Exchange(Echo())
    await exchange.read(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    exchange.protocol.pause_writing()
    await exchange.read(UPGRADE)
    exchange.protocol.resume_writing()
    await settle()

    assert exchange.written.count(b"HTTP/1.1 200") == 2
    await exchange.end()


@pytest.mark.parametrize("split", range(len(TEXT_FRAME) + 1))
async def test_a_frame_behind_the_handshake_is_taken_wherever_a_read_ends(split: int) -> None:
    """uvicorn: drops what comes with the handshake, and takes what comes behind it."""
    app = Echo()
    exchange = Exchange(app)
    await exchange.read(UPGRADE + TEXT_FRAME[:split], TEXT_FRAME[split:])

    assert exchange.written.startswith(b"HTTP/1.1 101")
    assert exchange.written.endswith(b"\r\n\r\n" + UNMASKED_FRAME)
    assert [message["type"] for message in app.received] == ["websocket.connect", "websocket.receive"]
    await exchange.end()


async def test_a_handshake_leaves_nothing_to_the_collector() -> None:
    """It runs seldom: what went in a circle would lie about for thousands of others."""
    exchange = Exchange(Echo())
    request = weakref.ref(exchange.http)
    gc.disable()
    try:
        await exchange.read(UPGRADE)
        del exchange.http

        assert exchange.written.startswith(b"HTTP/1.1 101")
        assert request() is None
    finally:
        gc.enable()
    await exchange.end()
