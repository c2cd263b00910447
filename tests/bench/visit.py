"""One connection of a client that comes back: handshake, frames, and the moments that are measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from tests.bench.load import LoadError
from tests.bench.wire import ACCEPT, KEY, frame

__all__ = ["Visit"]

_TEXT: Final = 0x81
_CLOSE: Final = 0x88
_PING: Final = 0x89


class Visit(asyncio.Protocol):
    """A connection. Times are of ``time.monotonic()``.

    Args:
        target: Path and query.
        key: What it authenticates with.
        receive: Gets each event. A LoadError of its ends the connection.

    """

    def __init__(self, target: str, key: str, receive: Callable[[Visit, dict[str, Any]], None]) -> None:
        loop = asyncio.get_running_loop()
        self.welcome: asyncio.Future[None] = loop.create_future()
        """For the receiver, when the session is shown."""
        self.ended: asyncio.Future[None] = loop.create_future()
        self.begun_at = time.monotonic()
        self.opened_at = self.now = 0.0
        """When the handshake was over; when the latest bytes came."""
        self.refusal = ""
        """Why the node didn't let it in: an error or close code, or an HTTP status."""
        self.failure: LoadError | None = None
        self.is_return = False
        """For the receiver: whether it waits for the first event that was missed."""
        self._request = _handshake(target, key)
        self._receive = receive
        self._transport: asyncio.Transport | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.now = time.monotonic()
        self._tail += data
        try:
            if not self.opened_at and not self._open():
                return
            self._frames()
        except LoadError as error:
            self.failure = error
            self.cut()

    def send(self, frames: bytes) -> None:
        """Send frames."""
        assert self._transport is not None
        self._transport.write(frames)

    def cut(self) -> None:
        """End it without a word. Nothing comes afterwards."""
        if self._transport is not None:
            self._transport.abort()

    def _open(self) -> bool:
        head, end, rest = self._tail.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 101 "):
            self.refusal = head.split(b" ", 2)[1].decode()
            self.cut()
            return False
        if ACCEPT not in head:
            raise LoadError(f"upgrade refused: {head[:300]!r}")
        self.opened_at, self._tail = self.now, rest
        return True

    def _frames(self) -> None:
        data, position = self._tail, 0
        while (found := _next(data, position)) is not None:
            first, payload, position = found
            if first == _TEXT:
                self._receive(self, msgspec.json.decode(payload))
            elif first == _PING:
                self.send(frame(payload, opcode=10))
            elif first == _CLOSE:
                if not self.welcome.done() and not self.refusal:
                    self.refusal = str(int.from_bytes(payload[:2]))
                self.cut()
                break
            else:
                raise LoadError(f"an unexpected frame begins with {first:#x}")
        self._tail = data[position:]


def _next(data: bytes, position: int) -> tuple[int, bytes, int] | None:
    """Return the first byte, the payload and the end of the frame at *position*; None: it isn't whole."""
    body = position + 2
    if body > len(data):
        return None
    size = data[position + 1]
    if size > 127:
        raise LoadError("the server masked a frame")
    if size >= 126:
        body += 2 if size == 126 else 8
        if body > len(data):
            return None
        size = int.from_bytes(data[position + 2 : body])
    end = body + size
    return None if end > len(data) else (data[position], data[body:end], end)


def _handshake(target: str, key: str) -> bytes:
    lines = (
        f"GET {target} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        f"Authorization: Bearer {key}",
    )
    return "\r\n".join((*lines, "", "")).encode()
