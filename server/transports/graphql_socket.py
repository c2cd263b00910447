"""The door ``/graphql`` over one connection: ``graphql-transport-ws``."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unbroken.server.limits import ConnectionLimits
from unbroken.server.models import Models
from unbroken.server.protocols.graphql.answers import answer_bytes, error_fields, errors_answer
from unbroken.server.protocols.graphql.documents import Documents, Invalid, Operation
from unbroken.server.protocols.graphql.socket import (
    ACK,
    PONG,
    Complete,
    GraphqlClose,
    Init,
    Ping,
    Subscribe,
    close_reason,
    complete,
    decode_message,
    error,
    next_head,
    warning,
)
from unbroken.server.protocols.graphql.subscribing import Selection, wanted_of
from unbroken.server.protocols.items import DecodeError
from unbroken.server.quota.gate import Gate
from unbroken.server.transports.conversations import Conversations
from unbroken.server.transports.exchanges import Exchanges, Speaker
from unbroken.server.transports.graphql_desk import GraphqlDesk, refused_as, told
from unbroken.server.transports.graphql_stream import GraphqlFrames, listen
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.lanes import Lanes, LanesFull, QueueFull
from unbroken.server.transports.talk import FrameSource, Talk
from unbroken.server.transports.talk_door import Interlocutor
from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.errors import SessionError

__all__ = ["GraphqlSocket", "say_alone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphqlSocket:
    """Makes who answers the clients of ``/graphql``.

    Attributes:
        documents: Reads what they ask.
        exchanges: Begins responses, and finds them.
        conversations: Lists sessions.
        gate: Counts. None: nobody does.
        models: Which there are.
        limits: What a connection may do.
        most: Operations that may run at once on one.
        patience: Seconds that a client has to begin the connection.
        clock: Where time comes from.

    """

    documents: Documents
    exchanges: Exchanges
    conversations: Conversations
    gate: Gate | None
    models: Models
    limits: ConnectionLimits
    most: int
    patience: float
    clock: Clock

    def __call__(self, speaker: Speaker, _fields: Mapping[str, Sequence[str]]) -> Interlocutor:
        """Return who answers *speaker*."""
        return _Connection(self, speaker)

    def desk(self, speaker: Speaker) -> GraphqlDesk:
        """Return what answers one operation of *speaker*'s."""
        return GraphqlDesk(self.exchanges, self.conversations, self.gate, self.models, speaker)


@dataclass(slots=True, eq=False)
class _Running:
    """An operation that runs."""

    asked: Subscribe
    stream: GraphqlFrames | None = None
    """What tells of it. None: nothing does, or not yet."""
    is_given_up: bool = False
    """Whether its client wants to be told no more. Its name is free then, for another."""


class _Connection:
    """What is asked for on one connection. Each operation is a lane of its own, and asks once."""

    def __init__(self, door: GraphqlSocket, speaker: Speaker) -> None:
        self._door = door
        self._speaker = speaker
        self._talk: Talk
        self._lanes: Lanes[_Running]
        self._names = itertools.count()  # of lanes: a client's name is free before its lane is
        self._has_begun = False
        self._patience: Timer
        self._writing = asyncio.Lock()
        self._running: dict[str, _Running] = {}  # by the client's names

    def begin(self, talk: Talk) -> None:
        """See :class:`Interlocutor`."""
        self._talk = talk
        self._lanes = Lanes(talk, self._answer, most=self._door.most, most_waiting=0)
        # No task: a node that drains waits for those, and there is nothing here to wait for.
        self._patience = self._door.clock.call_later(self._door.patience, self._end_unbegun)
        talk.at_end(self._patience.cancel)

    def _end_unbegun(self) -> None:
        self._talk.end(GraphqlClose.INIT_TIMEOUT, reason="Connection initialisation timeout")

    def hear(self, data: str | bytes) -> None:
        """See :class:`~unbroken.server.transports.talk.Hear`."""
        try:
            said = decode_message(data, max_depth=self._door.limits.frame_depth)
        except DecodeError as exc:
            self._talk.end(GraphqlClose.BAD_REQUEST, reason=close_reason(exc.code, exc.message))
            return
        match said:
            case Init():
                if self._has_begun:
                    reason = "Too many initialisation requests"
                    self._talk.end(GraphqlClose.TOO_MANY_INITS, reason=reason)
                else:
                    self._has_begun = True
                    self._patience.cancel()
                    self._talk.say(ACK)
            case Ping():
                self._talk.say(PONG)
            case Subscribe():
                self._subscribe(said)
            case Complete():
                self._give_up(said.id)

    def _subscribe(self, asked: Subscribe) -> None:
        if not self._has_begun:
            self._talk.end(GraphqlClose.UNAUTHORIZED, reason="Unauthorized")
        elif asked.id in self._running:
            reason = close_reason("Subscriber already exists", asked.id)
            self._talk.end(GraphqlClose.SUBSCRIBER_EXISTS, reason=reason)
        else:
            running = _Running(asked)
            try:
                self._lanes.ask(str(next(self._names)), running)
            except (LanesFull, QueueFull):
                message = (
                    f"{self._door.most} operations run on this connection, as many as may. Complete one."
                )
                self._refuse(HttpRefusal(429, "websocket_stream_limit_reached", message), asked.id)
            else:
                self._running[asked.id] = running

    def _give_up(self, name: str) -> None:
        running = self._running.pop(name, None)
        if running is None:
            return  # it ended in this moment
        running.is_given_up = True
        if running.stream is not None:
            running.stream.give_up()

    async def _answer(self, running: _Running) -> FrameSource | None:
        name, documents = running.asked.id, self._door.documents
        try:
            operation = documents.read(running.asked.payload)
            if operation.is_subscription:
                if (stream := await self._listen(running, operation)) is not None:
                    return stream
            else:
                await self._execute(running, operation)
        except Invalid as exc:
            if not running.is_given_up:
                self._talk.say(error(name, errors_answer(exc.errors)["errors"]))
        except (DecodeError, SessionError, HttpRefusal) as exc:
            if not running.is_given_up:
                self._refuse(exc, name)
        self._let_go(running)
        return None

    async def _execute(self, running: _Running, operation: Operation) -> None:
        if not operation.is_mutation:  # these may be to stop something
            await self._talk.room()
        answer = await self._door.desk(self._speaker).execute(self._door.documents.schema, operation)
        async with self._writing:  # of several that are there, one at a time is written out
            await self._talk.room()
            if not running.is_given_up:
                self._talk.say(b"%b%b}" % (next_head(running.asked.id), answer_bytes(answer)))
                self._talk.say(complete(running.asked.id))

    async def _listen(self, running: _Running, operation: Operation) -> FrameSource | None:
        schema = self._door.documents.schema
        listening = await listen(self._door.exchanges, self._speaker, wanted_of(schema, operation))
        if running.is_given_up:
            listening.exchange.close()
            return None
        stream = GraphqlFrames(
            listening,
            Selection(schema, operation, lambda exc: told(refused_as(exc))),
            running.asked.id,
            leave=self._talk.leave,
            on_close=lambda: self._let_go(running),
        )
        running.stream = stream
        return stream

    def _let_go(self, running: _Running) -> None:
        if self._running.get(running.asked.id) is running:
            del self._running[running.asked.id]

    def _refuse(self, why: Exception, name: str) -> None:
        self._talk.say(error(name, [told(refused_as(why))]))


def say_alone(code: str, message: str, *, status: int, retry_after: int | None = None) -> bytes:  # noqa: ARG001 - the protocol has no place for it
    """Return an error of the whole connection."""
    return warning(error_fields(code, message, retry_after=retry_after))
