"""The connection classes given to uvicorn: its own, with an end to everything.

uvicorn 0.54 ends connections with ``transport.close()``, which first flushes
what is buffered. A peer that reads nothing while its kernel goes on
acknowledging keeps such a socket, its buffer and its task alive for as long as
it likes. The classes here put a bound on each way that a connection can end,
and on its beginning. They rely on attributes of uvicorn that it doesn't
document; ``tests/server/test_protocol.py`` fails when one of them goes.
"""

from __future__ import annotations

from asyncio import BaseTransport, TimerHandle, Transport
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from unbroken.server.transports.outlet import EXTENSION

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent
    from uvicorn.config import Config
    from uvicorn.server import ServerState
    from websockets.frames import Frame
    from websockets.http11 import Request

__all__ = ["HttpProtocol", "WebSocketProtocol"]

_SHORT_HEADERS: Final = tuple(bytes((0x81, size)) for size in range(126))
"""Of final, unmasked text frames (RFC 6455, 5.2)."""

_PONG_START: Final = b"\x8a"  # a server's pong begins so: final, and never compressed


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket. It begins soon or never; however it ends, it is gone soon after.

    It is the :class:`~unbroken.server.transports.outlet.Outlet` of its own connection.
    """

    handshake_timeout: ClassVar[float] = 10.0
    """Seconds from the hand-over by ``HttpProtocol`` to the answer to the handshake."""

    max_fragments: ClassVar[int] = 1024
    """Frames that one message may come in."""

    flush_timeout: ClassVar[float] = 2.0
    """Seconds that the last bytes get to leave once the connection is being closed."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._abort_timer: TimerHandle | None = None  # runs while the connection is ending
        self._handshake_timer: TimerHandle | None = None
        self._late_pong = b""  # the answer to the latest ping, while there is no room for it
        self._on_writable: Callable[[], None] | None = None
        self.is_writable = True
        """See :attr:`Outlet.is_writable`."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Note the hand-over. uvicorn: waits without limit for a handshake to be complete."""
        super().connection_made(transport)
        self._handshake_timer = self.loop.call_later(self.handshake_timeout, self._abort_handshake)

    def data_received(self, data: bytes) -> None:
        """Handle input.

        uvicorn: a close frame or a broken one ends in an unbounded flush; and
        a header that httptools takes but websockets refuses is never answered.
        """
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.transport.is_closing():
            self._refuse()
        self._bound_flush()

    def handle_connect(self, event: Request) -> None:
        """Begin the handshake, and offer the outlet to the application."""
        super().handle_connect(event)
        if self.handshake_initiated and not self.handshake_complete and not self.conn.extensions:
            extensions: dict[Any, Any] = self.scope["extensions"]
            extensions[EXTENSION] = self

    def write(self, messages: Sequence[bytes]) -> None:
        """See :meth:`Outlet.write`. All of *messages* leave in one write.

        uvicorn: a frame object, a walk through the state machine and a write
        for each message, which cost several times what the message does.
        """
        if self.close_sent or self.disconnected:
            return
        parts: list[bytes] = []
        for message in messages:
            size = len(message)
            if size < 126:
                parts.append(_SHORT_HEADERS[size])
            elif size < 65536:
                parts.append(b"\x81\x7e" + size.to_bytes(2))
            else:
                parts.append(b"\x81\x7f" + size.to_bytes(8))
            parts.append(message)
        self.transport.write(b"".join(parts))

    def listen(self, callback: Callable[[], None] | None) -> None:
        """See :meth:`Outlet.listen`."""
        self._on_writable = callback

    async def flushed(self) -> None:
        """See :meth:`Outlet.flushed`. There is nothing to wait for: a write is a write."""

    def handle_cont(self, event: Frame) -> None:
        """Add a fragment. uvicorn: collects empty ones without limit, as only bytes are counted."""
        if self.close_sent:
            self.frames = []  # nobody will get this message
        elif len(self.frames) >= self.max_fragments:
            self._fail(1009, "too many fragments")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Queue a message.

        uvicorn: logs text that isn't UTF-8 as an error of ours, with a traceback,
        and raises when the connection isn't open, be it not yet or no more.
        """
        if self.curr_msg_data_type == "text" and not self.close_sent:
            data = b"".join(self.frames)
            self.frames = [data]
            try:
                data.decode()
            except UnicodeDecodeError:
                self._fail(1007, "invalid UTF-8")
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer a ping, as soon as there is room.

        uvicorn: adds pongs to a full buffer, without limit when the peer doesn't
        read. RFC 6455, 5.5.3, lets us answer only the latest ping: that a slow
        reader gets, or it would take us for dead.
        """
        if self.writable.is_set():
            super().handle_ping()
            return
        # What else was queued by the same input, such as the answer to a close frame, has to go out.
        rest = []
        for frame in self.conn.data_to_send():
            if frame.startswith(_PONG_START):
                self._late_pong = frame
            else:
                rest.append(frame)
        self.transport.write(b"".join(rest))

    def pause_writing(self) -> None:
        """Note that there is no room."""
        super().pause_writing()
        self.is_writable = False

    def resume_writing(self) -> None:
        """Note that there is room, send the pong that waited for it, and tell who writes."""
        super().resume_writing()
        self.is_writable = True
        pong, self._late_pong = self._late_pong, b""
        if not self.close_sent and not self.transport.is_closing():
            self.transport.write(pong)
            if self._on_writable is not None:
                self._on_writable()

    def handle_parser_exception(self) -> None:
        """Close. uvicorn: raises when a broken frame comes before the handshake is complete."""
        if self.conn.close_sent is None:
            self._refuse()
        else:
            super().handle_parser_exception()

    def eof_received(self) -> None:
        """Close: the peer will send nothing more. asyncio: unbounded flush, and no pings meanwhile."""
        super().eof_received()
        self._abort_after(self.flush_timeout)

    def keepalive_timeout(self) -> None:
        """Give up on a peer that answers no ping.

        uvicorn: the flush waits for the very peer that was just found dead.
        """
        super().keepalive_timeout()
        self._bound_flush()

    def shutdown(self) -> None:
        """Close with 1012. uvicorn: unbounded flush, and raises when the peer closed before."""
        if not self.transport.is_closing():
            super().shutdown()
        self._bound_flush()

    def send(self, message: ASGISendEvent) -> Coroutine[Any, Any, None]:
        """Send an ASGI event. Not a coroutine function itself: this is the hot path."""
        if message["type"] == "websocket.close":
            # uvicorn: waits for a writable socket before it closes it, so a
            # slow reader can't be closed at all; and when the peer doesn't
            # answer the close frame in time, an unbounded flush follows.
            self._abort_after(self.close_timeout)
        elif message["type"] == "websocket.http.response.body":
            # uvicorn: takes a refusal for a handshake left unfinished, and logs an error for each.
            self.handshake_complete = True
        return super().send(message)

    async def run_asgi(self) -> None:
        """Run the application. uvicorn: unbounded flush when it returns without closing."""
        await super().run_asgi()
        self._bound_flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        for timer in (self._abort_timer, self._handshake_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _abort_handshake(self) -> None:
        if not self.handshake_complete:
            self.transport.abort()

    def _refuse(self) -> None:
        """Answer a handshake that can't be completed any more, and close."""
        output = b"".join(self.conn.data_to_send())
        if not output.startswith(b"HTTP/"):  # websockets has an answer to a header that is too large
            output = self.conn.reject(400, "Not a WebSocket handshake.\n").serialize()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self.handshake_complete = True
        self.close_sent = True
        self.transport.write(output)
        self.transport.close()

    def _fail(self, code: int, reason: str) -> None:
        """Close because of what the peer sent, whatever the state of the connection."""
        self.frames = []
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def _bound_flush(self) -> None:
        if self.transport.is_closing():
            self._abort_after(self.flush_timeout)
            # uvicorn: answers what is sent from now until the socket is gone with a RuntimeError.
            self.disconnected = True
            # uvicorn: takes a peer that left before the answer for an error of the application.
            self.handshake_complete = True

    def _abort_after(self, seconds: float) -> None:
        """Cut the connection in *seconds*, or earlier where that was said before."""
        if self.disconnected:
            return
        due = self.loop.time() + seconds
        if self._abort_timer is not None:
            if self._abort_timer.when() <= due:
                return
            self._abort_timer.cancel()
        self._abort_timer = self.loop.call_at(due, self.transport.abort)


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, until it becomes a WebSocket. A request's header comes soon or never.

    uvicorn waits for the end of a header without limit in time or size, be it
    of an upgrade, so that half-sent handshakes pile up; and what comes of a
    body after the answer stops its keep-alive timer for good.
    """

    header_timeout: ClassVar[float] = 10.0
    """Seconds from the connection, or a request's first byte, to the end of its header."""

    max_header_bytes: ClassVar[int] = 65536
    """Bytes of input that may come while a header is incomplete."""

    unread_timeout: ClassVar[float] = 30.0
    """Seconds that a full buffer may stay full: a client which doesn't read its answer is cut."""

    rest_timeout: ClassVar[float] = 10.0
    """Seconds for what still comes of a request once it was answered, and until the next one begins."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._header_timer: TimerHandle | None = None  # None while no header is awaited
        self._header_bytes = 0
        self._unread_timer: TimerHandle | None = None  # runs while the buffer is full
        self._rest_timer: TimerHandle | None = None  # runs from input after an answer to the next request

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Note the beginning."""
        super().connection_made(transport)
        self._expect_header()

    def data_received(self, data: bytes) -> None:
        """Handle input. uvicorn: any input stops the keep-alive timer, be it no new request."""
        self._header_bytes += len(data)
        super().data_received(data)
        cycle: Any = self.cycle  # None before the first request, against its annotation
        if self._header_timer is not None:
            if self._header_bytes > self.max_header_bytes:
                self.transport.abort()
        elif (
            self._rest_timer is None
            and self.timeout_keep_alive_task is None
            and cycle is not None
            and cycle.response_complete
            and self.transport.get_protocol() is self  # else it is a WebSocket by now
        ):
            self._rest_timer = self.loop.call_later(self.rest_timeout, self.transport.abort)

    def on_message_begin(self) -> None:
        """Note a request's first byte: a later request on the connection has a limit of its own."""
        super().on_message_begin()
        self._forget_rest()
        if self._header_timer is None:
            self._expect_header()

    def on_headers_complete(self) -> None:
        """Note the end of the header."""
        self._forget_header()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Note that the client doesn't read. uvicorn: waits for it as long as it likes."""
        super().pause_writing()
        self._unread_timer = self.loop.call_later(self.unread_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that it does again."""
        super().resume_writing()
        self._forget_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._forget_unread()
        self._forget_header()
        self._forget_rest()
        super().connection_lost(exc)

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
