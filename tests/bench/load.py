"""The load: many WebSocket clients in one thread, made to be cheaper than any server it measures.

One epoll loop, own framing. Server frames are walked by their headers; the
text is then cut out of everything received at once, in C. Every answer is
checked, whole and in order, so that a server which loses or mixes up text
fails instead of looking fast.

Two ways to wait. *Eager* blocks until something arrives, as a real client
does, and is for latencies. *Tick* looks once in a millisecond and never
sleeps on a socket, so that the server's writes don't pay for waking a reader
on the same machine; it is for throughput.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

from tests.bench.wire import ACCEPT, API_KEY, CREATED, KEY, REALTIME, Dialect, frame

__all__ = ["Answer", "Client", "Load", "LoadError"]


_TICK: Final = 0.001
_BLOCK: Final = 0.05
_COMPANIONS: Final = 2.0
_RECEIVE: Final = 1 << 20
_BATCH: Final = 1024
_DELTA: Final = re.compile(rb'"delta":"([^"]*)"')


class LoadError(Exception):
    """The server broke the protocol, closed, fell silent or sent wrong content."""


class Answer(Protocol):
    """Takes one answer in, and checks it."""

    def take(self, pieces: list[bytes], now: int) -> None:
        """Take the next pieces of text, as JSON has them, received at *now* (CLOCK_MONOTONIC, ns)."""

    def finish(self, received: bytes) -> None:
        """Take the end; *received* includes the frame that says so.

        Raises:
            LoadError: The answer isn't what it should be.

        """


class _State(Enum):
    CONNECTING = 1
    UPGRADING = 2
    OPEN = 3


class Client:
    """One connection."""

    __slots__ = ("answer", "fd", "frames", "marker", "socket", "state", "tail")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.fd = connection.fileno()
        self.state = _State.CONNECTING
        self.tail = b""
        self.frames = 0
        """Messages received."""
        self.marker: bytes | None = None
        """Awaited: what ends the current request. None: there is none."""
        self.answer: Answer | None = None


class Load:
    """All clients of one server. Use as a context manager."""

    def __init__(self, port: int, dialect: Dialect = REALTIME) -> None:
        self._address = ("127.0.0.1", port)
        self._dialect = dialect
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._buffer = bytearray(_RECEIVE)
        self._view = memoryview(self._buffer)
        self._waiting = 0
        self._on_done: Callable[[Client], None] | None = None
        self.companions: list[Load] = []
        """Idle ones, whose pings are answered while this one is driven."""

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.socket.close()
        self._clients.clear()
        self._epoll.close()

    @property
    def clients(self) -> list[Client]:
        return list(self._clients.values())

    @property
    def frames(self) -> int:
        """Messages received so far, over all clients."""
        return sum(client.frames for client in self._clients.values())

    def open(self, count: int, *, at_once: int = 64, timeout: float = 60.0) -> None:
        """Open *count* connections more, and wait for each one's ``session.created``."""
        left = count

        def begin(_: Client | None = None) -> None:
            nonlocal left
            if left:
                left -= 1
                self._connect()

        for _ in range(min(at_once, count)):
            begin()
        self.drive(timeout=timeout, on_done=begin)

    def answer_pings(self) -> None:
        """Take what came while nothing was awaited: a server hangs up on who leaves it without answer."""
        while self._turn(0):
            pass

    def ask(self, client: Client, request: bytes, marker: bytes, answer: Answer | None = None) -> None:
        """Send *request*; it is done when *marker* arrives."""
        client.marker = marker
        client.answer = answer
        self._waiting += 1
        self._send(client, request)

    def drive(
        self,
        *,
        timeout: float,
        tick: bool = False,
        on_done: Callable[[Client], None] | None = None,
        starter: Callable[[], float | None] | None = None,
    ) -> None:
        """Go on until nothing is awaited any more.

        Args:
            timeout: Seconds that the whole may take.
            tick: See the module's text.
            on_done: Called for each request that is done; may ask for more.
            starter: Called in each round. Starts what is due, and returns the seconds until there is
                more to start; None: nothing is left.

        """
        self._on_done = on_done
        deadline = time.monotonic() + timeout
        companions_due = 0.0
        until_next = starter() if starter else None
        while self._waiting or until_next is not None:
            if tick:
                if self._turn(0) < _BATCH:
                    time.sleep(_TICK)
            else:
                self._turn(_BLOCK if until_next is None else min(_BLOCK, until_next))
            if starter:
                until_next = starter()
            now = time.monotonic()
            if now > companions_due:
                companions_due = now + _COMPANIONS
                for companion in self.companions:
                    companion.answer_pings()
            if now > deadline:
                raise LoadError(self._silence(timeout))

    def _silence(self, timeout: float) -> str:
        stuck = next((client for client in self._clients.values() if client.marker), None)
        what = f"{self._waiting} of {len(self._clients)} requests not answered within {timeout:g} s"
        return what if stuck is None else f"{what}; one awaits {stuck.marker!r} after {stuck.frames} messages"

    def _turn(self, block: float) -> int:
        """Receive what there is, then work on it: reading all first keeps the arrival times true."""
        received: list[tuple[Client, bytes, int]] = []
        events = self._epoll.poll(block, _BATCH)
        now = time.monotonic_ns
        for fd, _ in events:
            client = self._clients[fd]
            if client.state is _State.CONNECTING:
                self._upgrade(client)
                continue
            try:
                size = client.socket.recv_into(self._buffer)
            except BlockingIOError:
                continue
            except OSError as error:
                raise LoadError(f"connection broke: {error}") from None
            if not size:
                raise LoadError("the server closed a connection without a close frame")
            received.append((client, bytes(self._view[:size]), now()))
        for client, data, at in received:
            self._feed(client, data, at)
        return len(events)

    def _connect(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect_ex(self._address)
        client = Client(connection)
        client.marker = CREATED
        self._clients[client.fd] = client
        self._epoll.register(client.fd, select.EPOLLOUT)
        self._waiting += 1

    def _upgrade(self, client: Client) -> None:
        if error := client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise LoadError(f"can't connect: error {error}")
        host, port = self._address
        lines = (
            f"GET {self._dialect.target} HTTP/1.1",
            f"Host: {host}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {KEY}",
            f"Authorization: Bearer {API_KEY}-{client.fd}",  # each one a principal of its own
        )
        self._epoll.modify(client.fd, select.EPOLLIN)
        client.state = _State.UPGRADING
        self._send(client, "\r\n".join((*lines, "", "")).encode())

    def _send(self, client: Client, data: bytes) -> None:
        if client.socket.send(data) != len(data):
            raise LoadError("a request didn't fit into an idle socket")

    def _feed(self, client: Client, data: bytes, now: int) -> None:
        if client.tail:
            data = client.tail + data
        position = 0
        if client.state is _State.UPGRADING:
            position = data.find(b"\r\n\r\n") + 4
            if position == 3:
                client.tail = data
                return
            head = data[:position]
            if not head.startswith(b"HTTP/1.1 101 ") or ACCEPT not in head:
                raise LoadError(f"upgrade refused: {data[:300]!r}")
            client.state = _State.OPEN
            if self._dialect.greeting:
                self._send(client, self._dialect.greeting)
        begin, end = position, len(data)
        messages = 0
        while end - position >= 2:
            size = data[position + 1]
            body = position + 2
            if size >= 126:
                if size > 127:
                    raise LoadError("the server masked a frame")
                body += 2 if size == 126 else 8
                if body > end:
                    break
                size = int.from_bytes(data[position + 2 : body])
            if body + size > end:
                break
            if data[position] == 0x81:
                messages += 1
            else:
                self._control(client, data[position], data[body : body + size])
            position = body + size
        client.tail = data[position:]
        if messages:
            client.frames += messages
            self._messages(client, data[begin:position] if begin or client.tail else data, now)

    def _control(self, client: Client, first: int, payload: bytes) -> None:
        match first:
            case 0x89:
                self._send(client, frame(payload, opcode=10))
            case 0x8A:
                pass
            case 0x88:
                raise LoadError(f"the server closed a connection: {payload[:2].hex()} {payload[2:]!r}")
            case _:
                raise LoadError(f"unexpected frame, first byte {first:#x}")

    def _messages(self, client: Client, data: bytes, now: int) -> None:
        answer = client.answer
        # Much faster than searching frame by frame. The words hold nothing that JSON escapes.
        if answer is not None and (pieces := _DELTA.findall(data)):
            answer.take(pieces, now)
        if client.marker is not None and client.marker in data:
            client.marker = client.answer = None
            self._waiting -= 1
            if answer is not None:
                answer.finish(data)
            if self._on_done is not None:
                self._on_done(client)
        elif b'"type":"error"' in data:
            raise LoadError(f"the server reported an error: {data[-600:]!r}")
