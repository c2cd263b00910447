"""Connections over real sockets, with peers that don't do their part."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from unbroken.server.transports.http_protocol import HttpProtocol
from unbroken.server.transports.outlet import Outlet
from unbroken.server.transports.protocol import WebSocketProtocol

SOON = 0.05
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
CLOSE_FRAME = b"\x88\x80\x00\x00\x00\x00"
TEXT_FRAME = b"\x81\x81\x00\x00\x00\x00x"
UNMASKED_FRAME = b"\x81\x01x"
BLOCK = bytes(1 << 20)


class QuickWebSocketProtocol(WebSocketProtocol):
    """The real class with short limits."""

    flush_timeout = SOON
    handshake_timeout = SOON

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.close_timeout = SOON

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.app_state["gone"].set()


class PatientWebSocketProtocol(QuickWebSocketProtocol):
    """For what has to end by itself, before any limit."""

    flush_timeout = 60.0
    handshake_timeout = 60.0


class QuickHttpProtocol(HttpProtocol):
    header_timeout = SOON
    rest_timeout = SOON


class WebSocketApplication:
    """Sends more than any buffer holds, then does what the test says."""

    def __init__(self, *, closes: bool = False) -> None:
        self._closes = closes
        self.stuck = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sender = asyncio.create_task(self._fill(send))
        await self.stuck.wait()
        if self._closes:
            # uvicorn says so when the connection goes while this waits.
            with contextlib.suppress(Exception):
                await send({"type": "websocket.close", "code": 1013})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        sender.cancel()
        await asyncio.wait([sender])

    async def _fill(self, send: Send) -> None:
        while True:
            try:
                async with asyncio.timeout(0.2):
                    await send({"type": "websocket.send", "bytes": BLOCK})
            except TimeoutError:
                self.stuck.set()
                return


@dataclass
class Served:
    port: int
    state: ServerState
    gone: asyncio.Event
    """A WebSocket's transport has been closed."""

    async def finished(self) -> None:
        """Return when uvicorn has let go of the WebSocket and its task."""
        async with asyncio.timeout(5):
            await self.gone.wait()
            await asyncio.gather(*self.state.tasks)
        assert self.state.connections == set()


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    ping: float | None = None,
    ws: type[QuickWebSocketProtocol] = QuickWebSocketProtocol,
) -> AsyncIterator[Served]:
    """Serve *app* with short limits."""
    config = uvicorn.Config(
        app,
        ws=ws,
        interface="asgi3",
        ws_per_message_deflate=False,
        ws_ping_interval=ping,
        ws_ping_timeout=ping,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )
    config.load()
    state = ServerState()
    shared = {"gone": asyncio.Event()}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: QuickHttpProtocol(config, state, shared, loop), "127.0.0.1", 0)
    try:
        yield Served(server.sockets[0].getsockname()[1], state, shared["gone"])
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)


@contextlib.contextmanager
def deaf_peer(port: int) -> Any:
    """A client with a small buffer that is asked for nothing more than the test reads."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(UPGRADE)
        yield sock


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Return what comes before the end of the connection, however it ends."""
    received = b""
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                received += chunk
    return received


async def done(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer an HTTP request, later than a header may take."""
    await asyncio.sleep(3 * SOON)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await asyncio.sleep(3 * SOON)
        await send({"type": "websocket.send", "text": message["text"]})


async def test_a_peer_that_answers_no_ping_is_cut() -> None:
    """Its buffer is full: a close that waits for the flush would last as long as the peer likes."""
    app = WebSocketApplication()
    async with serving(app, ping=0.3) as served:
        with deaf_peer(served.port):
            await asyncio.wait_for(app.stuck.wait(), 5)
            await served.finished()


async def test_a_slow_reader_can_be_closed() -> None:
    """uvicorn would wait for it to read before it even sent the close frame."""
    app = WebSocketApplication(closes=True)
    async with serving(app) as served:
        with deaf_peer(served.port):
            await asyncio.wait_for(app.stuck.wait(), 5)
            await served.finished()


@pytest.mark.parametrize("frame", [CLOSE_FRAME, UNMASKED_FRAME], ids=["close", "malformed"])
async def test_a_peer_that_ends_and_does_not_read_is_cut(frame: bytes) -> None:
    app = WebSocketApplication()
    async with serving(app) as served:
        with deaf_peer(served.port) as peer:
            await asyncio.wait_for(app.stuck.wait(), 5)
            peer.sendall(frame)
            await served.finished()


async def test_shutdown_cuts_who_does_not_read() -> None:
    app = WebSocketApplication()
    async with serving(app) as served:
        with deaf_peer(served.port):
            await asyncio.wait_for(app.stuck.wait(), 5)
            for connection in list(served.state.connections):
                connection.shutdown()
            await served.finished()


async def test_an_orderly_end_is_not_cut_short() -> None:
    """A peer that reads gets every byte and the close frame with its code."""

    async def farewell(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": BLOCK})
        await send({"type": "websocket.close", "code": 1013})

    async with serving(farewell) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        received = await closed(reader)
        writer.close()
        await served.finished()

    assert received.endswith(b"\x88\x02" + (1013).to_bytes(2, "big"))
    assert len(BLOCK) + 10 + 4 == len(received)


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


async def collect(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and take what comes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        pass


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


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


async def test_a_handshake_that_is_never_complete_is_cut() -> None:
    async def mute(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async with serving(mute) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(UPGRADE)

        assert await closed(reader) == b""
        writer.close()
        await served.finished()


@pytest.mark.parametrize(
    "frame",
    [UNMASKED_FRAME, b"\x81\x81\x00\x00\x00\x00\xff", CLOSE_FRAME],
    ids=["malformed", "not UTF-8", "close"],
)
async def test_a_frame_before_the_answer_is_no_error_of_ours(
    frame: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    connected = asyncio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        connected.set()
        await receive()

    async with serving(late, ws=PatientWebSocketProtocol) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(UPGRADE)
        await asyncio.wait_for(connected.wait(), 5)
        writer.write(frame)

        assert not (await closed(reader)).startswith(b"HTTP/1.1 101")
        writer.close()
        await served.finished()
    assert errors(caplog) == []


@pytest.mark.parametrize(
    "frames",
    [
        b"\x81\x81\x00\x00\x00\x00\xff",
        b"\x01\x81\x00\x00\x00\x00\xe2" + b"\x80\x81\x00\x00\x00\x00x",
        2 * b"\x81\x81\x00\x00\x00\x00\xff" + b"\x89\x80\x00\x00\x00\x00",
    ],
    ids=["one frame", "two frames", "two messages"],
)
async def test_text_that_is_not_utf8_is_no_error_of_ours(
    frames: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(collect, ws=PatientWebSocketProtocol) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frames)

        assert (1007).to_bytes(2, "big") in await closed(reader)
        writer.close()
        await served.finished()
    assert errors(caplog) == []


async def test_text_that_is_not_utf8_before_a_close_is_no_error_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """websockets has already answered the close frame when uvicorn looks at the text."""
    async with serving(collect, ws=PatientWebSocketProtocol) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x81\x81\x00\x00\x00\x00\xff" + CLOSE_FRAME)

        assert await closed(reader) == b"\x88\x00"
        writer.close()
        await served.finished()
    assert errors(caplog) == []


@pytest.mark.parametrize(
    "last", [b"\x89\x81\x00\x00\x00\x00p", CLOSE_FRAME], ids=["pings", "pings and a close"]
)
async def test_pongs_for_a_peer_that_does_not_read_are_not_collected(last: bytes) -> None:
    """Once it reads, it gets one, for its latest ping; or, having closed, the answer to that."""
    stuck, seen = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": 16 * BLOCK})
        stuck.set()
        while (await receive())["type"] == "websocket.receive":
            seen.set()

    ping = b"\x89\xfd" + bytes(4) + bytes(125)
    async with serving(app, ws=PatientWebSocketProtocol) as served:
        with deaf_peer(served.port) as peer:
            await asyncio.wait_for(stuck.wait(), 5)
            (connection,) = served.state.connections
            before = connection.transport.get_write_buffer_size()
            assert before > len(BLOCK)
            await asyncio.wait_for(asyncio.to_thread(peer.sendall, 40_000 * ping), 10)
            await asyncio.to_thread(peer.sendall, TEXT_FRAME)
            await asyncio.wait_for(seen.wait(), 10)
            assert connection.transport.get_write_buffer_size() <= before

            # What follows in the same segment shows that it was looked at before any of this was read.
            seen.clear()
            await asyncio.to_thread(peer.sendall, TEXT_FRAME + 10 * ping + last)
            await asyncio.wait_for(seen.wait(), 10)
            expected = b"\x88\x00" if last == CLOSE_FRAME else b"\x8a\x01p"

            def drain() -> bytes:
                tail = b""
                peer.settimeout(10)
                while not tail.endswith(expected):
                    chunk = peer.recv(1 << 20)
                    assert chunk
                    tail = (tail + chunk)[-300:]
                return tail

            tail = await asyncio.to_thread(drain)
            assert b"\x8a\x7d" not in tail, "one of the earlier pongs"


async def test_pings_of_a_peer_that_reads_are_answered() -> None:
    async with serving(collect) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(3 * b"\x89\x81\x00\x00\x00\x00p")

        assert await asyncio.wait_for(reader.readexactly(9), 5) == 3 * b"\x8a\x01p"
        writer.close()


@pytest.mark.parametrize("kind", [b"\x01", b"\x02"], ids=["text", "binary"])
async def test_a_message_of_endless_fragments_is_not_collected(kind: bytes) -> None:
    """They are empty, so that websockets' limit in bytes is never reached."""
    async with serving(collect, ws=PatientWebSocketProtocol) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(kind + b"\x80\x00\x00\x00\x00")
        writer.write(5 * WebSocketProtocol.max_fragments * b"\x00\x80\x00\x00\x00\x00")

        received = await closed(reader)
        assert received[:1] == b"\x88"
        assert received[2:4] == (1009).to_bytes(2, "big")
        writer.close()
        await served.finished()


async def test_a_message_may_have_as_many_fragments_as_the_limit() -> None:
    async with serving(echo) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x01\x80\x00\x00\x00\x00")
        writer.write((WebSocketProtocol.max_fragments - 2) * b"\x00\x80\x00\x00\x00\x00")
        writer.write(b"\x80\x81\x00\x00\x00\x00x")

        assert await asyncio.wait_for(reader.readexactly(3), 5) == b"\x81\x01x"
        writer.close()


async def test_shutdown_after_the_peer_closed_does_not_fail() -> None:
    """uvicorn would send a second close frame, for which websockets raises."""
    stuck, left = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": 16 * BLOCK})
        stuck.set()
        await receive()
        left.set()

    async with serving(app, ws=PatientWebSocketProtocol) as served:
        with deaf_peer(served.port) as peer:
            await asyncio.wait_for(stuck.wait(), 5)
            peer.sendall(CLOSE_FRAME)
            await asyncio.wait_for(left.wait(), 5)
            (connection,) = served.state.connections
            connection.shutdown()
            assert connection.transport.is_closing()


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


async def test_uvicorn_has_what_the_overrides_rely_on() -> None:
    """They use what uvicorn doesn't document: a version without it has to be looked at."""
    assert uvicorn.__version__.startswith("0.54."), "read the changes, then move this and pyproject.toml"
    config = uvicorn.Config(echo, ws=WebSocketProtocol, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    socket_protocol = WebSocketProtocol(config, state, {})
    http_protocol = HttpProtocol(config, state, {}, loop)

    for ours in (WebSocketProtocol, HttpProtocol):
        uvicorns: Any = ours.__base__
        mine = {name for name, member in vars(ours).items() if inspect.isfunction(member)}
        overridden = {name for name in mine if not name.startswith("_") or name == "__init__"}
        overridden -= {*vars(Outlet), "open"}  # its own
        assert set() == {name for name in overridden if not hasattr(uvicorns, name)}
        assert list(inspect.signature(uvicorns).parameters) == [
            "config",
            "server_state",
            "app_state",
            "_loop",
        ]
    for name in ("transport", "loop", "disconnected", "close_timeout", "close_timer", "writable", "queue"):
        assert hasattr(socket_protocol, name)
    for name in ("read_paused", "pending_ping_payload", "pong_timer", "stop_keepalive", "schedule_ping"):
        assert hasattr(socket_protocol, name)
    for name in ("conn", "frames", "curr_msg_data_type", "handshake_complete", "close_sent"):
        assert hasattr(socket_protocol, name)
    for name in (
        "on_task_complete",
        "default_headers",
        "start_keepalive",
        "tasks",
        "server",
        "client",
        "scheme",
    ):
        assert hasattr(socket_protocol, name)
    for name in (
        "state",
        "parser",
        "handshake_exc",
        "parser_exc",
        "close_sent",
        "events",
        "data_to_send",
        "reject",
        "fail",
    ):
        assert hasattr(socket_protocol.conn, name)
    assert "response_complete" in inspect.getsource(HttpToolsProtocol.on_body)
    for name in ("transport", "loop", "parser", "cycle", "timeout_keep_alive_task", "ws_protocol_class"):
        assert hasattr(http_protocol, name)
    server = uvicorn.Server(config)
    for name in ("_serve", "startup", "shutdown", "should_exit", "force_exit"):
        assert hasattr(server, name)
    assert set() == server.server_state.connections
