"""Connections of the real classes with short limits, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from unbroken.server.transports.http_protocol import HttpProtocol
from unbroken.server.transports.protocol import WebSocketProtocol

__all__ = [
    "BLOCK",
    "CLOSE_FRAME",
    "SOON",
    "TEXT_FRAME",
    "UNMASKED_FRAME",
    "UPGRADE",
    "PatientWebSocketProtocol",
    "QuickHttpProtocol",
    "QuickWebSocketProtocol",
    "Served",
    "WebSocketApplication",
    "closed",
    "collect",
    "deaf_peer",
    "done",
    "echo",
    "errors",
    "serving",
]


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


async def collect(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and take what comes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        pass


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
