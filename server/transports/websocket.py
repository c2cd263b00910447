"""The door ``WS /v1/realtime``: who comes in, and to which session."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from weakref import WeakValueDictionary

import structlog
from msgspec import UNSET
from starlette.types import Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from unbroken.server.auth.base import Grant, Unauthenticated
from unbroken.server.auth.lapse import Lapses
from unbroken.server.auth.presence import Presence
from unbroken.server.errors import CloseCode
from unbroken.server.files.base import FileStore
from unbroken.server.files.references import Referring, referring
from unbroken.server.guards.injection.screening import Screen
from unbroken.server.limits import ConnectionLimits
from unbroken.server.metrics import Metrics
from unbroken.server.models import Models
from unbroken.server.protocols.cursor import parse_cursor
from unbroken.server.protocols.realtime.connection import RealtimeConnection, lone_error
from unbroken.server.protocols.realtime.encode import RealtimeEncoder
from unbroken.server.quota.gate import Gate
from unbroken.server.resume import ResumeTokens
from unbroken.server.transports.admission import Guest
from unbroken.server.transports.handshake import Handshake
from unbroken.server.transports.intake import IntakeLimits
from unbroken.server.transports.outlet import PlainSend, has_outlet, outlet_of
from unbroken.server.transports.pace import PacedReceive
from unbroken.server.transports.pump import Admitted, Pump
from unbroken.server.transports.refusal import TOO_NEW, Refused, overloaded
from unbroken.server.transports.submission import Admit
from unbroken.server.transports.websocket_way import WebSocketWay
from unbroken.sessions.clock import Clock
from unbroken.sessions.entries import Command
from unbroken.sessions.errors import (
    NodeDraining,
    NodeFull,
    NodeOverloaded,
    SessionNotFound,
    StoreUnavailable,
    TooManyConnections,
    TooManySessions,
    UnknownFormat,
)
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import ChainId, Incarnation, Nonce, PrincipalId, SessionId, new_chain_id
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.node import Attachment, Node

__all__ = ["RealtimeDoor"]


class RealtimeDoor:
    """An ASGI application for WebSocket scopes."""

    def __init__(
        self,
        *,
        node: Node,
        way: WebSocketWay,
        directory: Presence,
        lapses: Lapses,
        tokens: ResumeTokens,
        models: Models,
        defaults: SessionConfig,
        limits: ConnectionLimits,
        intake: IntakeLimits,
        metrics: Metrics,
        screen: Screen,
        admit: Admit,
        files: FileStore | None = None,
        file_lifetime: float = 86400.0,
        clock: Clock,
        gate: Gate | None = None,
    ) -> None:
        self._gate = gate
        self._way = way
        self._node = node
        self._files = files
        self._screen = screen
        self._admit_session = admit
        self._file_lifetime = file_lifetime
        self._directory = directory
        self._lapses = lapses
        self._tokens = tokens
        self._models = models
        self._defaults = defaults
        self._limits = limits
        self._intake = intake
        self._clock = clock
        self._encoders: WeakValueDictionary[tuple[SessionId, Incarnation], RealtimeEncoder] = (
            WeakValueDictionary()
        )
        self._metrics = metrics
        self._log: FilteringBoundLogger = structlog.get_logger().bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection from its handshake to its end."""
        await receive()  # websocket.connect
        if not has_outlet(scope):  # nor what else the server's own class does
            receive = PacedReceive(receive, self._intake, self._clock)
            send = PlainSend(send)
        async with self._way.admitted(scope, send, self._admit, lone_error) as entered:
            if entered is None:
                return
            admitted, subprotocol = entered
            try:
                await send({"type": "websocket.accept", "subprotocol": subprotocol})
                self._metrics.opened.inc()
                with (
                    self._metrics.connections.track_inprogress(),
                    self._directory.stay(admitted.grant.principal),
                ):
                    outlet = outlet_of(scope, send)
                    pump = Pump(
                        admitted,
                        self._limits,
                        self._metrics,
                        self._clock,
                        receive,
                        send,
                        outlet,
                        self._refer,
                        self._screen,
                        self._admit_session,
                        self._log,
                    )
                    stay = self._lapses.stay(admitted.grant, pump.lapse)
                    try:
                        await pump.run()
                    finally:
                        if stay is not None:
                            stay.close()
            finally:
                admitted.attachment.close()

    def _refer(self, command: Command, principal: PrincipalId) -> AbstractAsyncContextManager[Referring]:
        return referring(command, principal, self._files, lifetime=self._file_lifetime)

    async def _admit(self, handshake: Handshake, guest: Guest, grant: Grant) -> Admitted:
        principal, gate = grant.principal, self._gate
        model = self._model(handshake.model, grant)
        if model is None:
            message = f"The model isn't offered here. Use one of: {', '.join(self._models.names)}."
            raise Refused(404, "model_not_found", message)
        try:
            if handshake.resume is not None:
                admitted = await self._resume(handshake.resume, handshake.after, grant, model)
            else:
                admitted = await self._begin(grant, model)
            admitted = await self._spent(admitted, guest)
        except SessionNotFound as exc:
            raise Refused(101, "session_not_found", str(exc)) from None
        except NodeDraining:
            raise self._way.draining() from None
        except NodeOverloaded:
            raise overloaded() from None
        except StoreUnavailable as exc:
            raise Refused(503, "store_unavailable", str(exc), CloseCode.TRY_AGAIN) from None
        except UnknownFormat:
            raise Refused(503, "session_too_new", TOO_NEW, CloseCode.TRY_AGAIN) from None
        except TooManySessions as exc:
            raise Refused(429, "too_many_sessions_of_key", str(exc), CloseCode.TRY_AGAIN) from None
        except NodeFull as exc:
            raise Refused(503, "server_full", str(exc), CloseCode.TRY_AGAIN) from None
        except TooManyConnections as exc:
            raise Refused(101, "too_many_connections", str(exc), CloseCode.TRY_AGAIN) from None
        asker = None if gate is None else gate.asker(principal, guest.address)
        return replace(admitted, asker=asker, trace=handshake.trace)

    def _model(self, wanted: str | None, grant: Grant) -> str | None:
        """Return the model that somebody is to have; None: it isn't offered, or not to them."""
        pinned = UNSET if grant.pins is None else grant.pins.model
        if pinned is UNSET:
            return self._models.resolve(wanted)
        settled = self._models.resolve(pinned)
        is_other = wanted is not None and wanted != "default" and self._models.resolve(wanted) != settled
        return None if is_other else settled

    async def _spent(self, admitted: Admitted, guest: Guest) -> Admitted:
        """Return *admitted* with what was presented used up, now that there is something to show for it.

        Earlier, and whoever is sent away for the moment would come back with nothing.
        """
        spend = admitted.grant.spend
        if spend is None:
            return admitted
        try:
            is_spent = await spend(admitted.attachment.session.id)
        except BaseException:
            admitted.attachment.close()
            raise
        if not is_spent:  # somebody else was first
            admitted.attachment.close()
            guest.failed()
            raise Refused(401, "invalid_api_key", str(Unauthenticated()))
        self._metrics.short_lived_keys.labels("used").inc()
        # A connection may live for days: it keeps nothing of how it came.
        return replace(admitted, grant=replace(admitted.grant, spend=None))

    def _config(self, model: str, grant: Grant) -> SessionConfig:
        config = SessionConfig(
            model=model,
            instructions=self._defaults.instructions,
            max_output_tokens=self._defaults.max_output_tokens,
            concurrency=self._defaults.concurrency,
        )
        return config if grant.pins is None else grant.pins.applied(config)

    async def _begin(self, grant: Grant, model: str) -> Admitted:
        chain = new_chain_id()
        attachment = await self._node.create(grant.principal.id, self._config(model, grant), chain)
        self._metrics.attached.labels("new").inc()
        return self._admitted(attachment, chain, grant)

    async def _resume(self, token: str, after: str | None, grant: Grant, model: str) -> Admitted:
        principal = grant.principal.id
        named = self._tokens.check(token, principal)
        if named is None:
            raise SessionNotFound
        session_id, chain = named
        cursor = None if after is None else parse_cursor(after)
        if after is not None and cursor is None:
            # It isn't a cursor of ours: as unusable as one from the future.
            cursor = Position(Incarnation(""), 0, Nonce(0)), 0
        position, remaining = (None, 0) if cursor is None else cursor
        try:
            attachment = await self._node.attach(session_id, principal, position, chain, repeat=remaining > 0)
        except SessionNotFound:
            is_beginning = position is not None and not (position.seq or remaining) and position.incarnation
            if position is None or not (is_beginning and self._node.has_others):
                raise
            # Nothing was ever said in it, so that only the node that it began on knows it.
            attachment = await self._node.create(
                principal,
                self._config(model, grant),
                chain,
                session_id=session_id,
                incarnation=position.incarnation,
            )
        pins = grant.pins
        if pins is not None and not (
            pins.allows(attachment.session.config)
            and (pins.model is UNSET or attachment.session.config.model == model)
        ):
            attachment.close()
            message = "The session is wider than this key allows. Resume it with a key of its own kind."
            raise Refused(101, "session_pinned", message)
        resumed = attachment.resumed
        self._metrics.attached.labels("resumed" if resumed else "reset").inc()
        if not resumed or position is None:
            return self._admitted(attachment, chain, grant, resumed=resumed)
        return self._admitted(attachment, chain, grant, resumed=True, position=position, remaining=remaining)

    def _admitted(
        self,
        attachment: Attachment,
        chain: ChainId,
        grant: Grant,
        *,
        resumed: bool | None = None,
        position: Position | None = None,
        remaining: int = 0,
    ) -> Admitted:
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
            pins=grant.pins,
            plan=grant.principal.plan,
            now=self._clock.time,
        )
        token = self._tokens.mint(attachment.session.id, chain, grant.principal.id)
        return Admitted(attachment, connection, token, resumed, grant)

    def _encoder_of(self, session_id: SessionId, incarnation: Incarnation) -> RealtimeEncoder:
        """Return the encoder that all connections of a session share, as long as there is one."""
        encoder = self._encoders.get((session_id, incarnation))
        if encoder is None:
            encoder = self._encoders[session_id, incarnation] = RealtimeEncoder(session_id, incarnation)
        return encoder
