"""One connection without a socket: the test says what each read brings, and sees what is written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from tests.fakes.transport import FakeTransport
from tests.sessions.conversation import settle
from unbroken.server.transports.http_protocol import HttpProtocol
from unbroken.server.transports.protocol import WebSocketProtocol

__all__ = ["Echo", "Exchange", "cut"]


class Echo:
    """Answers requests with 200, and WebSockets with what they say. It keeps what it was told."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        self.received.append(await receive())
        offered = scope["subprotocols"]
        await send({"type": "websocket.accept", "subprotocol": "realtime" if "realtime" in offered else None})
        while True:
            message = await receive()
            self.received.append(message)
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": message.get("text", "")})


class Exchange:
    """One connection. Everything ends with :meth:`end`."""

    def __init__(
        self,
        app: ASGIApp,
        http: type[asyncio.Protocol] = HttpProtocol,
        ws: type[asyncio.Protocol] = WebSocketProtocol,
    ) -> None:
        config = uvicorn.Config(
            app,
            ws=ws,
            interface="asgi3",
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        config.load()
        self.state = ServerState()
        self.transport = FakeTransport()
        made: Any = http
        self.http = made(config, self.state, {}, asyncio.get_running_loop())
        self.transport.set_protocol(self.http)
        self.http.connection_made(self.transport)

    @property
    def protocol(self) -> Any:
        return self.transport.get_protocol()

    @property
    def written(self) -> bytes:
        return bytes(self.transport.written)

    async def read(self, *pieces: bytes) -> None:
        """Have each of *pieces* read at once, when nothing is left to do about the one before."""
        for piece in pieces:
            if self.transport.is_closed or not piece:
                continue
            assert self.transport.is_reading()
            self.protocol.data_received(piece)
            await settle()

    async def end(self) -> None:
        """Lose the connection, and return when nobody is about it any more."""
        self.transport.close()
        self.protocol.connection_lost(None)
        _, left = await asyncio.wait(self.state.tasks, timeout=5) if self.state.tasks else (None, set())
        for task in left:
            task.cancel()
        assert not left
        assert self.state.connections == set()


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return the pieces of *data* between *places*."""
    at = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in pairwise(at)]
