"""The door ``WS /v1/realtime``: one client's socket, pumped into and out of its session.

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
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias
from weakref import WeakValueDictionary

import structlog
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bind_contextvars
from structlog.typing import FilteringBoundLogger

from unbroken.server.auth import Authenticator, LongLivedKey, Unauthenticated
from unbroken.server.errors import CLOSE_REASONS, CloseCode
from unbroken.server.files.base import FileStore
from unbroken.server.files.references import Referring, needs_files, referring
from unbroken.server.limits import ConnectionLimits
from unbroken.server.metrics import Metrics
from unbroken.server.models import Models
from unbroken.server.protocols.cursor import parse_cursor
from unbroken.server.protocols.realtime.connection import RealtimeConnection, Submission
from unbroken.server.protocols.realtime.decode import DecodeError
from unbroken.server.protocols.realtime.encode import Frame, RealtimeEncoder, error_frame
from unbroken.server.resume import ResumeTokens
from unbroken.server.transports.admission import Admission, Guest
from unbroken.server.transports.handshake import Handshake, is_loopback_name
from unbroken.server.transports.idle import IdleWatch
from unbroken.server.transports.outlet import AsgiOutlet, Outlet, outlet_of
from unbroken.server.transports.refusal import RefusalLog, Refused, overloaded, refuse
from unbroken.sessions.backends.base import Receipt
from unbroken.sessions.clock import Clock
from unbroken.sessions.entries import Command
from unbroken.sessions.errors import (
    CursorLost,
    Displaced,
    NodeDraining,
    NodeFull,
    NodeOverloaded,
    Refusal,
    SessionError,
    SessionNotFound,
    TooManyConnections,
)
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import ChainId, Incarnation, Nonce, PrincipalId, SessionId, new_chain_id
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.node import Attachment, Node

__all__ = ["RealtimeDoor"]

_ABNORMAL: Final = 1006
"""The close code of a connection that ended without one (RFC 6455, section 7.1.5)."""

_READ_LIMIT: Final = 512
"""Sequence numbers that the writer takes at a time."""

_BATCH_BYTES: Final = 16_384
"""What is sent in one write, with the last frame that still begins within it."""

_TURNS_TO_WORKER: Final = 16
"""Turns of the loop that the reader leaves to the worker after each frame: more than it takes in memory."""


_Refer: TypeAlias = Callable[[Command, PrincipalId], AbstractAsyncContextManager[Referring]]
"""Has an input's references stand for files."""


class RealtimeDoor:
    """An ASGI application for WebSocket scopes."""

    def __init__(
        self,
        *,
        node: Node,
        authenticator: Authenticator,
        tokens: ResumeTokens,
        models: Models,
        defaults: SessionConfig,
        limits: ConnectionLimits,
        admission: Admission,
        allowed_origins: tuple[str, ...],
        loopback_only: bool,
        metrics: Metrics,
        files: FileStore | None = None,
        file_lifetime: float = 86400.0,
        clock: Clock,
    ) -> None:
        self._node = node
        self._files = files
        self._file_lifetime = file_lifetime
        self._authenticator = authenticator
        self._tokens = tokens
        self._models = models
        self._defaults = defaults
        self._limits = limits
        self._admission = admission
        self._clock = clock
        self._allowed_origins = allowed_origins
        self._encoders: WeakValueDictionary[tuple[SessionId, Incarnation], RealtimeEncoder] = (
            WeakValueDictionary()
        )
        self._loopback_only = loopback_only
        self._metrics = metrics
        self._refusals = RefusalLog(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection from its handshake to its end."""
        await receive()  # websocket.connect
        handshake = Handshake.of(scope)
        client = scope.get("client")
        peer = client[0] if client else None
        guest = self._admission.guest(peer, handshake.forwarded)
        try:
            admitted = await self._let_in(handshake, guest, peer, send)
            if admitted is None:
                return
            subprotocol = handshake.subprotocol
            del handshake  # a connection may live for days
            try:
                await send({"type": "websocket.accept", "subprotocol": subprotocol})
                self._metrics.opened.inc()
                with self._metrics.connections.track_inprogress():
                    outlet = outlet_of(scope, send)
                    pump = _Pump(
                        admitted, self._limits, self._metrics, self._clock, receive, send, outlet, self._refer
                    )
                    await pump.run()
            finally:
                admitted.attachment.close()
        finally:
            guest.leave()

    async def _let_in(
        self, handshake: Handshake, guest: Guest, peer: str | None, send: Send
    ) -> _Admitted | None:
        """Return what there is to connect to; None: the client was told why there is nothing."""
        try:
            return await self._admit(handshake, guest)
        except Refused as refused:
            self._metrics.refused.labels(refused.code).inc()
            self._refusals.note(refused, peer)
            await refuse(refused, handshake, send)
            return None

    def _refer(self, command: Command, principal: PrincipalId) -> AbstractAsyncContextManager[Referring]:
        return referring(command, principal, self._files, lifetime=self._file_lifetime)

    async def _admit(self, handshake: Handshake, guest: Guest) -> _Admitted:
        if self._node.is_draining:
            raise Refused(503, "server_draining", str(NodeDraining()), CloseCode.RESTART)
        if handshake.resume is None and not self._node.takes_sessions:
            # First of all: an overloaded server has no time for more than this.
            raise overloaded()
        guest.enter()
        if self._loopback_only and not is_loopback_name(handshake.host):
            message = (
                "Without keys this server is for this machine only: address it as 127.0.0.1 or localhost. "
                "The operator can set UNBROKEN_API_KEYS to serve other names."
            )
            raise Refused(403, "host_not_allowed", message)
        if not handshake.is_readable:
            raise Refused(
                400, "invalid_query", "The query of the address is too long, or has too many fields."
            )
        if not handshake.comes_from(self._allowed_origins):
            message = (
                "Pages of this origin may not connect. The operator can list it in UNBROKEN_ALLOWED_ORIGINS."
            )
            raise Refused(403, "origin_not_allowed", message)
        if handshake.is_beta:
            message = (
                "The beta version of the Realtime API isn't offered. Leave out `OpenAI-Beta: realtime=v1`."
            )
            raise Refused(400, "beta_api_shape_disabled", message)
        try:
            principal = await self._authenticator.authenticate(handshake.credentials)
        except Unauthenticated as exc:
            guest.failed()
            code = "api_key_in_browser" if isinstance(exc, LongLivedKey) else "invalid_api_key"
            raise Refused(401, code, str(exc)) from None
        guest.admit(principal.id)
        model = self._models.resolve(handshake.model)
        if model is None:
            message = f"The model isn't offered here. Use one of: {', '.join(self._models.names)}."
            raise Refused(404, "model_not_found", message)
        try:
            if handshake.resume is not None:
                return await self._resume(handshake.resume, handshake.after, principal.id)
            return await self._begin(principal.id, model)
        except SessionNotFound as exc:
            raise Refused(101, "session_not_found", str(exc)) from None
        except NodeDraining as exc:
            raise Refused(503, "server_draining", str(exc), CloseCode.RESTART) from None
        except NodeOverloaded:
            raise overloaded() from None
        except NodeFull as exc:
            raise Refused(503, "server_full", str(exc), CloseCode.TRY_AGAIN) from None
        except TooManyConnections as exc:
            raise Refused(101, "too_many_connections", str(exc), CloseCode.TRY_AGAIN) from None

    async def _begin(self, principal: PrincipalId, model: str) -> _Admitted:
        config = SessionConfig(
            model=model,
            instructions=self._defaults.instructions,
            max_output_tokens=self._defaults.max_output_tokens,
            concurrency=self._defaults.concurrency,
        )
        chain = new_chain_id()
        attachment = await self._node.create(principal, config, chain)
        self._metrics.attached.labels("new").inc()
        return self._admitted(attachment, chain, principal)

    async def _resume(self, token: str, after: str | None, principal: PrincipalId) -> _Admitted:
        named = self._tokens.check(token, principal)
        if named is None:
            raise SessionNotFound
        session_id, chain = named
        cursor = None if after is None else parse_cursor(after)
        if after is not None and cursor is None:
            # It isn't a cursor of ours: as unusable as one from the future.
            cursor = Position(Incarnation(""), 0, Nonce(0)), 0
        position, remaining = (None, 0) if cursor is None else cursor
        attachment = await self._node.attach(session_id, principal, position, chain, repeat=remaining > 0)
        resumed = attachment.resumed
        self._metrics.attached.labels("resumed" if resumed else "reset").inc()
        if not resumed or position is None:
            return self._admitted(attachment, chain, principal, resumed=resumed)
        return self._admitted(
            attachment, chain, principal, resumed=True, position=position, remaining=remaining
        )

    def _admitted(
        self,
        attachment: Attachment,
        chain: ChainId,
        principal: PrincipalId,
        *,
        resumed: bool | None = None,
        position: Position | None = None,
        remaining: int = 0,
    ) -> _Admitted:
        start = position or attachment.cursor.position()
        connection = RealtimeConnection(
            attachment.session,
            start,
            chain,
            max_depth=self._limits.frame_depth,
            remaining=remaining,
            encoder=self._encoder_of(attachment.session.id, start.incarnation),
            refusals_from=attachment.session.applied if position is None else 0,
            most_tokens=self._defaults.max_output_tokens,
        )
        token = self._tokens.mint(attachment.session.id, chain, principal)
        return _Admitted(attachment, connection, token, resumed, principal)

    def _encoder_of(self, session_id: SessionId, incarnation: Incarnation) -> RealtimeEncoder:
        """Return the encoder that all connections of a session share, as long as there is one."""
        encoder = self._encoders.get((session_id, incarnation))
        if encoder is None:
            encoder = self._encoders[session_id, incarnation] = RealtimeEncoder(session_id, incarnation)
        return encoder


@dataclass(frozen=True, slots=True)
class _Admitted:
    attachment: Attachment
    connection: RealtimeConnection
    token: str
    resumed: bool | None
    """None: it is a new session."""
    principal: PrincipalId


class _Pump:
    """Moves frames between one socket and one attachment until either ends."""

    def __init__(
        self,
        admitted: _Admitted,
        limits: ConnectionLimits,
        metrics: Metrics,
        clock: Clock,
        receive: Receive,
        send: Send,
        outlet: Outlet,
        refer: _Refer,
    ) -> None:
        self._refer = refer
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
        self._heard = 0  # how many messages have come
        self._submitted = 0  # the last input that was written
        self._worker: asyncio.Task[None] | None = None  # there is one while there is something to work on
        self._cut = asyncio.timeout(None)  # ends the reading early
        self._is_over = False
        self._close: CloseCode | None = None
        self._left: int | None = None  # the close code that the client, or the transport, ended with
        self._is_slow = False  # whether there is more to send than the client takes
        self._farewell: Frame | None = None  # for a close with POLICY: what it is about
        self._log: FilteringBoundLogger = structlog.get_logger()

    async def run(self) -> None:
        """Return when the connection has ended, by whichever side."""
        # In this connection's task and the worker alone; whatever they call logs them too.
        connection_id = secrets.token_hex(6)
        bind_contextvars(session_id=self._attachment.session.id, connection_id=connection_id)
        self._log = self._log.bind(session_id=self._attachment.session.id, connection_id=connection_id)
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

    def _fail(self, exc: Exception) -> None:
        """End the connection because of *exc*: a bug ends one connection, never more."""
        match exc:
            case CursorLost():
                self._metrics.fell_behind.inc()
                self._end(CloseCode.TRY_AGAIN)
            case NodeDraining():
                self._end(CloseCode.TRY_AGAIN)
            case Displaced():
                # Were it to come back by itself, and find its place taken again, it would never end.
                self._farewell = error_frame("too_many_connections", str(exc))
                self._end(CloseCode.POLICY)
            case SessionError():
                self._log.warning("connection lost its session", reason=type(exc).__name__)
                self._end(CloseCode.INTERNAL)
            case _:
                self._log.error("connection failed", exc_info=exc)
                self._end(CloseCode.INTERNAL)

    # From the client.

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._left = message.get("code")
                return
            self._heard += 1
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
        if not isinstance(answer, Submission):
            # It may speak of what was sent before it, and must not be answered sooner.
            await self._attachment.answered(self._submitted)
            answer = self._understand(data)
        own = await self._submit(answer) if isinstance(answer, Submission) else answer
        if own is not None:
            self._say(own)

    def _understand(self, data: str | bytes) -> Submission | Frame:
        try:
            return self._connection.receive(data)
        except DecodeError as error:
            return _error(error, error.event_id)

    async def _submit(self, submission: Submission) -> Frame | None:
        """Write an input. Its answer comes through the log, unless it can't be taken."""
        name = submission.submitted.event_id
        submitted = submission.submitted
        try:
            if needs_files(submitted.command):
                receipt = await self._submit_with_files(submission)
            else:
                receipt = await self._attachment.submit(submission.key, submitted)
        except Refusal as refusal:
            return _error(refusal, name)
        except NodeFull as full:
            return _error(Refusal("server_full", str(full)), name)
        self._submitted = max(self._submitted, receipt.seq)  # a duplicate's is an old one
        return None

    async def _submit_with_files(self, submission: Submission) -> Receipt:
        """Write an input that refers to files, once these are there."""
        submitted = submission.submitted
        async with self._refer(submitted.command, self._admitted.principal) as referring:
            whole = replace(submitted, command=referring.command)
            receipt = await self._attachment.submit(submission.key, whole)
            referring.is_wanted = not receipt.duplicate
        return receipt

    # To the client.

    def _open(self) -> None:
        attachment = self._attachment
        self._pending = self._connection.opening(
            self._admitted.token, resumed=self._admitted.resumed, preamble=attachment.take_preamble()
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
                if is_done and not self._attachment.is_ending:
                    if self._is_slow:
                        self._note_slow(False)
                    break  # the usual case
            else:
                self._note_slow(not (outlet.is_writable or self._is_over))
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


def _error(error: DecodeError | Refusal, event_id: str | None) -> Frame:
    return error_frame(error.code, error.message, param=error.param, event_id=event_id)
