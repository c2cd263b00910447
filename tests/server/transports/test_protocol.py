"""WebSockets over real sockets, with peers that don't do their part."""

from __future__ import annotations

import asyncio
import inspect
import socket
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tests.server.transports.exchange import Echo, Exchange
from tests.server.transports.quick import (
    BLOCK,
    CLOSE_FRAME,
    TEXT_FRAME,
    UNMASKED_FRAME,
    UPGRADE,
    PatientWebSocketProtocol,
    WebSocketApplication,
    closed,
    collect,
    deaf_peer,
    echo,
    errors,
    serving,
)
from unbroken.server.transports.departure import DEPARTURE, Departing
from unbroken.server.transports.http_protocol import HttpProtocol
from unbroken.server.transports.outlet import Outlet
from unbroken.server.transports.protocol import WebSocketProtocol


async def test_it_is_told_that_a_peer_leaves_before_its_handshake_is_answered() -> None:
    """Once as it leaves, and at once to whoever asks later."""
    told = [asyncio.Event(), asyncio.Event()]
    asked = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope["extensions"][DEPARTURE]
        connection.on_departure(told[0].set)
        asked.set()
        await told[0].wait()
        connection.on_departure(None)
        connection.on_departure(told[1].set)
        assert told[1].is_set()
        with pytest.raises(OSError):
            await send({"type": "websocket.accept"})

    async with serving(app, ws=PatientWebSocketProtocol) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as peer:
            peer.sendall(UPGRADE)
            await asyncio.wait_for(asked.wait(), 5)
            assert not told[0].is_set()
        await served.finished()
    assert told[1].is_set()


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


@pytest.mark.long
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
        overridden -= {*vars(Outlet), *vars(Departing), "open"}  # its own
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
    for name in ("headers", "flow", "_should_upgrade", "_start_asgi_task"):
        assert hasattr(http_protocol, name)
    server = uvicorn.Server(config)
    for name in ("_serve", "startup", "shutdown", "should_exit", "force_exit"):
        assert hasattr(server, name)
    assert set() == server.server_state.connections


PING = b"\x89\x81\x00\x00\x00\x00p"
UNUSUAL = UPGRADE.replace(b"Connection: Upgrade", b"Connection: x, Upgrade")
"""A handshake that goes the long way."""


@pytest.mark.parametrize("upgrade", [UPGRADE, UNUSUAL], ids=["usual", "unusual"])
async def test_a_ping_before_the_answer_is_answered_behind_it(upgrade: bytes) -> None:
    """uvicorn: writes the pong first, where the client, or a proxy, expects a status line."""
    exchange = Exchange(Echo())
    await exchange.read(upgrade + 3 * PING)

    assert exchange.written.startswith(b"HTTP/1.1 101")
    assert exchange.written.endswith(b"\r\n\r\n\x8a\x01p")
    await exchange.end()


@pytest.mark.parametrize("upgrade", [UPGRADE, UNUSUAL], ids=["usual", "unusual"])
async def test_a_close_before_the_answer_is_answered_in_http(upgrade: bytes) -> None:
    exchange = Exchange(Echo())
    await exchange.read(upgrade + CLOSE_FRAME)

    assert exchange.written.startswith(b"HTTP/1.1 400")
    assert exchange.written.endswith(b"\n")  # no frame
    await exchange.end()


async def test_an_application_that_fails_behind_its_answer_has_given_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The answer was held back for a first message that never came."""

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        raise RuntimeError

    exchange = Exchange(fail)
    await exchange.read(UPGRADE)

    assert exchange.written.startswith(b"HTTP/1.1 101")
    assert exchange.transport.is_closed
    assert errors(caplog) == ["Exception in ASGI application\n"]
    await exchange.end()


@pytest.mark.parametrize("upgrade", [UPGRADE, UNUSUAL], ids=["usual", "unusual"])
async def test_an_answer_that_has_begun_is_not_turned_into_another(upgrade: bytes) -> None:
    async def undecided(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 429, "headers": []})
        with pytest.raises(RuntimeError):
            await send({"type": "websocket.accept"})
        await send({"type": "websocket.http.response.body", "body": b""})

    exchange = Exchange(undecided)
    await exchange.read(upgrade)

    assert exchange.written.startswith(b"HTTP/1.1 429")
    await exchange.end()
