"""What the HTTP client sends requests by: HTTP/1.1 over asyncio, with little between a stream's bytes and us.

The HTTP client's own transport takes some 65 us of CPU for each piece of a stream that it reads, and for each
request 0.7 ms more than this one: see docs/decisions/0019-a-transport-of-our-own.md. It has proxies and
HTTP/2, and is used where the environment names a proxy.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeAlias, cast

import aiohappyeyeballs
import httpx2

from unbroken.server.agents.http1 import Malformed, ResponseParser, request_head
from unbroken.server.agents.places import CURRENT

__all__ = ["HttpTransport"]

_Origin: TypeAlias = tuple[str, str, int]

_MOST_AHEAD: Final = 262_144
"""Bytes of an answer that are read before they are wanted: then the peer has to wait."""
_AT_ONCE: Final = 65_536
"""Bytes of a request that are handed on at once: over TLS, what has been can't be told from what was sent."""
_ATTEMPT: Final = 0.25
"""Seconds after which another of a host's addresses is tried besides (RFC 8305, section 5)."""
_PORTS: Final = {"http": 80, "https": 443}


class HttpTransport(httpx2.AsyncBaseTransport):
    """Sends requests over connections that are used again.

    How many are under way at once is bounded by their places (:mod:`~unbroken.server.agents.places`), which
    are given back when the connection is another's, or none. Time-outs are the request's: ``pool``, for a
    place; ``connect``; and ``read``, for each wait for the head or for more of the body.

    Args:
        max_idle: Connections that are kept for the next request.
        idle_seconds: How long.

    Raises:
        OSError: What the environment says of certificates can't be read.

    """

    def __init__(self, *, max_idle: int, idle_seconds: float) -> None:
        self._max_idle = max_idle
        self._idle_seconds = idle_seconds
        self._idle: dict[_Connection, _Origin] = {}  # the longest unused first
        self._open: set[_Connection] = set()
        self._is_closed = False
        self._tls = httpx2.create_ssl_context()
        self._tls.set_alpn_protocols(["http/1.1"])

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send *request*, and return its response once its head is there. Its stream has to be closed.

        Raises:
            httpx2.TransportError: Of the kind that the interface has for it.

        """
        url, timeouts = request.url, request.extensions.get("timeout", {})
        if "transfer-encoding" in request.headers:
            raise httpx2.LocalProtocolError("A request's body is sent with its length.")
        try:
            head = request_head(request.method.encode(), url.raw_path, request.headers.raw)
        except ValueError as exc:
            raise httpx2.LocalProtocolError(str(exc)) from None
        body = await request.aread()
        give_back = await _taken_place(timeouts.get("pool"))
        exchange: _Exchange | None = None
        try:
            connection = await self._connection(url, timeouts.get("connect"))
            exchange = connection.send(head + body, give_back)
            await exchange.wait_for_head(timeouts.get("read"))
        except BaseException:
            if exchange is not None:
                exchange.close()
            give_back()
            raise
        return httpx2.Response(
            exchange.parser.status,
            headers=exchange.parser.headers,
            stream=_Body(exchange, timeouts.get("read")),
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def aclose(self) -> None:
        """Close all connections at once, and those that are being made once they are."""
        self._is_closed = True
        for connection in list(self._open):
            connection.abort()

    async def _connection(self, url: httpx2.URL, timeout: float | None) -> _Connection:
        if url.scheme not in _PORTS:
            raise httpx2.UnsupportedProtocol("Only http:// and https:// are spoken.")
        origin = (url.scheme, url.raw_host.decode(), url.port or _PORTS[url.scheme])
        if (kept := self._kept(origin)) is not None:
            return kept
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(origin)
        except TimeoutError:
            raise httpx2.ConnectTimeout("No connection in time.") from None
        except (OSError, RuntimeError, UnicodeError) as exc:  # uvloop raises RuntimeError, too
            raise httpx2.ConnectError(type(exc).__name__) from exc

    def _kept(self, origin: _Origin) -> _Connection | None:
        """Return a connection that is idle; of several the one used last: the likeliest to be there still."""
        for connection in [each for each, its in reversed(self._idle.items()) if its == origin]:
            if connection.is_fresh:
                del self._idle[connection]
                connection.take_up()
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: _Origin) -> _Connection:
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_ATTEMPT, interleave=1)
        connection = _Connection(self, origin)
        try:
            if scheme == "http":
                await loop.create_connection(lambda: connection, sock=sock)
            else:
                await loop.create_connection(
                    lambda: connection, sock=sock, ssl=self._tls, server_hostname=host.strip("[]")
                )
        except BaseException:
            connection.give_up()
            sock.close()
            raise
        if self._is_closed:  # no earlier: in connection_made() uvloop would leave the socket half closed
            connection.abort()
        return connection

    # What connections tell.

    def opened(self, connection: _Connection) -> None:
        """Have it closed in the end."""
        self._open.add(connection)

    def rests(self, connection: _Connection) -> None:
        """Have it used by the next request."""
        self._idle[connection] = connection.origin
        connection.close_in(self._idle_seconds)
        if len(self._idle) > self._max_idle:
            next(iter(self._idle)).abort()

    def gone(self, connection: _Connection) -> None:
        """Forget it."""
        self._open.discard(connection)
        self._idle.pop(connection, None)


async def _taken_place(timeout: float | None) -> Callable[[], None]:
    """Take the place that the request is sent in, if it has one, and return what gives it back."""
    place = CURRENT.get()
    if place is None:
        return lambda: None
    try:
        await place.take(timeout)
    except TimeoutError:
        raise httpx2.PoolTimeout("No request ended in time.") from None
    return place.give_back


class _Connection(asyncio.Protocol):
    """One connection: in use by an exchange, or idle."""

    def __init__(self, pool: HttpTransport, origin: _Origin) -> None:
        self.origin = origin
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._exchange: _Exchange | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._rest = memoryview(b"")  # of the request
        self._is_full = False
        self._is_given_up = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's isn't one by its type
        if not self._is_given_up:
            self._pool.opened(self)

    @property
    def is_open(self) -> bool:
        """Whether nobody is known to have closed it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_fresh(self) -> bool:
        """Whether it is open, and nothing has come on it that hasn't been looked at yet.

        While the loop was busy, it may have been closed; or something may have come that belongs to an
        earlier request, and would be read as the answer to the next.
        """
        if not self.is_open or self._transport is None:
            return False
        waiting = select.poll()
        waiting.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not waiting.poll(0)

    @property
    def unsent(self) -> int:
        """Bytes of the request that haven't gone out."""
        return 0 if self._transport is None else len(self._rest) + self._transport.get_write_buffer_size()

    def send(self, request: bytes, on_end: Callable[[], None]) -> _Exchange:
        """Write a request, and return what its answer comes to. What isn't read over there isn't answered.

        *on_end* is called once, when the connection is another's, or none.
        """
        exchange = self._exchange = _Exchange(self, on_end)
        if self.is_open:
            self._rest = memoryview(request)
            self._write()
        else:
            exchange.lost(None)
        return exchange

    def _write(self) -> None:
        while self._rest and not self._is_full and self._transport is not None:
            piece, self._rest = self._rest[:_AT_ONCE], self._rest[_AT_ONCE:]
            self._transport.write(piece)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._write()

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.abort()  # an answer to nothing
        else:
            self._exchange.received(data)

    def eof_received(self) -> None:
        if self._exchange is not None:
            self._exchange.lost(None)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.gone(self)
        self.take_up()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost(exc)

    def pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def answered(self, *, may_follow: bool) -> None:
        """Let go of the exchange, whose answer is complete."""
        self._exchange = None
        if may_follow and self.is_open and not self.unsent:
            self.resume()
            self._pool.rests(self)
        else:
            self.abort()

    def close_in(self, seconds: float) -> None:
        self._closing = asyncio.get_running_loop().call_later(seconds, self.abort)

    def take_up(self) -> None:
        """Have it not closed for being idle."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def give_up(self) -> None:
        """Forget it, whether it is made yet or not: nobody waits for it any more."""
        self._is_given_up = True
        self.abort()

    def abort(self) -> None:
        """Close it at once. It isn't used again from now on."""
        self._pool.gone(self)
        if self._transport is not None:
            self._transport.abort()


class _Exchange:
    """One answer on its way. It has one reader."""

    def __init__(self, connection: _Connection, on_end: Callable[[], None]) -> None:
        self.parser = ResponseParser()
        self._on_end: Callable[[], None] | None = on_end
        self._connection = connection
        # Not an exception: once raised, it leads to who waits here, and so back.
        self._failure: tuple[type[httpx2.TransportError], str] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._has_head = False
        self._is_paused = False

    def received(self, data: bytes) -> None:
        """Take in bytes of it."""
        parser = self.parser
        try:
            parser.feed(data)
        except Malformed as exc:
            self._fail(httpx2.RemoteProtocolError, str(exc))
            self.close()
            return
        if parser.is_complete:
            self._connection.answered(may_follow=parser.may_follow)
            self._end()
        elif len(parser.body) > _MOST_AHEAD and not self._is_paused:
            self._is_paused = True
            self._connection.pause()
        if parser.status and (parser.body or parser.is_complete or not self._has_head):
            self._wake()

    def lost(self, exc: Exception | None) -> None:
        """Take in that nothing more comes."""
        self._end()
        if self.parser.is_complete or self._failure is not None:
            return
        try:
            if exc is not None:
                self._fail(httpx2.ReadError, type(exc).__name__)
            else:
                self.parser.feed_eof()
                self._wake()
        except Malformed as malformed:
            self._fail(httpx2.RemoteProtocolError, str(malformed))

    async def wait_for_head(self, timeout: float | None) -> None:
        """Wait until the status and the fields are there."""
        self._unsent = self._connection.unsent
        while not self.parser.status:
            await self._wait(timeout)
        self._has_head = True

    async def read(self, timeout: float | None) -> bytes:
        """Return what has come of the body since, waiting for it; nothing: that was all."""
        parser = self.parser
        while not (parser.body or parser.is_complete):
            await self._wait(timeout)
        data = parser.take()
        if self._is_paused and not parser.is_complete:  # else the connection is another's
            self._is_paused = False
            self._connection.resume()
        return data

    def close(self) -> None:
        """Let go of it. What hasn't come isn't waited for: the connection goes with it."""
        if not self.parser.is_complete:
            if self._failure is None:
                self._fail(httpx2.ReadError, "It was let go of.")
            self._connection.abort()
        self._end()

    def _end(self) -> None:
        self.parser.end()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    async def _wait(self, timeout: float | None) -> None:
        if self._failure is not None:
            kind, text = self._failure
            raise kind(text)
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        if timeout is not None:
            self._timer = loop.call_later(timeout, self._expire, waiter, timeout)
        try:
            await waiter
        finally:
            self._waiter = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _expire(self, waiter: asyncio.Future[None], timeout: float) -> None:
        unsent = self._connection.unsent
        if unsent < self._unsent:  # the request is long, and on its way still
            self._unsent = unsent
            self._timer = asyncio.get_running_loop().call_later(timeout, self._expire, waiter, timeout)
        elif not waiter.done():
            waiter.set_exception(httpx2.ReadTimeout("Nothing came in time."))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, kind: type[httpx2.TransportError], text: str) -> None:
        self._failure = kind, text  # behind what there is of the body
        self._wake()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, exchange: _Exchange, timeout: float | None) -> None:
        self._exchange = exchange
        self._timeout = timeout

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        try:
            while data := await self._exchange.read(self._timeout):
                yield data
        finally:
            self._exchange.close()

    async def aclose(self) -> None:
        self._exchange.close()
