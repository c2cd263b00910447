"""The door ``WS /v1/responses``: OpenAI Responses over one connection, in lanes."""

from __future__ import annotations

from functools import partial
from typing import Final, TypeAlias
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from unbroken.server.auth.base import Grant
from unbroken.server.auth.lapse import Lapses
from unbroken.server.auth.presence import Presence
from unbroken.server.errors import CloseCode
from unbroken.server.limits import ConnectionLimits
from unbroken.server.metrics import Metrics
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.responses.decode import asked_of
from unbroken.server.protocols.responses.encode import Event, ResponseEncoder
from unbroken.server.protocols.responses.frames import CreateParam
from unbroken.server.protocols.responses.socket import (
    Cancel,
    Continuation,
    Steer,
    Unsaid,
    continuations,
    decode_message,
    error_message,
    steer_failed,
)
from unbroken.server.protocols.responses.whole import Whole
from unbroken.server.transports.admission import Guest
from unbroken.server.transports.asking import EVENTS_GONE, not_there, refusal_of
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Exchanges, Speaker
from unbroken.server.transports.handshake import Handshake
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.intake import IntakeLimits
from unbroken.server.transports.lanes import Lanes, LanesFull, QueueFull
from unbroken.server.transports.outlet import PlainSend, has_outlet, outlet_of
from unbroken.server.transports.pace import PacedReceive
from unbroken.server.transports.refusal import Refused, error_type
from unbroken.server.transports.response_stream import ResponseStream
from unbroken.server.transports.talk import FrameSource, Talk
from unbroken.server.transports.websocket_way import WebSocketWay
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import SessionError, SessionNotFound, StoreUnavailable
from unbroken.sessions.ids import new_session_id
from unbroken.sessions.node import Node

__all__ = ["ResponsesSocketDoor"]

_LANES: Final = 32
"""That may have something to do at once, by the protocol."""

_Asked: TypeAlias = CreateParam | Continuation


class ResponsesSocketDoor:
    """An ASGI application for WebSocket scopes."""

    def __init__(
        self,
        *,
        way: WebSocketWay,
        node: Node,
        exchanges: Exchanges,
        directory: Presence,
        lapses: Lapses,
        limits: ConnectionLimits,
        intake: IntakeLimits,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._way = way
        self._node = node
        self._exchanges = exchanges
        self._directory = directory
        self._lapses = lapses
        self._limits = limits
        self._intake = intake
        self._metrics = metrics
        self._clock = clock
        self._talks: set[Talk] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection from its handshake to its end."""
        await receive()  # websocket.connect
        if not has_outlet(scope):  # nor what else the server's own class does
            receive = PacedReceive(receive, self._intake, self._clock)
            send = PlainSend(send)
        admit = partial(self._admit, scope)
        async with self._way.admitted(scope, send, admit, _say_alone) as entered:
            if entered is None:
                return
            (speaker, goes_on), subprotocol = entered
            await send({"type": "websocket.accept", "subprotocol": subprotocol})
            self._metrics.opened.inc()
            with (
                self._metrics.connections.track_inprogress(),
                self._directory.stay(speaker.grant.principal),
            ):
                connection = _Connection(self._exchanges, speaker, self._limits)
                talk = Talk(
                    connection.hear,
                    _say_alone,
                    self._limits,
                    self._metrics,
                    self._clock,
                    receive,
                    send,
                    outlet_of(scope, send),
                )
                connection.begin(talk, goes_on)
                stay = self._lapses.stay(speaker.grant, talk.lapse)
                self._talks.add(talk)
                try:
                    await talk.run()
                finally:
                    self._talks.discard(talk)
                    if stay is not None:
                        stay.close()

    async def _admit(
        self, scope: Scope, _handshake: Handshake, guest: Guest, grant: Grant
    ) -> tuple[Speaker, list[Continuation]]:
        fields = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        try:
            goes_on = continuations((fields.get("continue") or [None])[-1], _LANES)
        except DecodeError as exc:
            raise Refused(400, exc.code, exc.message) from None
        if grant.spend is not None:
            try:
                is_spent = await grant.spend(new_session_id(grant.principal.id))
            except StoreUnavailable as exc:
                raise Refused(503, "store_unavailable", str(exc), CloseCode.TRY_AGAIN) from None
            if not is_spent:  # somebody else was first
                guest.failed()
                raise Refused(401, "invalid_api_key", "The key has been used.")
        return Speaker(grant, guest.address), goes_on

    def leave(self) -> None:
        """Send everybody away once nothing is being said to them: the node is about to end."""
        for talk in list(self._talks):
            self._node.call_later(self._node.departures.next(), talk.leave)


class _Connection:
    """What is asked for on one connection."""

    def __init__(self, exchanges: Exchanges, speaker: Speaker, limits: ConnectionLimits) -> None:
        self._exchanges = exchanges
        self._speaker = speaker
        self._limits = limits
        self._talk: Talk
        self._lanes: Lanes[_Asked]

    def begin(self, talk: Talk, goes_on: list[Continuation]) -> None:
        """Say on what the client has seen a part of."""
        self._talk = talk
        self._lanes = Lanes(talk, self._answer, most=_LANES, most_waiting=self._limits.input_queue)
        for each in goes_on:
            self._ask(each.lane, each)

    def hear(self, data: str | bytes) -> None:
        """See :class:`Hear`."""
        try:
            said = decode_message(data, max_depth=self._limits.frame_depth)
        except Unsaid as exc:
            self._refuse(exc, exc.lane)
            return
        match said:
            case CreateParam():
                self._ask(said.stream_id, said)
            case Cancel():
                self._talk.spawn(self._cancel(said))
            case Steer():
                self._talk.say(steer_failed(said))

    def _ask(self, lane: str | None, asked: _Asked) -> None:
        try:
            self._lanes.ask(lane, asked)
        except LanesFull:
            message = f"{_LANES} lanes are at work, as many as may be. Wait for one of them."
            self._refuse(HttpRefusal(429, "websocket_stream_limit_reached", message), lane)
        except QueueFull:
            message = "Events come too fast. Send this one again, later."
            self._refuse(HttpRefusal(429, "input_queue_full", message), lane)

    async def _answer(self, asked: _Asked) -> FrameSource | None:
        lane = asked.lane if isinstance(asked, Continuation) else asked.stream_id
        try:
            if isinstance(asked, Continuation):
                return await self._said_on(asked)
            return await self._asked(asked)
        except (DecodeError, SessionError, HttpRefusal) as exc:
            self._refuse(exc, lane)
            return None

    async def _asked(self, wanted: CreateParam) -> FrameSource:
        for name, given in (("stream", wanted.stream), ("background", wanted.background)):
            if given is not None:
                message = f"`{name}` isn't for WebSockets: leave it out."
                raise DecodeError("invalid_request", message, param=name)
        if wanted.generate is False:
            message = "Nothing is made ready ahead here: leave out `generate`."
            raise DecodeError("invalid_request", message, param="generate")
        asked = asked_of(wanted, plan=self._speaker.grant.principal.plan)
        try:
            exchange = await self._exchanges.begin(self._speaker, asked)
        except SessionNotFound:
            raise not_there(asked.conversation) from None
        exchange.rewind()
        return self._stream(exchange, asked.stream_id, obfuscates=asked.obfuscates)

    async def _said_on(self, wanted: Continuation) -> FrameSource:
        exchange = await self._exchanges.find(self._speaker, wanted.response_id)
        if not exchange.rewind():
            exchange.close()
            raise HttpRefusal(404, "response_events_gone", EVENTS_GONE)
        return self._stream(exchange, wanted.lane, after=wanted.after)

    def _stream(
        self, exchange: Exchange, lane: str | None, *, after: int = -1, obfuscates: bool = True
    ) -> FrameSource:
        session = exchange.attachment.session
        whole = Whole(exchange.response_id, session.id, session.config, resume=exchange.resume)
        extra = None if lane is None else {"stream_id": lane}
        encoder = ResponseEncoder(whole, after=after, obfuscates=obfuscates, extra=extra)
        return _LaneStream(exchange, encoder, lane)

    async def _cancel(self, wanted: Cancel) -> None:
        try:
            exchange = await self._exchanges.find(self._speaker, wanted.response_id)
            try:
                await exchange.cancel()
            finally:
                exchange.close()
        except SessionError as exc:
            self._refuse(exc, wanted.lane)

    def _refuse(self, why: Exception, lane: str | None) -> None:
        refusal = why if isinstance(why, HttpRefusal) else refusal_of(why)
        if refusal is None:
            raise why
        self._talk.say(
            error_message(
                refusal.code,
                refusal.message,
                type=error_type(refusal.status),
                status=refusal.status,
                lane=lane,
                param=refusal.param,
                retry_after=refusal.retry_after if refusal.status in (429, 503) else None,
            )
        )


class _LaneStream(ResponseStream):
    """A response in one lane."""

    def __init__(self, exchange: Exchange, encoder: ResponseEncoder, lane: str | None) -> None:
        super().__init__(exchange, encoder, lambda: None)
        self._lane = lane

    def _framed(self, said: Event) -> bytes:
        return said.data

    def _error(self, code: str, message: str, status: int) -> bytes:
        return error_message(code, message, type=error_type(status), status=status, lane=self._lane)


def _say_alone(code: str, message: str, *, retry_after: int | None = None) -> bytes:
    status = 503 if retry_after is not None else 400
    return error_message(code, message, type=error_type(status), status=status, retry_after=retry_after)
