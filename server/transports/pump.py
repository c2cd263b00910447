"""One client's socket, pumped into and out of its session.

Three things go on, and none waits for another: the reader takes frames off the
socket and never works, so that pings are always answered; the worker, a task
while there is something to work on, takes them one by one to the session; and
whenever the cursor has something new, or the client takes more, what there is
is sent, from a callback. A slow client holds up nobody, and has no queue.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from starlette.types import Receive, Send
from structlog.contextvars import bind_contextvars
from structlog.typing import FilteringBoundLogger

from unbroken.server.auth.base import Grant
from unbroken.server.auth.lapse import Lapse
from unbroken.server.errors import CLOSE_REASONS, ERROR_MEANINGS, CloseCode
from unbroken.server.guards.injection.screening import Screen
from unbroken.server.limits import ConnectionLimits
from unbroken.server.metrics import Metrics
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.realtime.connection import RealtimeConnection
from unbroken.server.protocols.realtime.encode import Frame, error_frame
from unbroken.server.quota.asker import Asker
from unbroken.server.quota.base import Decision
from unbroken.server.quota.refusal import QuotaRefusal, rate_limits
from unbroken.server.transports.idle import IdleWatch
from unbroken.server.transports.outlet import AsgiOutlet, Outlet
from unbroken.server.transports.refusal import TOO_NEW, overloaded
from unbroken.server.transports.submission import Admit, Refer, Submission
from unbroken.sessions.clock import Clock
from unbroken.sessions.entries import Command, CreateItem, CreateResponse, Submitted
from unbroken.sessions.errors import (
    CursorLost,
    Displaced,
    NodeDraining,
    NodeFull,
    Refusal,
    SessionDeleted,
    SessionError,
    StoreUnavailable,
    TooManySessions,
    UnknownFormat,
)
from unbroken.sessions.node import Attachment
from unbroken.sessions.weak import weakly

__all__ = ["Admitted", "Pump"]

_ABNORMAL: Final = 1006
"""The close code of a connection that ended without one (RFC 6455, section 7.1.5)."""

_READ_LIMIT: Final = 512
"""Sequence numbers that the writer takes at a time."""

_BATCH_BYTES: Final = 16_384
"""What is sent in one write, with the last frame that still begins within it."""

_TURNS_TO_WORKER: Final = 16
"""Turns of the loop that the reader leaves to the worker after each frame: more than it takes in memory."""

_VOID: Final = {
    "store_unavailable": "What was sent before it couldn't be saved. Send that again, then this.",
    "content_filter": "What was sent before it was refused. Send something else, then this.",
    "guard_unavailable": "What was sent before it couldn't be checked. Send that again, then this.",
    "too_many_stored_sessions": "What was sent before it wasn't taken. Delete conversations, then send both.",
}
"""Why an item wasn't taken, and what is said of a request behind it."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A connection that was let in, and what it is attached to."""

    attachment: Attachment
    connection: RealtimeConnection
    token: str
    resumed: bool | None
    """None: it is a new session."""
    grant: Grant
    """What the client was let in with."""
    asker: Asker | None = None
    """Asks for budgets. None: nothing is counted."""
    trace: str | None = None
    """The trace that what it asks for belongs to."""


class Pump:
    """Moves frames between one socket and one attachment until either ends."""

    def __init__(
        self,
        admitted: Admitted,
        limits: ConnectionLimits,
        metrics: Metrics,
        clock: Clock,
        receive: Receive,
        send: Send,
        outlet: Outlet,
        refer: Refer,
        screen: Screen,
        admit: Admit,
        log: FilteringBoundLogger,
    ) -> None:
        self._submission = Submission(
            admitted.attachment,
            admitted.grant.principal,
            admitted.asker,
            screen,
            refer,
            admit,
            weakly(self._reserved),
            trace=admitted.trace,
        )
        self._admitted = admitted
        self._attachment = admitted.attachment
        self._cursor = admitted.attachment.cursor
        self._connection = admitted.connection
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._receive = receive
        self._send = send
        self._outlet = outlet
        self._pending: Iterator[bytes] | None = None  # frames of what was taken, encoded as they are sent
        self._inbox: deque[str | bytes] = deque()
        self._own: deque[Frame] = deque()  # frames for this client alone, until they are sent
        self._taken = asyncio.Event()  # one of them was
        self._checked = asyncio.Event()  # no guard looks at anything
        self._checked.set()
        self._heard = 0  # how many messages have come
        self._worker: asyncio.Task[None] | None = None  # there is one while there is something to work on
        self._cut = asyncio.timeout(None)  # ends the reading early
        self._is_over = False
        self._close: CloseCode | None = None
        self._left: int | None = None  # the close code that the client, or the transport, ended with
        self._is_durable = True  # as the client was told
        self._void: str | None = None  # why an item wasn't taken, since the last that was
        self._is_slow = False  # whether there is more to send than the client takes
        self._farewell: Frame | None = None  # for a close with POLICY: what it is about
        self._id = secrets.token_hex(6)
        self._log = log  # made once for all: it takes longer than most of a connection's beginning

    @property
    def _naming_log(self) -> FilteringBoundLogger:
        """Names the connection also where the log doesn't know: in what others call back."""
        return self._log.bind(session_id=self._attachment.session.id, connection_id=self._id)

    async def run(self) -> None:
        """Return when the connection has ended, by whichever side."""
        # In this connection's task and the worker alone; whatever they call logs them too.
        bind_contextvars(session_id=self._attachment.session.id, connection_id=self._id)
        self._log.debug("connection opened", resumed=self._admitted.resumed)
        async with self._sender():
            try:
                await self._converse()
                await self._work_off()
                await self._stop(self._worker)
                if self._close is not None:
                    await self._hang_up(self._close)
            finally:
                await self._stop(self._worker)
                self._metrics.inputs_waiting -= len(self._inbox)
                self._metrics.closed(self._close or self._left or _ABNORMAL)
        self._log.debug("connection closed", close_code=self._close)

    async def _converse(self) -> None:
        """Return when the client has left, or something on this side has ended the connection."""
        timeout = self._limits.idle_timeout
        watch = IdleWatch(self._clock, timeout, self._place, self._end_idle) if timeout else None
        try:
            async with self._cut:
                self._open()
                await self._read()
        except TimeoutError:
            if not self._cut.expired():
                raise
        finally:
            self._is_over = True
            self._cursor.listen(None)
            self._outlet.listen(None)
            if watch is not None:
                watch.close()
            self._note_slow(False)

    @asynccontextmanager
    async def _sender(self) -> AsyncIterator[None]:
        """Run the outlet's task meanwhile, where it needs one."""
        outlet = self._outlet
        task = asyncio.create_task(outlet.run()) if isinstance(outlet, AsgiOutlet) else None
        try:
            yield
        finally:
            await self._stop(task)

    async def _work_off(self) -> None:
        """Let the worker take what was received before the end: it may be a cancel."""
        if self._worker is not None and self._close is None:
            self._own.clear()  # nobody will read them
            self._taken.set()
            await asyncio.wait((self._worker,), timeout=self._limits.close_timeout)

    @staticmethod
    async def _stop(task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    def _place(self) -> object | None:
        """Return how far both sides have come; None: a response runs."""
        return None if self._attachment.session.is_running else (self._cursor.seq, self._heard)

    def _end_idle(self) -> None:
        self._end(CloseCode.IDLE)

    def _end(self, code: CloseCode) -> None:
        """End the connection, because of something on this side."""
        if not self._is_over:
            self._is_over = True
            self._close = code
            self._cut.reschedule(asyncio.get_running_loop().time())

    def lapse(self, reason: Lapse) -> None:
        """End the connection: what it was let in with no longer counts. The session, and its turn, go on."""
        if self._is_over:
            return
        self._metrics.lapsed.labels(reason.value).inc()
        self._farewell = error_frame(reason.value, ERROR_MEANINGS[reason.value])
        self._end(CloseCode.POLICY)

    def _fail(self, exc: Exception) -> None:
        """End the connection because of *exc*: a bug ends one connection, never more."""
        match exc:
            case CursorLost():
                self._metrics.fell_behind.inc()
                self._end(CloseCode.TRY_AGAIN)
            case NodeDraining() | StoreUnavailable():
                self._end(CloseCode.TRY_AGAIN)
            case SessionDeleted():
                self._farewell = error_frame("session_deleted", str(exc))
                self._end(CloseCode.POLICY)
            case Displaced():
                # Were it to come back by itself, and find its place taken again, it would never end.
                self._farewell = error_frame("too_many_connections", str(exc))
                self._end(CloseCode.POLICY)
            case UnknownFormat():
                self._farewell = error_frame("session_too_new", TOO_NEW)
                self._end(CloseCode.TRY_AGAIN)
            case SessionError():
                self._naming_log.warning("connection lost its session", reason=type(exc).__name__)
                self._end(CloseCode.INTERNAL)
            case _:
                self._naming_log.error("connection failed", exc_info=exc)
                self._end(CloseCode.INTERNAL)

    # From the client.

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._left = message.get("code")
                return
            self._heard += 1
            await self._room()
            data = message.get("text")
            if data is None:
                data = message.get("bytes") or b""
            if len(self._inbox) < self._limits.input_queue:
                self._inbox.append(data)
                self._metrics.inputs_waiting += 1
                if self._worker is None:
                    self._worker = asyncio.create_task(self._work())
            elif len(self._own) < self._limits.input_queue:
                error = "Events come too fast. Send this one again, later."
                self._say(error_frame("input_queue_full", error))
            else:
                # It neither waits nor listens.
                self._farewell = error_frame("input_queue_full", "Events come faster than answers are read.")
                self._close = CloseCode.POLICY
                return
            # What came in one read is handed out without a pause: let the worker have its share.
            for _ in range(_TURNS_TO_WORKER):
                await asyncio.sleep(0)
                if not self._inbox:
                    break

    async def _room(self) -> None:
        """Wait while the inbox is full and guards look at what is first: that isn't the client's fault."""
        most = self._limits.input_queue
        if len(self._inbox) >= most and not self._checked.is_set():
            await self._checked.wait()
            for _ in range(_TURNS_TO_WORKER):
                if len(self._inbox) < most:
                    break
                await asyncio.sleep(0)

    async def _work(self) -> None:
        try:
            while self._inbox:
                while len(self._own) >= self._limits.input_queue and not self._is_over:
                    # It doesn't read its answers: they must not pile up.
                    self._taken.clear()
                    await self._taken.wait()
                await self._take(self._inbox[0])
                self._inbox.popleft()
                self._metrics.inputs_waiting -= 1
        except Exception as exc:  # noqa: BLE001 - the boundary: it is told of there
            self._fail(exc)
        finally:
            self._worker = None

    async def _take(self, data: str | bytes) -> None:
        answer = self._understand(data)
        if not isinstance(answer, Submitted):
            # It may speak of what was sent before it, and must not be answered sooner.
            await self._submission.catch_up()
            answer = self._understand(data)
        own = await self._submit(answer) if isinstance(answer, Submitted) else answer
        if own is not None:
            self._say(own)

    def _understand(self, data: str | bytes) -> Submitted | Frame:
        try:
            return self._connection.receive(data)
        except DecodeError as error:
            return _error(error, error.event_id)

    async def _submit(self, submitted: Submitted) -> Frame | None:
        """Write an input. Its answer comes through the log, unless it can't be taken."""
        name = submitted.event_id
        try:
            self._check_void(submitted.command)
            if type(submitted.command) is CreateItem:
                # It is read together with what was said before: with what was sent just now, too.
                await self._submission.catch_up()
            await self._check(submitted.command)
            await self._submission.write(submitted)
        except QuotaRefusal as refusal:
            return _error(refusal, name, refusal.retry_after, type="rate_limit_error")
        except Refusal as refusal:
            if refusal.code in _VOID and type(submitted.command) is CreateItem:
                self._void = refusal.code
            # All who are refused would come back in the same moment.
            wait = overloaded().retry_after if refusal.code == "server_overloaded" else None
            return _error(refusal, name, wait)
        except NodeFull as full:
            return _error(Refusal("server_full", str(full)), name)
        except TooManySessions as many:
            return _error(Refusal("too_many_sessions_of_key", str(many)), name)
        if type(submitted.command) is CreateItem:
            self._void = None
        return None

    async def _check(self, command: Command) -> None:
        self._checked.clear()
        try:
            await self._submission.check(command)
        finally:
            self._checked.set()

    def _reserved(self, decision: Decision) -> None:
        if limits := rate_limits(decision):
            self._say({"type": "rate_limits.updated", "rate_limits": limits})

    def _check_void(self, command: Command) -> None:
        """Refuse a request, once, whose item wasn't taken: it would be answered without that.

        Whoever sends both in one breath has not seen the first refusal. One that is sent once more is meant.
        """
        if self._void is not None and type(command) is CreateResponse:
            code, self._void = self._void, None
            raise Refusal(code, _VOID[code])

    # To the client.

    def _open(self) -> None:
        attachment = self._attachment
        self._is_durable = self._cursor.is_durable
        self._pending = self._connection.opening(
            self._admitted.token,
            resumed=self._admitted.resumed,
            preamble=attachment.take_preamble(),
            is_durable=self._is_durable,
        )
        self._cursor.listen(self._flush)
        self._outlet.listen(self._flush)
        self._flush()

    def _say(self, frame: Frame) -> None:
        """Send what is for this client alone, behind what it is sent already."""
        if self._is_over:
            return
        if frame["type"] == "error":
            self._metrics.input_errors.labels(frame["error"]["code"]).inc()
        self._own.append(frame)
        self._flush()

    def _flush(self) -> None:
        """Send what there is, as long as the client keeps up. Called whenever either may have changed."""
        outlet = self._outlet
        try:
            while outlet.is_writable and not self._is_over and self._fetch():
                if batch := self._batch():  # not every record is something to this client
                    outlet.write(batch)
                is_done = self._cursor.is_at_head and self._pending is None and not self._own
                is_told = self._cursor.is_durable is self._is_durable
                if is_done and is_told and not self._attachment.is_ending:
                    if self._is_slow:
                        self._note_slow(False)
                    break  # the usual case
            else:
                self._note_slow(outlet.is_slow and not (outlet.is_writable or self._is_over))
        except Exception as exc:  # noqa: BLE001 - the boundary: it is told of there
            self._fail(exc)

    def _note_slow(self, is_slow: bool) -> None:
        if is_slow and not self._is_slow:
            self._metrics.slow.inc()
            self._metrics.slowed.inc()
        elif self._is_slow and not is_slow:
            self._metrics.slow.dec()
        self._is_slow = is_slow

    def _fetch(self) -> bool:
        """Return whether there is something to send now."""
        if self._pending is None:
            records = self._cursor.take(_READ_LIMIT)
            if records:
                self._pending = self._connection.records(records)
            elif self._own:
                self._taken.set()
                self._pending = iter([self._connection.own(self._own.popleft())])
            elif self._cursor.is_durable is not self._is_durable:
                self._is_durable = not self._is_durable
                self._pending = iter([self._connection.durability(self._is_durable)])
            elif self._attachment.is_finished:
                self._end(CloseCode.RESTART)
        return self._pending is not None

    def _batch(self) -> list[bytes]:
        """Take some of what is pending: as many frames as are worth a write."""
        assert self._pending is not None
        frames: list[bytes] = []
        size = 0
        for frame in self._pending:
            frames.append(frame)
            size += len(frame)
            if size >= _BATCH_BYTES:
                return frames
        self._pending = None
        return frames

    async def _hang_up(self, code: CloseCode) -> None:
        """Close, unless the client doesn't take even that in time."""
        try:
            async with asyncio.timeout(self._limits.close_timeout):
                await self._outlet.flushed()
                if self._farewell is not None:
                    frame = self._connection.own(self._farewell).decode()
                    await self._send({"type": "websocket.send", "text": frame})
                await self._send({"type": "websocket.close", "code": code, "reason": CLOSE_REASONS[code]})
        except (TimeoutError, OSError):
            pass


def _error(
    error: DecodeError | Refusal,
    event_id: str | None,
    retry_after: int | None = None,
    *,
    type: str = "invalid_request_error",
) -> Frame:
    return error_frame(
        error.code, error.message, type=type, param=error.param, event_id=event_id, retry_after=retry_after
    )
