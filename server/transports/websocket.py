"""The door ``WS /v1/realtime``: one client's socket, pumped into and out of its session.

Three things go on at once, and none waits for another: the reader takes frames
off the socket and never works, so that pings are always answered; the worker
takes them one by one to the session; the writer sends what the cursor yields.
A slow client only holds up its own writer, which has no queue.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio
import orjson
import structlog
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from unbroken.server.auth import Authenticator, Unauthenticated
from unbroken.server.errors import CLOSE_REASONS, CloseCode
from unbroken.server.limits import ConnectionLimits
from unbroken.server.metrics import Metrics
from unbroken.server.models import Models
from unbroken.server.protocols.cursor import parse_cursor
from unbroken.server.protocols.realtime.connection import RealtimeConnection, Submission, lone_error
from unbroken.server.protocols.realtime.decode import DecodeError
from unbroken.server.protocols.realtime.encode import Frame, error_frame
from unbroken.server.resume import ResumeTokens
from unbroken.server.transports.handshake import Handshake, is_loopback_name
from unbroken.sessions.errors import (
    CursorLost,
    NodeDraining,
    NodeFull,
    Refusal,
    SessionError,
    SessionNotFound,
    TooManyConnections,
)
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import ChainId, Incarnation, Nonce, PrincipalId, new_chain_id
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.node import Attachment, Node

__all__ = ["RealtimeDoor"]

_RETRY_AFTER: Final = "2"
_READ_LIMIT: Final = 512
"""Sequence numbers that the writer takes at a time."""

_TURNS_TO_WORKER: Final = 16
"""Turns of the loop that the reader leaves to the worker after each frame: more than it takes in memory."""


class _Refused(Exception):
    """The connection can't be had."""

    def __init__(self, status: int, code: str, message: str, close: CloseCode = CloseCode.POLICY) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.close = close


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
        allowed_origins: tuple[str, ...],
        loopback_only: bool,
        metrics: Metrics,
    ) -> None:
        self._node = node
        self._authenticator = authenticator
        self._tokens = tokens
        self._models = models
        self._defaults = defaults
        self._limits = limits
        self._allowed_origins = allowed_origins
        self._loopback_only = loopback_only
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection from its handshake to its end."""
        await receive()  # websocket.connect
        handshake = Handshake.of(scope)
        try:
            admitted = await self._admit(handshake)
        except _Refused as refused:
            self._metrics.refused.labels(refused.code).inc()
            await _refuse(refused, handshake, send)
            return
        try:
            await send({"type": "websocket.accept", "subprotocol": handshake.subprotocol})
            with self._metrics.connections.track_inprogress():
                pump = _Pump(admitted, self._limits, self._metrics, receive, send)
                await pump.run()
        finally:
            admitted.attachment.close()

    async def _admit(self, handshake: Handshake) -> _Admitted:
        if self._node.is_draining:
            raise _Refused(503, "server_draining", str(NodeDraining()), CloseCode.RESTART)
        if self._loopback_only and not is_loopback_name(handshake.host):
            message = (
                "Without keys this server is for this machine only: address it as 127.0.0.1 or localhost. "
                "The operator can set UNBROKEN_API_KEYS to serve other names."
            )
            raise _Refused(403, "host_not_allowed", message)
        if not handshake.is_readable:
            raise _Refused(
                400, "invalid_query", "The query of the address is too long, or has too many fields."
            )
        if not handshake.comes_from(self._allowed_origins):
            message = (
                "Pages of this origin may not connect. The operator can list it in UNBROKEN_ALLOWED_ORIGINS."
            )
            raise _Refused(403, "origin_not_allowed", message)
        if handshake.is_beta:
            message = (
                "The beta version of the Realtime API isn't offered. Leave out `OpenAI-Beta: realtime=v1`."
            )
            raise _Refused(400, "beta_api_shape_disabled", message)
        try:
            principal = await self._authenticator.authenticate(handshake.credentials)
        except Unauthenticated as exc:
            raise _Refused(401, "invalid_api_key", str(exc)) from None
        model = self._models.resolve(handshake.model)
        if model is None:
            message = f"The model isn't offered here. Use one of: {', '.join(self._models.names)}."
            raise _Refused(404, "model_not_found", message)
        try:
            if handshake.resume is not None:
                return await self._resume(handshake.resume, handshake.after, principal.id)
            return await self._begin(principal.id, model)
        except SessionNotFound as exc:
            raise _Refused(101, "session_not_found", str(exc)) from None
        except NodeDraining as exc:
            raise _Refused(503, "server_draining", str(exc), CloseCode.RESTART) from None
        except NodeFull as exc:
            raise _Refused(503, "server_full", str(exc), CloseCode.TRY_AGAIN) from None
        except TooManyConnections as exc:
            raise _Refused(101, "too_many_connections", str(exc), CloseCode.TRY_AGAIN) from None

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
        connection = RealtimeConnection(
            attachment.session,
            position or attachment.cursor.position(),
            chain,
            max_depth=self._limits.frame_depth,
            remaining=remaining,
            refusals_from=attachment.session.applied if position is None else 0,
        )
        token = self._tokens.mint(attachment.session.id, chain, principal)
        return _Admitted(attachment, connection, token, resumed)


@dataclass(frozen=True, slots=True)
class _Admitted:
    attachment: Attachment
    connection: RealtimeConnection
    token: str
    resumed: bool | None
    """None: it is a new session."""


class _Pump:
    """Moves frames between one socket and one attachment until either ends."""

    def __init__(
        self,
        admitted: _Admitted,
        limits: ConnectionLimits,
        metrics: Metrics,
        receive: Receive,
        send: Send,
    ) -> None:
        self._admitted = admitted
        self._attachment = admitted.attachment
        self._cursor = admitted.attachment.cursor
        self._connection = admitted.connection
        self._limits = limits
        self._metrics = metrics
        self._receive = receive
        self._send = send
        self._inbox: deque[str | bytes] = deque()
        self._arrived = asyncio.Event()
        self._own: deque[Frame] = deque()  # frames for this client alone, until the writer takes them
        self._taken = asyncio.Event()  # the writer has taken one of them
        self._submitted = 0  # the last input that was written
        self._close: CloseCode | None = None
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Return when the connection has ended, by whichever side."""
        # In this connection's task alone; whatever it calls logs them too.
        bind_contextvars(session_id=self._attachment.session.id, connection_id=secrets.token_hex(6))
        self._log.debug("connection opened", resumed=self._admitted.resumed)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ends, self._work, tasks.cancel_scope)
            tasks.start_soon(self._ends, self._write, tasks.cancel_scope)
            await self._read()
            tasks.cancel_scope.cancel()
        if self._close is not None:
            await self._hang_up(self._close)
        self._log.debug("connection closed", close_code=self._close)

    async def _ends(self, part: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
        """Run a part, and end the connection with it."""
        try:
            await part()
        except (CursorLost, NodeDraining):
            self._close = CloseCode.TRY_AGAIN
        except SessionError as exc:
            self._log.warning("connection lost its session", reason=type(exc).__name__)
            self._close = CloseCode.INTERNAL
        except OSError:
            pass  # the client is gone: uvicorn raises ClientDisconnected from send
        except Exception:  # noqa: BLE001 - the boundary: a bug ends one connection
            self._log.exception("connection failed")
            self._close = CloseCode.INTERNAL
        scope.cancel()

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("text")
            if data is None:
                data = message.get("bytes") or b""
            if len(self._inbox) < self._limits.input_queue:
                self._inbox.append(data)
                self._arrived.set()
            elif len(self._own) < self._limits.input_queue:
                error = "Events come too fast. Send this one again, later."
                self._say(error_frame("input_queue_full", error))
            else:
                # It neither waits nor listens.
                self._close = CloseCode.POLICY
                return
            # What came in one read is handed out without a pause: let the worker have its share.
            for _ in range(_TURNS_TO_WORKER):
                await asyncio.sleep(0)
                if not self._inbox:
                    break

    async def _work(self) -> None:
        while True:
            if not self._inbox:
                self._arrived.clear()
                await self._arrived.wait()
            while len(self._own) >= self._limits.input_queue:
                # It doesn't read its answers: they must not pile up.
                self._taken.clear()
                await self._taken.wait()
            data = self._inbox[0]
            await self._take(data)
            self._inbox.popleft()

    async def _take(self, data: str | bytes) -> None:
        answer = self._understand(data)
        if not isinstance(answer, Submission):
            # It may speak of what was sent before it, and must not be answered sooner.
            await self._attachment.answered(self._submitted)
            answer = self._understand(data)
        own = await self._submit(answer) if isinstance(answer, Submission) else answer
        if own is not None:
            self._say(own)

    def _say(self, frame: Frame) -> None:
        """Let the writer send what is for this client alone."""
        if frame["type"] == "error":
            self._metrics.input_errors.labels(frame["error"]["code"]).inc()
        self._own.append(frame)
        self._cursor.wake()

    def _understand(self, data: str | bytes) -> Submission | Frame:
        try:
            return self._connection.receive(data)
        except DecodeError as error:
            return _error(error, error.event_id)

    async def _submit(self, submission: Submission) -> Frame | None:
        """Write an input. Its answer comes through the log, unless it can't be taken."""
        name = submission.submitted.event_id
        try:
            receipt = await self._attachment.submit(submission.key, submission.submitted)
        except Refusal as refusal:
            return _error(refusal, name)
        except NodeFull as full:
            return _error(Refusal("server_full", str(full)), name)
        self._submitted = max(self._submitted, receipt.seq)  # a duplicate's is an old one
        return None

    async def _write(self) -> None:
        attachment, cursor, connection = self._attachment, self._cursor, self._connection
        opening = connection.opening(
            self._admitted.token, resumed=self._admitted.resumed, preamble=attachment.preamble
        )
        attachment.preamble.clear()  # a connection may live for days
        await self._send_frames(opening)
        while True:
            records = cursor.take(_READ_LIMIT)
            if records:
                await self._send_frames(connection.records(records))
            elif self._own:
                frame = connection.own(self._own.popleft())
                self._taken.set()
                await self._send_frames([frame])
            elif attachment.is_finished:
                self._close = CloseCode.RESTART
                return
            else:
                await cursor.wait()

    async def _send_frames(self, frames: list[bytes]) -> None:
        for frame in frames:
            await self._send({"type": "websocket.send", "text": frame.decode()})

    async def _hang_up(self, code: CloseCode) -> None:
        """Close, unless the client doesn't take even that in time."""
        self._metrics.closed.labels(str(int(code))).inc()
        try:
            async with asyncio.timeout(self._limits.close_timeout):
                if code is CloseCode.POLICY:
                    error = error_frame("input_queue_full", "Events come faster than answers are read.")
                    await self._send_frames([self._connection.own(error)])
                await self._send({"type": "websocket.close", "code": code, "reason": CLOSE_REASONS[code]})
        except (TimeoutError, OSError):
            pass


async def _refuse(refused: _Refused, handshake: Handshake, send: Send) -> None:
    """Say why there is no connection, in the way that the client can read."""
    if handshake.is_browser or refused.status == 101:
        await send({"type": "websocket.accept", "subprotocol": handshake.subprotocol})
        frame = lone_error(refused.code, refused.message)
        await send({"type": "websocket.send", "text": frame.decode()})
        await send({"type": "websocket.close", "code": refused.close, "reason": CLOSE_REASONS[refused.close]})
        return
    headers = [(b"content-type", b"application/json")]
    if refused.status == 503:
        headers.append((b"retry-after", _RETRY_AFTER.encode()))
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    error = {"message": refused.message, "type": "invalid_request_error", "code": refused.code}
    await send({"type": "websocket.http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": orjson.dumps({"error": error})})


def _error(error: DecodeError | Refusal, event_id: str | None) -> Frame:
    return error_frame(error.code, error.message, param=error.param, event_id=event_id)
