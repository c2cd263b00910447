"""The load over HTTP: many answers as server-sent events at once, in one thread, with little work.

The counterpart of :mod:`tests.bench.load`: every answer is checked, whole and in order. Chunked bodies are
not taken apart: words hold nothing that looks like a chunk's head, and a piece of text is never cut by one.
"""

from __future__ import annotations

import re
import select
import socket
import time
from dataclasses import dataclass, field
from typing import Final

from tests.bench.load import Answer, LoadError
from tests.bench.wire import RESPONSE_DONE

__all__ = ["HttpLoad", "Way"]

_RECEIVE: Final = 1 << 20
_BLOCK: Final = 0.05


@dataclass(frozen=True, slots=True)
class Way:
    """How a door is asked, and what its answers look like."""

    path: str
    pieces: re.Pattern[bytes]
    """Finds the text of each event."""
    end: bytes
    """What the last event holds."""


@dataclass(slots=True)
class _Stream:
    socket: socket.socket
    answer: Answer
    tail: bytes = b""
    received: int = 0
    is_done: bool = field(default=False)


class HttpLoad:
    """Requests whose answers are streamed, each on a connection of its own."""

    def __init__(self, port: int, way: Way) -> None:
        self._address = ("127.0.0.1", port)
        self._way = way
        self._epoll = select.epoll()
        self._streams: dict[int, _Stream] = {}

    def __enter__(self) -> HttpLoad:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams.values():
            stream.socket.close()
        self._epoll.close()

    def ask(self, body: bytes, key: str, answer: Answer) -> None:
        """Ask for an answer, as somebody with *key*."""
        connection = socket.create_connection(self._address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = (
            f"POST {self._way.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        connection.setblocking(False)
        self._streams[connection.fileno()] = _Stream(connection, answer)
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    @property
    def left(self) -> int:
        """How many haven't been answered wholly."""
        return sum(not stream.is_done for stream in self._streams.values())

    def turn(self, block: float = _BLOCK) -> None:
        """Receive what there is, and work on it."""
        received: list[tuple[_Stream, bytes, int]] = []
        for fd, _ in self._epoll.poll(block):
            stream = self._streams[fd]
            data = stream.socket.recv(_RECEIVE)
            if not data and not stream.is_done:
                raise LoadError("the server closed a connection before the end of an answer")
            if not data:
                self._epoll.unregister(fd)
                continue
            received.append((stream, data, time.monotonic_ns()))
        for stream, data, at in received:
            self._feed(stream, data, at)

    def _feed(self, stream: _Stream, data: bytes, at: int) -> None:
        if not stream.received and not data.startswith(b"HTTP/1.1 200 "):
            raise LoadError(f"refused: {data[:300]!r}")
        stream.received += len(data)
        data = stream.tail + data
        whole, separator, stream.tail = data.rpartition(b"\n\n")
        whole += separator
        if pieces := self._way.pieces.findall(whole):
            stream.answer.take(pieces, at)
        if self._way.end in whole and not stream.is_done:
            stream.is_done = True
            stream.answer.finish(whole.replace(self._way.end, RESPONSE_DONE))
