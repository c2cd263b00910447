"""The HTTP connection class given to uvicorn: its own, with an end to everything.

See :mod:`unbroken.server.transports.protocol`, into which a connection turns
that becomes a WebSocket.
"""

from __future__ import annotations

import sys
from asyncio import TimerHandle, Transport
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from httptools import HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from unbroken.server.transports.address import Address
from unbroken.server.transports.opening import Opening
from unbroken.server.transports.protocol import WebSocketProtocol

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

__all__ = ["BadHeader", "HttpProtocol"]

_UNREADABLE: Final = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BadHeader(Exception):
    """A request's header that is refused before anybody looks at it."""


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, until it becomes a WebSocket. A request's header comes soon or never.

    uvicorn waits for the end of a header without limit in time or size, be it
    of an upgrade, so that half-sent handshakes pile up; it collects the headers
    behind a body (trailers) likewise; and what comes of a body after the answer
    stops its keep-alive timer for good. It takes a request without a ``Host``, or
    with two; and a handshake of HTTP/1.0, or one behind a request that is still
    being answered, whose answer then never learns that the connection is gone.
    """

    header_timeout: ClassVar[float] = 10.0
    """Seconds from the connection, or a request's first byte, to the end of its header."""

    max_sockets: ClassVar[int] = 21_000
    """Sockets of one listener, whatever is on them. One beyond is closed: an answer would cost as much."""

    max_address_sockets: ClassVar[int] = 256
    """Sockets of one address that have become no WebSocket, which is counted elsewhere. Else a single peer
    could take all that there may be by saying nothing on them."""

    max_header_bytes: ClassVar[int] = 65536
    """Bytes of input that may come of a header, or of what stands behind and between the pieces of a body."""

    unread_timeout: ClassVar[float] = 30.0
    """Seconds that the buffer may stay full, all in all: a client which doesn't read its answer is cut."""

    unread_refill: ClassVar[float] = 6.0
    """Seconds of these that are given back whenever it has emptied (three quarters of 64 KiB): a client has
    to read 8 KiB a second in the long run."""

    rest_timeout: ClassVar[float] = 10.0
    """Seconds for what still comes of a request once it was answered, and until the next one begins."""

    _sockets: ClassVar[Counter[Address]] = Counter()

    @classmethod
    def limited(
        cls,
        *,
        header_timeout: float,
        max_sockets: int,
        max_address_sockets: int,
        address_of: Callable[[str], Address | None],
    ) -> type[HttpProtocol]:
        """Return this class with these limits, and sockets of its own: uvicorn makes the instances."""
        namespace = {
            "header_timeout": header_timeout,
            "max_sockets": max_sockets,
            "max_address_sockets": max_address_sockets,
            "address_of": staticmethod(address_of),
            "_sockets": Counter(),
        }
        return type(cls.__name__, (cls,), namespace)

    @staticmethod
    def address_of(peer: str) -> Address | None:  # noqa: ARG004 - the signature is that of what takes its place
        """Return which address a socket counts for, by who is at its other end. None: for none."""
        return None

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._address: Address | None = None  # that the socket is counted for
        self._header_timer: TimerHandle | None = None  # None while no header is awaited
        self._header_bytes = 0  # since a request began, or since the latest piece of its body
        self._unread_timer: TimerHandle | None = None  # runs while the buffer is full
        self._unread_since = 0.0
        self._unread_left = self.unread_timeout
        self._rest_timer: TimerHandle | None = None  # runs from input after an answer to the next request
        self._answering: Any = None  # uvicorn's cycle of the request that is being answered, or was last
        self._upgrades = False  # whether the latest request is a handshake
        self._frames_at = 0  # where in the latest read the handshake ends

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Note the beginning. uvicorn: takes sockets without limit."""
        super().connection_made(transport)
        if len(self.connections) > self.max_sockets or not self._count_address():
            transport.abort()
        self._expect_header()

    def data_received(self, data: bytes) -> None:
        """Handle input. uvicorn: any input stops the keep-alive timer, be it no new request."""
        self._header_bytes += len(data)
        super().data_received(data)
        now: Any = self.transport.get_protocol()
        if now is not self:
            self._leave(now, data[self._frames_at :])
            return
        cycle: Any = self.cycle  # None before the first request, against its annotation
        if self._header_bytes > self.max_header_bytes:
            self.transport.abort()
        elif (
            self._header_timer is None
            and self._rest_timer is None
            and self.timeout_keep_alive_task is None
            and cycle is not None
            and cycle.response_complete
        ):
            self._rest_timer = self.loop.call_later(self.rest_timeout, self.transport.abort)

    def on_message_begin(self) -> None:
        """Note a request's first byte: a later request on the connection has a limit of its own."""
        super().on_message_begin()
        self._forget_rest()
        if self._header_timer is None:
            self._expect_header()

    def on_headers_complete(self) -> None:
        """Note the end of the header, and refuse it, or see what it asks for.

        Raises:
            BadHeader: It is none by RFC 9112, or too large. uvicorn answers with 400.

        """
        size, hosts = len(self.url), 0
        for name, value in self.headers:
            size += len(name) + len(value)
            hosts += name == b"host"
        version = self.parser.get_http_version()
        if size > self.max_header_bytes or hosts > 1 or (not hosts and version == "1.1"):
            raise BadHeader
        self._forget_header()
        # What isn't one may be answered as any request, in its turn (RFC 9110, 7.8).
        self._upgrades = version == "1.1" and self._is_idle and super()._should_upgrade()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note a piece of a body: that may be as long as the application takes it."""
        self._header_bytes = 0
        super().on_body(body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Have a request answered. uvicorn: doesn't know any more which, if others wait behind it."""
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _should_upgrade(self) -> bool:
        """Return whether the request is a handshake. uvicorn: looks at its headers again each time."""
        return self._upgrades

    @property
    def _is_idle(self) -> bool:
        """Whether all that was asked here has been answered, and the answers were read."""
        cycle: Any = self.cycle  # None before the first request, against its annotation
        return (cycle is None or cycle.response_complete) and not self.flow.write_paused

    def handle_websocket_upgrade(self) -> None:
        """Hand over to a WebSocket, or refuse to. uvicorn: has the request parsed a second time."""
        end = sys.exception()
        assert isinstance(end, HttpParserUpgrade)
        self._frames_at = end.args[0]
        made: type = self.ws_protocol_class  # type: ignore[assignment]
        opening = (
            Opening.of(self.parser.get_method(), self.parser.get_http_version(), self.url, self.headers)
            if issubclass(made, WebSocketProtocol) and not self.config.ws_per_message_deflate
            else None
        )
        if opening is None:
            super().handle_websocket_upgrade()
        else:
            self.connections.discard(self)
            protocol = made(self.config, self.server_state, self.app_state)
            protocol.open(opening, self.transport, self.scope)
            self.transport.set_protocol(protocol)
        now: object = self.transport.get_protocol()
        if now is self:
            return
        self._forget_address()
        if type(now) is WebSocketsSansIOProtocol and not now.handshake_initiated:
            # uvicorn: the header is whole, but websockets can't read it, and nobody ever answers.
            self.transport.write(_UNREADABLE)
            self.transport.close()

    def _leave(self, now: Any, frames: bytes) -> None:
        """Let go of everything; *frames* came with the handshake. uvicorn: drops them, without a word."""
        self.parser = None  # type: ignore[assignment]  # it has us, and we it: nobody else has either
        if frames and isinstance(now, WebSocketProtocol) and not self.transport.is_closing():
            now.data_received(frames)

    def pause_writing(self) -> None:
        """Note that the client doesn't read. uvicorn: waits for it as long as it likes."""
        super().pause_writing()
        self._unread_since = self.loop.time()
        self._unread_timer = self.loop.call_later(self._unread_left, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that it does again."""
        super().resume_writing()
        left = self._unread_left - (self.loop.time() - self._unread_since) + self.unread_refill
        self._unread_left = min(left, self.unread_timeout)
        self._forget_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._forget_address()
        self._forget_unread()
        self._forget_header()
        self._forget_rest()
        super().connection_lost(exc)
        if (answering := self._answering) is not None and not answering.response_complete:
            # uvicorn: tells the latest request alone, which may be one that waits behind it.
            answering.disconnected = True
            answering.message_event.set()
        self.parser = None  # type: ignore[assignment]  # as in _leave: freed now, with the latest request's body

    def _count_address(self) -> bool:
        """Count the socket for its address, and return whether there is room for it."""
        address = self.address_of(self.client[0]) if self.client else None
        if address is None:
            return True
        if self._sockets[address] >= self.max_address_sockets:
            return False
        self._sockets[address] += 1
        self._address = address
        return True

    def _forget_address(self) -> None:
        address, self._address = self._address, None
        if address is not None:
            self._sockets[address] -= 1
            if not self._sockets[address]:
                del self._sockets[address]

    def _expect_header(self) -> None:
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(self.header_timeout, self.transport.abort)

    def _forget_header(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _forget_unread(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _forget_rest(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None
