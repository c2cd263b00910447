"""One client's socket on which several things are said at once, each at its own pace.

For protocols in which a connection isn't one session. Like :mod:`unbroken.server.transports.pump`: the reader
never works, so that pings are always answered; what there is to say is taken from where it is, as long as the
client keeps up, by turns; and nothing is queued but what is this connection's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol

import structlog
from starlette.types import Receive, Send

from unbroken.server.auth.lapse import Lapse
from unbroken.server.errors import CLOSE_REASONS, ERROR_MEANINGS, CloseCode
from unbroken.server.limits import ConnectionLimits
from unbroken.server.metrics import Metrics
from unbroken.server.transports.idle import IdleWatch
from unbroken.server.transports.outlet import AsgiOutlet, Outlet
from unbroken.server.transports.refusal import SayAlone
from unbroken.sessions.clock import Clock

__all__ = ["FrameSource", "Hear", "Talk"]

_MOST_OWN_BYTES: Final = 8 << 20
"""Of what may wait for a client that doesn't read, beside one frame."""

_ABNORMAL: Final = 1006
"""The close code of a connection that ended without one (RFC 6455, section 7.1.5)."""


class FrameSource(Protocol):
    """What has something to say, now and then. Nothing here raises."""

    @property
    def is_over(self) -> bool:
        """Whether nothing comes behind what was read last."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is over here alone, and goes on on another node: its client is to come to that."""

    def read(self) -> list[bytes]:
        """Return the frames that are to be sent now, not too many at once; none: nothing for the moment."""

    def listen(self, callback: Callable[[], None] | None) -> None:
        """Call *callback* whenever there may be something to read. None: nobody any more."""

    def close(self) -> None:
        """Let go of everything: nobody reads any more. It stops nothing."""


class Hear(Protocol):
    """Takes what the client says, one message after another. It doesn't wait."""

    def __call__(self, data: str | bytes) -> None:
        """Take a message."""


class Talk:
    """One connection, from its acceptance to its end.

    Args:
        hear: Takes what the client says.
        say_alone: Makes an error of the protocol.
        limits: What a connection may do.
        metrics: Where figures go.
        clock: Where time comes from.
        receive: ASGI's.
        send: ASGI's.
        outlet: Where frames go.

    """

    def __init__(
        self,
        hear: Hear,
        say_alone: SayAlone,
        limits: ConnectionLimits,
        metrics: Metrics,
        clock: Clock,
        receive: Receive,
        send: Send,
        outlet: Outlet,
    ) -> None:
        self._hear = hear
        self._say_alone = say_alone
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._receive = receive
        self._send = send
        self._outlet = outlet
        self._own: deque[bytes] = deque()  # frames for this client alone, until they are sent
        self._own_size = 0  # bytes of these
        self._taken = asyncio.Event()  # set whenever the client may have taken all of it
        self._sources: dict[FrameSource, Callable[[], None]] = {}  # and what to call when each is over
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut = asyncio.timeout(None)  # ends the reading early
        self._heard = self._said = 0
        self._at_end: Callable[[], None] = lambda: None
        self._is_over = self._is_leaving = False
        self._close: int | None = None
        self._reason = ""  # and why
        self._left: int | None = None
        self._farewell: bytes | None = None

    # What its door does.

    @property
    def is_silent(self) -> bool:
        """Whether nothing is being said, or worked on."""
        return not (self._sources or self._tasks)

    def at_end(self, callback: Callable[[], None]) -> None:
        """Have *callback* be called once the connection has ended, behind all that was being done."""
        self._at_end = callback

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do *work* beside; it ends with the connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            structlog.get_logger().error("connection failed", exc_info=exc)
            self.end(CloseCode.INTERNAL)
        elif self._is_leaving and self.is_silent:
            self.end(CloseCode.RESTART)

    def leave(self) -> None:
        """End the connection as soon as nothing is being said: it is to go on elsewhere."""
        self._is_leaving = True
        if self.is_silent:
            self.end(CloseCode.RESTART)

    def say(self, frame: bytes) -> None:
        """Send what is for this client alone. One that doesn't read what it asks for is sent away."""
        if self._is_over:
            return
        size = self._own_size + len(frame)
        if len(self._own) >= self._limits.input_queue or (self._own and size > _MOST_OWN_BYTES):
            message = "Messages come faster than answers are read."
            self.end(CloseCode.POLICY, self._say_alone("input_queue_full", message, status=429))
            return
        self._own.append(frame)
        self._own_size = size
        self._flush()

    async def room(self) -> None:
        """Wait until the client keeps up: what is long is made no earlier."""
        while self._own or not self._outlet.is_writable:
            self._taken.clear()
            await self._taken.wait()

    def add(self, source: FrameSource, on_over: Callable[[], None]) -> None:
        """Send what *source* says, too. In the end it is closed, and *on_over* called if it was over."""
        if self._is_over:
            source.close()
            return
        self._sources[source] = on_over
        source.listen(self._flush)
        self._flush()

    def end(self, code: int, farewell: bytes | None = None, *, reason: str | None = None) -> None:
        """End the connection, because of something on this side. What runs goes on.

        *code* is one of the server's, or else one of the protocol's own, with a *reason* of up to 123 bytes.
        """
        if not self._is_over:
            self._is_over = True
            self._close, self._farewell = code, farewell
            self._reason = CLOSE_REASONS[CloseCode(code)] if reason is None else reason
            self._cut.reschedule(asyncio.get_running_loop().time())

    def lapse(self, reason: Lapse) -> None:
        """End the connection: what it was let in with no longer counts."""
        if not self._is_over:
            self._metrics.lapsed.labels(reason.value).inc()
            farewell = self._say_alone(reason.value, ERROR_MEANINGS[reason.value], status=401)
            self.end(CloseCode.POLICY, farewell)

    # From its beginning to its end.

    async def run(self) -> None:
        """Return when the connection has ended, by whichever side."""
        outlet = self._outlet
        sending = asyncio.create_task(outlet.run()) if isinstance(outlet, AsgiOutlet) else None
        timeout = self._limits.idle_timeout
        watch = IdleWatch(self._clock, timeout, self._place, self._end_idle) if timeout else None
        outlet.listen(self._flush)
        try:
            try:
                async with self._cut:
                    await self._read()
            except TimeoutError:
                if not self._cut.expired():
                    raise
            self._let_go()
            if self._close is not None:
                await self._hang_up(self._close)
        finally:
            self._let_go()
            if watch is not None:
                watch.close()
            outlet.listen(None)
            try:
                await self._stop(*self._tasks, *([] if sending is None else [sending]))
            finally:
                self._at_end()
            self._metrics.closed(self._close or self._left or _ABNORMAL)

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._left = message.get("code")
                return
            self._heard += 1
            data = message.get("text")
            self._hear(message.get("bytes") or b"" if data is None else data)
            await asyncio.sleep(0)  # what came in one read is handed out without a pause

    def _place(self) -> object | None:
        """Return how far both sides have come; None: something is being done."""
        return (self._heard, self._said) if self.is_silent else None

    def _end_idle(self) -> None:
        self.end(CloseCode.IDLE)

    def _let_go(self) -> None:
        self._is_over = True
        sources, self._sources = self._sources, {}
        for source in sources:
            source.listen(None)
            source.close()

    @staticmethod
    async def _stop(*tasks: asyncio.Task[None]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _flush(self) -> None:
        """Send what there is, as long as the client keeps up. Called whenever either may have changed."""
        outlet = self._outlet
        try:
            while outlet.is_writable and not self._is_over and (frames := self._next()):
                self._said += len(frames)
                outlet.write(frames)
            if outlet.is_writable:
                self._taken.set()
        except Exception as exc:  # noqa: BLE001 - the boundary: it is called back by what others wake
            structlog.get_logger().error("connection failed", exc_info=exc)
            self.end(CloseCode.INTERNAL)

    def _next(self) -> list[bytes]:
        """Return what is to be sent next: this connection's own, else of whoever has waited longest."""
        if self._own:
            frames = list(self._own)
            self._own.clear()
            self._own_size = 0
            return frames
        for source in list(self._sources):
            frames = source.read()
            on_over = self._sources.pop(source)
            if source.is_over:
                source.listen(None)
                source.close()
                asyncio.get_running_loop().call_soon(on_over)
                if source.is_elsewhere:
                    self.end(CloseCode.RESTART)
            else:
                self._sources[source] = on_over  # it is behind the others now
            if frames:
                return frames
        return []

    async def _hang_up(self, code: int) -> None:
        """Close, unless the client doesn't take even that in time."""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(self._limits.close_timeout):
                await self._outlet.flushed()
                if self._farewell is not None:
                    await self._send({"type": "websocket.send", "text": self._farewell.decode()})
                await self._send({"type": "websocket.close", "code": code, "reason": self._reason})
