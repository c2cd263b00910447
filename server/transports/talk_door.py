"""A door for WebSockets on which several things are said at once, whatever the protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeAlias
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from unbroken.server.auth.base import Grant
from unbroken.server.auth.lapse import Lapses
from unbroken.server.auth.presence import Presence
from unbroken.server.errors import CloseCode
from unbroken.server.limits import ConnectionLimits
from unbroken.server.metrics import Metrics
from unbroken.server.protocols.items import DecodeError
from unbroken.server.transports.admission import Guest
from unbroken.server.transports.exchanges import Speaker
from unbroken.server.transports.handshake import Handshake
from unbroken.server.transports.intake import IntakeLimits
from unbroken.server.transports.outlet import PlainSend, has_outlet, outlet_of
from unbroken.server.transports.pace import PacedReceive
from unbroken.server.transports.refusal import Refused, SayAlone
from unbroken.server.transports.talk import Talk
from unbroken.server.transports.websocket_way import Greeting, WebSocketWay
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import new_session_id
from unbroken.sessions.node import Node

__all__ = ["Converse", "Greet", "Interlocutor", "TalkDoor"]


class Interlocutor(Protocol):
    """Answers one client on one connection."""

    def begin(self, talk: Talk) -> None:
        """Say what is to be said first. Everything else is said on *talk*, too."""

    def hear(self, data: str | bytes) -> None:
        """See :class:`~unbroken.server.transports.talk.Hear`."""


Converse: TypeAlias = Callable[[Speaker, Mapping[str, Sequence[str]]], Interlocutor]
"""Returns who answers a speaker, whose address has these fields. Raises DecodeError: they can't be."""


Greet: TypeAlias = Callable[[Receive, Send], Greeting]
"""Makes the greeting of one connection."""


class TalkDoor:
    """An ASGI application for WebSocket scopes.

    Args:
        way: What is the same for all doors for WebSockets.
        converse: Makes who answers.
        say_alone: Makes an error of the protocol.
        node: Says when it is time to leave.
        directory: Knows who is here.
        lapses: Tells when somebody may be here no longer.
        limits: What a connection may do.
        intake: How fast one may send.
        metrics: Where figures go.
        clock: Where time comes from.
        greet: Makes what connections begin with. None: with what the server says first.

    """

    def __init__(
        self,
        *,
        way: WebSocketWay,
        converse: Converse,
        say_alone: SayAlone,
        node: Node,
        directory: Presence,
        lapses: Lapses,
        limits: ConnectionLimits,
        intake: IntakeLimits,
        metrics: Metrics,
        clock: Clock,
        greet: Greet | None = None,
    ) -> None:
        self._way = way
        self._converse = converse
        self._say_alone = say_alone
        self._node = node
        self._directory = directory
        self._lapses = lapses
        self._limits = limits
        self._intake = intake
        self._metrics = metrics
        self._clock = clock
        self._greet = greet
        self._talks: set[Talk] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection from its handshake to its end."""
        await receive()  # websocket.connect
        if not has_outlet(scope):  # nor what else the server's own class does
            receive = PacedReceive(receive, self._intake, self._clock)
            send = PlainSend(send)
        admit = partial(self._admit, scope)
        greeting = None if self._greet is None else self._greet(receive, send)
        async with self._way.admitted(scope, send, admit, self._say_alone, greeting) as entered:
            if entered is None:
                return
            (speaker, interlocutor), subprotocol = entered
            if greeting is None or not greeting.is_accepted:
                await send({"type": "websocket.accept", "subprotocol": subprotocol})
            self._metrics.opened.inc()
            with (
                self._metrics.connections.track_inprogress(),
                self._directory.stay(speaker.grant.principal),
            ):
                talk = Talk(
                    interlocutor.hear,
                    self._say_alone,
                    self._limits,
                    self._metrics,
                    self._clock,
                    receive,
                    send,
                    outlet_of(scope, send),
                )
                interlocutor.begin(talk)
                for said in () if greeting is None else greeting.heard:
                    interlocutor.hear(said)
                stay = self._lapses.stay(speaker.grant, talk.lapse)
                self._talks.add(talk)
                if self._node.is_draining:  # since it was let in: nobody told it to leave
                    self._send_away(talk)
                try:
                    await talk.run()
                finally:
                    self._talks.discard(talk)
                    if stay is not None:
                        stay.close()

    async def _admit(
        self, scope: Scope, handshake: Handshake, guest: Guest, grant: Grant
    ) -> tuple[Speaker, Interlocutor]:
        speaker = Speaker(grant, guest.address, handshake.credentials.resume, handshake.trace)
        try:
            fields = parse_qs(scope.get("query_string", b"").decode("latin-1"))
            interlocutor = self._converse(speaker, fields)
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
        return speaker, interlocutor

    def leave(self) -> None:
        """Send everybody away once nothing is being said to them: the node is about to end."""
        for talk in list(self._talks):
            self._send_away(talk)

    def _send_away(self, talk: Talk) -> None:
        self._node.call_later(self._node.departures.next(), talk.leave)
