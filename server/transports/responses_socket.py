"""The door ``WS /v1/responses``: OpenAI Responses over one connection, in lanes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from unbroken.server.compactions import Compactions
from unbroken.server.limits import ConnectionLimits
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
from unbroken.server.transports.asking import EVENTS_GONE, not_there
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Exchanges, Speaker
from unbroken.server.transports.field_names import RESPONSES
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.lanes import Lanes, LanesFull, QueueFull
from unbroken.server.transports.local_chains import LocalChains
from unbroken.server.transports.refusal import error_type
from unbroken.server.transports.response_stream import ResponseStream
from unbroken.server.transports.talk import FrameSource, Talk
from unbroken.server.transports.talk_door import Interlocutor
from unbroken.sessions.errors import SessionError, SessionNotFound

__all__ = ["ResponsesSocket", "say_alone"]

_LANES: Final = 32
"""That may have something to do at once, by the protocol."""

_Asked: TypeAlias = CreateParam | Continuation


class ResponsesSocket:
    """Makes who answers the clients of ``WS /v1/responses``.

    Args:
        exchanges: Begins responses, and finds them.
        compactions: Opens what conversations were summed up to.
        limits: What a connection may do.

    """

    def __init__(self, exchanges: Exchanges, compactions: Compactions, limits: ConnectionLimits) -> None:
        self._exchanges = exchanges
        self._compactions = compactions
        self._limits = limits

    def __call__(self, speaker: Speaker, fields: Mapping[str, Sequence[str]]) -> Interlocutor:
        """Return who answers *speaker*, and says on what the address asks for.

        Raises:
            DecodeError: It asks for what can't be.

        """
        goes_on = continuations(next(reversed(fields.get("continue", ())), None), _LANES)
        return _Connection(self._exchanges, self._compactions, speaker, self._limits, goes_on)


class _Connection:
    """What is asked for on one connection."""

    def __init__(
        self,
        exchanges: Exchanges,
        compactions: Compactions,
        speaker: Speaker,
        limits: ConnectionLimits,
        goes_on: list[Continuation],
    ) -> None:
        self._exchanges = exchanges
        self._compactions = compactions
        self._speaker = speaker
        self._limits = limits
        self._goes_on = goes_on
        self._chains = LocalChains()
        self._talk: Talk
        self._lanes: Lanes[_Asked]

    def begin(self, talk: Talk) -> None:
        """Say on what the client has seen a part of."""
        self._talk = talk
        talk.at_end(self._chains.close)
        self._lanes = Lanes(talk, self._answer, most=_LANES, most_waiting=self._limits.input_queue)
        for each in self._goes_on:
            self._ask(each.lane, each)

    def hear(self, data: str | bytes) -> None:
        """See :class:`Hear`."""
        try:
            said = decode_message(data, max_depth=self._limits.frame_depth)
        except Unsaid as exc:
            self._chains.failed(exc.previous)
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
            self._fail(HttpRefusal(429, "websocket_stream_limit_reached", message), asked)
        except QueueFull:
            message = "Events come too fast. Send this one again, later."
            self._fail(HttpRefusal(429, "input_queue_full", message), asked)

    async def _answer(self, asked: _Asked) -> FrameSource | None:
        try:
            if isinstance(asked, Continuation):
                return await self._said_on(asked)
            return await self._asked(asked)
        except (DecodeError, SessionError, HttpRefusal) as exc:
            self._fail(exc, asked)
            return None

    def _fail(self, why: Exception, asked: _Asked) -> None:
        if isinstance(asked, CreateParam):
            self._chains.failed(asked.previous_response_id)
        self._refuse(why, asked.lane if isinstance(asked, Continuation) else asked.stream_id)

    async def _asked(self, wanted: CreateParam) -> FrameSource:
        if wanted.background:
            message = "`background` isn't for WebSockets: leave it out."
            raise DecodeError("invalid_request", message, param="background")
        if wanted.generate is False:
            message = "Nothing is made ready ahead here: leave out `generate`."
            raise DecodeError("invalid_request", message, param="generate")
        asked = asked_of(wanted, plan=self._speaker.grant.principal.plan, opened=self._opened)
        self._chains.check(asked)
        try:
            exchange = await self._exchanges.begin(self._speaker, asked)
        except SessionNotFound:
            raise not_there(asked.conversation) from None
        if not exchange.rewind():  # it was asked for before, long ago
            exchange.close()
            raise HttpRefusal(404, "response_events_gone", EVENTS_GONE)
        self._chains.begun(exchange)
        encoder = self._encoder(exchange, asked.stream_id, obfuscates=asked.obfuscates)
        return _ChainStream(exchange, encoder, asked.stream_id, self._chains, asked.previous)

    def _opened(self, sealed: str) -> str | None:
        return self._compactions.open(sealed, self._speaker.principal)

    async def _said_on(self, wanted: Continuation) -> FrameSource:
        exchange = await self._exchanges.find(self._speaker, wanted.response_id)
        if not exchange.rewind():
            exchange.close()
            raise HttpRefusal(404, "response_events_gone", EVENTS_GONE)
        return _LaneStream(exchange, self._encoder(exchange, wanted.lane, after=wanted.after), wanted.lane)

    @staticmethod
    def _encoder(
        exchange: Exchange, lane: str | None, *, after: int = -1, obfuscates: bool = True
    ) -> ResponseEncoder:
        session = exchange.attachment.session
        whole = Whole(exchange.response_id, session.id, session.config, resume=exchange.resume)
        extra = None if lane is None else {"stream_id": lane}
        return ResponseEncoder(whole, after=after, obfuscates=obfuscates, extra=extra)

    async def _cancel(self, wanted: Cancel) -> None:
        try:
            exchange = await self._exchanges.find(self._speaker, wanted.response_id, watches=False)
            try:
                await exchange.stop()
            finally:
                exchange.close()
        except (DecodeError, SessionError) as exc:
            self._refuse(exc, wanted.lane)

    def _refuse(self, why: Exception, lane: str | None) -> None:
        refusal = why if isinstance(why, HttpRefusal) else RESPONSES.refusal_of(why)
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

    _is_told_by_the_close = True

    def __init__(self, exchange: Exchange, encoder: ResponseEncoder, lane: str | None) -> None:
        super().__init__(exchange, encoder, lambda: None)
        self._lane = lane

    def _framed(self, said: Event) -> bytes:
        return said.data

    def _error(self, code: str, message: str, status: int) -> bytes:
        return error_message(code, message, type=error_type(status), status=status, lane=self._lane)


class _ChainStream(_LaneStream):
    """A response that was begun on this connection, and may be gone on from there."""

    def __init__(
        self,
        exchange: Exchange,
        encoder: ResponseEncoder,
        lane: str | None,
        chains: LocalChains,
        previous: str | None,
    ) -> None:
        super().__init__(exchange, encoder, lane)
        self._chains = chains
        self._previous = previous

    def read(self) -> list[bytes]:
        """See :meth:`FrameSource.read`."""
        frames = super().read()
        if self.is_over:
            final = self._encoder.final
            if final is None or final["status"] == "failed":
                self._chains.failed(self._previous)
        return frames

    def close(self) -> None:
        """See :meth:`FrameSource.close`."""
        self._chains.let_go(self._exchange)


def say_alone(code: str, message: str, *, status: int, retry_after: int | None = None) -> bytes:
    """Return an error of the whole connection."""
    return error_message(code, message, type=error_type(status), status=status, retry_after=retry_after)
