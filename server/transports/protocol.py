"""The WebSocket connection class given to uvicorn: its own, with an end to everything.

uvicorn 0.54 ends connections with ``transport.close()``, which first flushes
what is buffered. A peer that reads nothing while its kernel goes on
acknowledging keeps such a socket, its buffer and its task alive for as long as
it likes. The class here puts a bound on each way that a connection can end,
on its beginning, and on what one peer can make the event loop do at a time: what
a read brings is taken portion by portion, with a turn of the loop in between,
and no more is read before it has been taken and the peer's rates allow it. It
relies on attributes of uvicorn that it doesn't document;
``tests/server/transports/test_protocol.py`` fails when one of them goes.
"""

from __future__ import annotations

from asyncio import BaseTransport, Handle, TimerHandle, Transport
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import unquote

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import OPEN, Protocol

from unbroken.server.transports.departure import DEPARTURE
from unbroken.server.transports.intake import Intake, IntakeLimits
from unbroken.server.transports.opening import Opening, answer
from unbroken.server.transports.outlet import EXTENSION

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent, ASGISendEvent, HTTPScope, WebSocketAcceptEvent
    from uvicorn.config import Config
    from uvicorn.server import ServerState
    from websockets.frames import Frame
    from websockets.http11 import Request

__all__ = ["WebSocketProtocol"]

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

    portion: ClassVar[int] = 2048
    """Bytes of input that are taken in one turn of the loop: some hundreds of the smallest frames."""

    max_discarded: ClassVar[int] = 16 << 20
    """Bytes that are read from a peer that was told to go, so that it can read that it was."""

    intake_limits: ClassVar[IntakeLimits | None] = None
    """How fast a peer may send. None: as fast as it is taken."""

    # Not in the instance's dictionary: uvicorn's attributes fill that to where it would double.
    __slots__ = (
        "_abort_timer",
        "_accept",
        "_backlog",
        "_handshake_timer",
        "_held",
        "_intake",
        "_late_pong",
        "_next",
        "_on_departure",
        "_on_writable",
        "_to_discard",
        "is_writable",
    )

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._accept: bytes | None = None  # what the handshake is to be answered with
        self._held: bytes | None = None  # the answer, until something follows it
        self._abort_timer: TimerHandle | None = None  # runs while the connection is ending
        self._handshake_timer: TimerHandle | None = None
        self._late_pong = b""  # the answer to the latest ping, while there is no room for it
        self._on_departure: Callable[[], None] | None = None
        self._on_writable: Callable[[], None] | None = None
        self._backlog: memoryview | None = None  # what was read and is still to be taken
        self._next: Handle | None = None  # the call that goes on with it, or with reading
        self._intake: Intake | None = None  # from the first input on
        self._to_discard: int | None = None  # once the peer was told to go: what may still come
        self.is_writable = True
        """See :attr:`Outlet.is_writable`."""

    @classmethod
    def limited(cls, limits: IntakeLimits, *, handshake_timeout: float) -> type[WebSocketProtocol]:
        """Return this class with these limits: uvicorn makes the instances."""
        namespace = {"intake_limits": limits, "handshake_timeout": handshake_timeout, "__slots__": ()}
        return type(cls.__name__, (cls,), namespace)

    def connection_made(self, transport: BaseTransport) -> None:
        """Note the hand-over. uvicorn: waits without limit for a handshake to be complete."""
        super().connection_made(transport)
        self._handshake_timer = self.loop.call_later(self.handshake_timeout, self._abort_handshake)

    def open(self, opening: Opening, transport: Transport, request: HTTPScope) -> None:
        """Begin with a handshake that was read already. *request* is the scope that it has as a request."""
        self.connections.add(self)
        self.transport = transport
        self.server, self.client = request["server"], request["client"]
        self.scheme = "wss" if request["scheme"] == "https" else "ws"
        self._handshake_timer = self.loop.call_later(self.handshake_timeout, self._abort_handshake)
        self._accept = opening.accept
        self.conn.parser = Protocol.parse(self.conn)  # what comes next are frames
        next(self.conn.parser)
        self.handshake_initiated = True
        path, _, query = opening.target.partition(b"?")
        self.scope = {
            "type": "websocket",
            "asgi": request["asgi"] | {"spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": self.scheme,
            "server": self.server,
            "client": self.client,
            "root_path": self.root_path,
            "path": self.root_path + unquote(path.decode("ascii")),
            "raw_path": self.root_path.encode("ascii") + path,
            "query_string": query,
            "headers": opening.headers,
            "subprotocols": opening.subprotocols,
            "state": request["state"],
            "extensions": {"websocket.http.response": {}},
        }
        extensions: dict[Any, Any] = self.scope["extensions"]
        extensions[EXTENSION] = extensions[DEPARTURE] = self
        self.queue.put_nowait({"type": "websocket.connect"})
        task = self.loop.create_task(self.run_asgi())
        task.add_done_callback(self.on_task_complete)
        self.tasks.add(task)

    def data_received(self, data: bytes) -> None:
        """Handle input.

        uvicorn: takes all that a read brings in one turn of the loop, which for a
        read full of small frames is a third of a second, and queues it.
        """
        if self._to_discard is not None:
            self._discard(len(data))
        elif (
            self._next is not None or self._backlog is not None
        ):  # it was read after all, and has to wait its turn
            self._backlog = memoryview(bytes(self._backlog or b"") + data)
            self.transport.pause_reading()
        elif self.handshake_initiated and len(data) > self.portion:
            self._backlog = memoryview(data)
            self._take_portion()
        else:
            self._take(data)

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next ASGI event. uvicorn: then reads on, whatever else speaks against it."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._read_on()
        return message

    def handle_connect(self, event: Request) -> None:
        """Begin the handshake, and offer the outlet to the application."""
        super().handle_connect(event)
        if self.handshake_initiated and not self.handshake_complete and not self.conn.extensions:
            extensions: dict[Any, Any] = self.scope["extensions"]
            extensions[EXTENSION] = extensions[DEPARTURE] = self

    @property
    def is_slow(self) -> bool:
        """See :attr:`Outlet.is_slow`."""
        return not self.is_writable

    def write(self, messages: Sequence[bytes]) -> None:
        """See :meth:`Outlet.write`. All of *messages* leave in one write.

        uvicorn: a frame object, a walk through the state machine and a write
        for each message, which cost several times what the message does.
        """
        if self.close_sent or self.disconnected:
            return
        parts: list[bytes] = []
        if self._held is not None:
            parts.append(self._held)
            self._held = None
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

    @property
    def is_gone(self) -> bool:
        """See :attr:`Departing.is_gone`."""
        return bool(self.disconnected)

    def on_departure(self, callback: Callable[[], None] | None) -> None:
        """See :meth:`Departing.on_departure`."""
        self._on_departure = callback
        if callback is not None and self.disconnected:
            callback()

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
        """Answer a ping, as soon as there is room, and not before the handshake is answered.

        uvicorn: adds pongs to a full buffer, without limit when the peer doesn't
        read. RFC 6455, 5.5.3, lets us answer only the latest ping: that a slow
        reader gets, or it would take us for dead.
        """
        if self._to_discard is not None or not self._admits_control():
            return
        if self.handshake_complete and self.writable.is_set():
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

    def handle_pong(self, event: Frame) -> None:
        """Note a pong. One that nobody asked for is allowed (RFC 6455, 5.5.3), and counted like a ping."""
        awaited = self.pending_ping_payload
        super().handle_pong(event)
        if self._to_discard is None and (awaited is None or self.pending_ping_payload is not None):
            self._admits_control()

    def handle_close(self, event: Frame) -> None:
        """Answer a close frame. uvicorn: with another, be it in place of the handshake's answer."""
        if self.handshake_complete:
            super().handle_close(event)
        else:
            self._refuse()

    def send_500_response(self) -> None:
        """Note that the application has failed. uvicorn: closes the socket next, whatever was held for it."""
        self._release()
        super().send_500_response()

    def pause_writing(self) -> None:
        """Note that there is no room."""
        super().pause_writing()
        self.is_writable = False

    def resume_writing(self) -> None:
        """Note that there is room, send the pong that waited for it, and tell who writes."""
        super().resume_writing()
        self.is_writable = True
        if self._send_late_pong() and self._on_writable is not None:
            self._on_writable()

    def _send_late_pong(self) -> bool:
        """Send the pong that had to wait, and return whether anything can be sent."""
        pong, self._late_pong = self._late_pong, b""
        if self.close_sent or self.transport.is_closing():
            return False
        self.transport.write(pong)
        return True

    def handle_parser_exception(self) -> None:
        """Close.

        uvicorn: raises when a broken frame comes before the handshake is
        complete; and closes a socket in which there is unread input, which
        resets it, so that a peer that still sends seldom reads the close frame.
        """
        close = self.conn.close_sent
        if close is None:
            self._refuse()
        elif self._to_discard is None:
            ended: ASGIReceiveEvent = {
                "type": "websocket.disconnect",
                "code": close.code,
                "reason": close.reason,
            }
            self.queue.put_nowait(ended)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self._part()

    def eof_received(self) -> None:
        """Close: the peer will send nothing more. asyncio: unbounded flush, and no pings meanwhile."""
        super().eof_received()
        self._abort_after(self.flush_timeout)

    def keepalive_timeout(self) -> None:
        """Give up on a peer that answers no ping.

        uvicorn: the flush waits for the very peer that was just found dead.
        """
        if self._next is not None:
            # Its answer may be behind what it isn't allowed to have said yet.
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self._bound_flush()

    def shutdown(self) -> None:
        """Close with 1012. uvicorn: unbounded flush, and raises when the peer closed before."""
        self._release()
        if not self.transport.is_closing():
            super().shutdown()
        self._bound_flush()

    def send(self, message: ASGISendEvent) -> Coroutine[Any, Any, None]:
        """Send an ASGI event. Not a coroutine function itself: this is the hot path."""
        self._release()
        if message["type"] == "websocket.close":
            # uvicorn: waits for a writable socket before it closes it, so a
            # slow reader can't be closed at all; and when the peer doesn't
            # answer the close frame in time, an unbounded flush follows.
            self._abort_after(self.close_timeout)
            return self._send_close(message)
        elif message["type"] == "websocket.http.response.body":
            # uvicorn: takes a refusal for a handshake left unfinished, and logs an error for each.
            self.handshake_complete = True
        elif message["type"] == "websocket.accept" and self.initial_response is None:
            return self._send_accept(message)
        return super().send(message)

    async def _send_accept(self, message: WebSocketAcceptEvent) -> None:
        """Answer the handshake. uvicorn: has the answer put together from objects, and its date taken out."""
        accept, self._accept = self._accept, None
        if accept is None:
            await super().send(message)
            self._send_late_pong()
            return
        if self.disconnected:
            raise ClientDisconnected
        headers = [*self.default_headers, *message.get("headers", ())]
        if subprotocol := message.get("subprotocol"):
            headers.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
        if not self.transport.is_closing():
            self.handshake_complete = True
            self.conn.state = OPEN
            self._held = answer(accept, headers) + self._late_pong
            self._late_pong = b""
            self.loop.call_soon(self._release)
            self.start_keepalive()

    def _release(self) -> None:
        """Write what was held for the first message to leave with it: a write costs as much as either."""
        if (held := self._held) is not None:
            self._held = None
            self.transport.write(held)

    async def _send_close(self, message: ASGISendEvent) -> None:
        """Send a close frame. uvicorn: then reads on, whatever there is to take before the answer."""
        await super().send(message)
        if self._next is not None and not self._is_over:
            self.transport.pause_reading()
        else:
            self._read_on()

    async def run_asgi(self) -> None:
        """Run the application. uvicorn: unbounded flush when it returns without closing."""
        try:
            await super().run_asgi()
        finally:
            extensions: dict[Any, Any] = self.scope["extensions"]
            for own in (EXTENSION, DEPARTURE):
                extensions.pop(own, None)  # it leads back here, and nobody looks any more
        self._bound_flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        for timer in (self._abort_timer, self._handshake_timer, self._next):
            if timer is not None:
                timer.cancel()
        self._backlog = self._next = None
        super().connection_lost(exc)
        if self._on_departure is not None:
            self._on_departure()

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
        self.transport.write(output)
        self._part()

    # What comes.

    def _take(self, data: bytes) -> None:
        """Parse *data* and act on it.

        uvicorn: a close frame or a broken one ends in an unbounded flush; and
        a header that httptools takes but websockets refuses is never answered.
        """
        self._release()
        is_handshake = not self.handshake_initiated
        self.conn.receive_data(data)
        frames = len(self.conn.events)
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
        else:
            self.handle_events()
        if (
            self.conn.handshake_exc is not None
            and self._to_discard is None
            and not self.transport.is_closing()
        ):
            self._refuse()
        self._bound_flush()
        if self.intake_limits is None or is_handshake or self._is_over:
            return
        wait = self._account().charge(self.loop.time(), frames, len(data))
        if wait > 0 and self._next is None:
            self.transport.pause_reading()
            self._next = self.loop.call_later(wait, self._take_portion)

    def _take_portion(self) -> None:
        """Take some of what waits, and see to it that the rest is, or else that more is read."""
        self._next = None
        if (backlog := self._backlog) is not None:
            rest = backlog[self.portion :]
            self._backlog = rest if rest else None
            self._take(bytes(backlog[: self.portion]))
        if not self.read_paused:  # else it goes on once the application has taken what there is
            self._read_on()

    def _read_on(self) -> None:
        """Have the next portion taken, or more read, unless the peer has to wait."""
        if self._next is not None or self._is_over:
            return
        if self._backlog is not None:
            self.transport.pause_reading()
            self._next = self.loop.call_soon(self._take_portion)
        else:
            self.transport.resume_reading()

    @property
    def _is_over(self) -> bool:
        return self._to_discard is not None or self.transport.is_closing()

    def _account(self) -> Intake:
        if self._intake is None:
            assert self.intake_limits is not None
            self._intake = Intake(self.intake_limits)
        return self._intake

    def _admits_control(self) -> bool:
        """Count a ping or a pong, and return whether the connection goes on."""
        if self.intake_limits is None or self._account().admits_control(self.loop.time()):
            return True
        self._fail(1008, f"too many pings: at most {self.intake_limits.controls.per_second:g} a second")
        return False

    # How it ends.

    def _part(self) -> None:
        """Close because of what the peer did, so that it can read why (RFC 6455, 7.1.1).

        A socket that is closed while there is unread input is reset, and a peer
        that is sending then sees the reset, not what was sent before. So only
        our half is closed; what comes is read and dropped until the peer closes
        its own, for a limited time and amount. TLS has no half to close: there
        the peer learns from the close frame alone that it should.
        """
        self._to_discard = self.max_discarded
        if self._next is not None:
            self._next.cancel()
        self._backlog = self._next = None
        self.stop_keepalive()
        self._abort_after(self.flush_timeout)
        if self.close_timer is None:  # else uvicorn closes as soon as the application has ended
            self.close_timer = self.loop.call_later(self.flush_timeout, self.transport.close)
        self.close_sent = self.disconnected = True
        self.read_paused = False
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()

    def _discard(self, size: int) -> None:
        assert self._to_discard is not None
        self._to_discard -= size
        if self._to_discard < 0:
            self.transport.pause_reading()  # TCP holds it back until it is cut

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
