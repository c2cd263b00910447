"""Bytes for a WebSocket connection, right or wrong (RFC 6455, sections 4.1 and 5.2)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from enum import IntEnum
from typing import Final, Self

__all__ = ["WAIT", "Opcode", "Peer", "frame", "handshake"]

WAIT: Final = 30.0
"""Seconds after which what is waited for will never come."""


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    is_final: bool = True,
    reserved: int = 0,
    is_masked: bool = True,
    announced: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """Return a frame, masked with zeros.

    Args:
        opcode: 0 to 15.
        payload: What it carries.
        is_final: Whether it is the message's last.
        reserved: The three reserved bits.
        is_masked: As a client has to.
        announced: The length that its header tells; None: the right one.
        length_bytes: How many bytes the length is written in, after the first; None: as many as needed.

    """
    size = len(payload) if announced is None else announced
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65_536 else 8
    first = is_final << 7 | reserved << 4 | opcode
    second = is_masked << 7 | {0: size, 2: 126, 8: 127}[length_bytes]
    length = size.to_bytes(length_bytes, "big") if length_bytes else b""
    return bytes((first, second)) + length + (bytes(4) if is_masked else b"") + payload


def handshake(
    target: str = "/v1/realtime?model=default",
    *,
    method: str = "GET",
    version: str = "HTTP/1.1",
    without: str = "",
    **changed: str,
) -> bytes:
    """Return an upgrade request. Headers are *changed* by their names, with ``_`` for ``-``."""
    headers = {
        "Host": "127.0.0.1",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Authorization": "Bearer mallory",
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    headers.pop(without, None)
    return f"{method} {target} {version}\r\n{_lines(headers)}\r\n".encode("latin-1")


def _lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


class Peer:
    """A connection that sends what it is given, and reads when it is asked to. Use as a context manager.

    On a plain socket: what came before a reset can still be read from it.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = bytearray()
        self.socket = socket.socket()
        self.socket.setblocking(False)

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().sock_connect(self.socket, ("127.0.0.1", self._port))
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.socket.close()

    async def upgrade(self) -> bytes:
        """Shake hands, and return the answer's header."""
        await self.send(handshake())
        header = await self.header()
        assert header.startswith(b"HTTP/1.1 101 "), header
        return header

    async def send(self, data: bytes) -> None:
        """Send all of *data*, or as much as the server takes before it closes."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(WAIT):
                await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def header(self) -> bytes:
        """Return the header of the answer to a request; what there is of it, if the connection ends."""
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if not await self._receive():
                return self._take(len(self._received))
        return self._take(end + 4)

    async def next(self) -> tuple[int, bytes] | None:
        """Return the opcode and the payload of the next frame; None: the connection has ended."""
        if (start := await self._exactly(2)) is None:
            return None
        first, size = start
        if size > 125:
            length = await self._exactly(2 if size == 126 else 8)
            size = int.from_bytes(length or b"", "big")
        payload = await self._exactly(size)
        return None if payload is None else (first & 15, payload)

    async def rest(self) -> bytes:
        """Return everything up to the end of the connection, however it ends."""
        while await self._receive():
            pass
        return self._take(len(self._received))

    async def close_code(self) -> int:
        """Read up to the close frame and return its code; 1005: it has none; 1006: there is no such frame."""
        while (event := await self.next()) is not None:
            opcode, payload = event
            if opcode == Opcode.CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else 1005
        return 1006

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._received) < size:
            if not await self._receive():
                return None
        return self._take(size)

    async def _receive(self) -> bool:
        """Wait for more, and return whether any came."""
        data = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(WAIT):
                data = await asyncio.get_running_loop().sock_recv(self.socket, 65_536)
        self._received += data
        return bool(data)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken
