"""A client made of a socket: it reads only when the test says so, and sends whatever the test gives it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

from websockets.client import ClientProtocol
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tests.server.realtime.client import WAIT, Frame

__all__ = ["RawClient"]


class RawClient:
    """Use as an asynchronous context manager.

    Args:
        port: The server's.
        key: The user's; None: no key is sent.
        headers: Further headers; they replace those that would be sent.
        subprotocols: What it offers.
        receive_buffer: Bytes that the kernel keeps for it, roughly: little, so that the server's
            writer is soon held up.

    """

    def __init__(
        self,
        port: int,
        key: str | None = "alice",
        *,
        headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] | None = None,
        receive_buffer: int = 8192,
        **query: str,
    ) -> None:
        uri = f"ws://127.0.0.1:{port}/v1/realtime?{urlencode(query)}"
        self._port = port
        offered = None if subprotocols is None else [Subprotocol(each) for each in subprotocols]
        self._protocol = ClientProtocol(parse_uri(uri), subprotocols=offered, max_size=None)
        self._request = self._protocol.connect()
        if key is not None:
            self._request.headers["Authorization"] = f"Bearer {key}"
        for name, value in (headers or {}).items():
            if name in self._request.headers:
                del self._request.headers[name]
            self._request.headers[name] = value
        self._events: deque[object] = deque()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.setblocking(False)
        self.received = 0
        """Bytes that came, the handshake's among them."""

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().sock_connect(self._socket, ("127.0.0.1", self._port))
        self._protocol.send_request(self._request)
        await self._flush()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    @property
    def address(self) -> int:
        """Its own port, by which the server knows it."""
        return int(self._socket.getsockname()[1])

    @property
    def close_code(self) -> int | None:
        """The code that the server closed with; 1006: with none; None: it hasn't."""
        return self._protocol.close_code

    def reset(self) -> None:
        """Break the connection off."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self._socket.close()

    def end(self) -> None:
        """Send nothing more, and say so to TCP alone."""
        self._socket.shutdown(socket.SHUT_WR)

    async def send(self, *events: Frame | str) -> None:
        for event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            self._protocol.send_text(text.encode("utf-8", "surrogatepass"))
        await self._flush()

    async def send_binary(self, data: bytes) -> None:
        self._protocol.send_binary(data)
        await self._flush()

    async def send_bytes(self, data: bytes) -> None:
        """Send what need not be a frame."""
        async with asyncio.timeout(WAIT):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def ping(self, payload: bytes) -> None:
        self._protocol.send_ping(payload)
        await self._flush()

    async def close(self, code: int = 1000) -> None:
        """Send a close frame, and wait for nothing."""
        self._protocol.send_close(code)
        await self._flush()

    async def response(self) -> Response:
        """Return the answer to the handshake."""
        event = await self._next()
        if event is None and isinstance(self._protocol.handshake_exc, Exception):
            raise self._protocol.handshake_exc
        assert isinstance(event, Response)
        return event

    async def next(self) -> Frame | bytes | None:
        """Return the next event of the server; a pong's payload; None: the connection has ended."""
        while (event := await self._next()) is not None:
            if isinstance(event, WireFrame):
                if event.opcode is Opcode.TEXT:
                    frame: Frame = json.loads(bytes(event.data))
                    return frame
                if event.opcode is Opcode.PONG:
                    return bytes(event.data)
        return None

    async def rest(self) -> list[Frame | bytes]:
        """Return everything up to the end of the connection."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events

    async def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                await self.send_bytes(data)

    async def _next(self) -> object | None:
        async with asyncio.timeout(WAIT):
            while not self._events:
                try:
                    data = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
                except ConnectionError:
                    data = b""
                self.received += len(data)
                if data:
                    self._protocol.receive_data(data)
                else:
                    self._protocol.receive_eof()
                self._events.extend(self._protocol.events_received())
                with contextlib.suppress(OSError):
                    await self._flush()  # pongs, and the answer to a close frame
                if not data:
                    self._events.append(None)
        event = self._events.popleft()
        if event is None:
            self._events.append(None)
        return event
