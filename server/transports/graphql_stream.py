"""A subscription as its client is told of it: from its place in the log, as fast as they read."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from unbroken.server.protocols.conversation_names import session_named
from unbroken.server.protocols.cursor import parse_cursor
from unbroken.server.protocols.graphql.answers import answer_bytes, error_fields
from unbroken.server.protocols.graphql.events import Event, EventEncoder, EventType, Said
from unbroken.server.protocols.graphql.socket import complete, error, next_head
from unbroken.server.protocols.graphql.subscribing import Selection, Wanted
from unbroken.server.protocols.graphql.types import Session
from unbroken.server.protocols.items import DecodeError
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchange_stream import ExchangeStream
from unbroken.server.transports.exchanges import Exchanges, Speaker
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.sse import event
from unbroken.sessions.errors import CursorLost, SessionError, SessionNotFound
from unbroken.sessions.event_log import Position, Record
from unbroken.sessions.ids import Incarnation, Nonce, ResponseId, new_chain_id
from unbroken.sessions.node import Attachment

__all__ = ["GraphqlEvents", "GraphqlFrames", "Listening", "listen"]

_MOST_BYTES: Final = 16_384

_BEHIND: Final = "What comes next isn't kept any more. Subscribe again with the last cursor: it begins anew."

_LEAVING: Final = "The server is restarting. Subscribe again in a moment, with the last cursor."


@dataclass(slots=True)
class Listening:
    """Somebody's place in a session's log, and what they are told of there."""

    exchange: Exchange
    encoder: EventEncoder
    opening: Iterator[Said]
    """What is told first, and isn't in the log."""
    is_of_response: bool

    @property
    def is_told(self) -> bool:
        """Whether the response has ended, and nothing more of it is in the log."""
        if not self.is_of_response or self.exchange.is_running:
            return self.encoder.is_done
        return self.encoder.is_done or self.exchange.attachment.cursor.is_at_head


async def listen(exchanges: Exchanges, speaker: Speaker, wanted: Wanted) -> Listening:
    """Return the place from which *speaker* is told of what they want to be.

    Raises:
        DecodeError: They want nothing that there is.
        HttpRefusal: There is no such session, or it can't be told any more piece by piece.
        SessionNotFound: There is no such response, or it is another's.
        SessionError: It can't be had now.

    """
    if (wanted.session_id is None) == (wanted.response_id is None):
        message = "Give `sessionId` or `responseId`, one of them."
        raise DecodeError("invalid_request", message, param="sessionId")
    position = _position(wanted.after)
    if wanted.session_id is not None:
        try:
            attachment = await exchanges.listen(speaker, session_named(wanted.session_id), position)
        except SessionNotFound:
            message = "There is no such session: it has ended, or it isn't yours."
            raise HttpRefusal(404, "session_not_found", message) from None
        resumed = None if position is None else attachment.resumed
        exchange = Exchange(attachment, ResponseId(""), new_chain_id())
        return _listening(exchange, resumed, None)
    response_id = ResponseId(wanted.response_id or "")
    exchange = await exchanges.find(speaker, response_id)
    try:
        resumed = None if position is None else exchange.seek(position)
        if resumed is False and position is not None:
            await exchange.attachment.catch_up()  # another node may have told of it
            resumed = exchange.seek(position)
        if not resumed and not exchange.rewind():
            message = "The events of this response aren't kept any more. Query the response itself."
            raise HttpRefusal(404, "response_events_gone", message)
    except BaseException:
        exchange.close()
        raise
    return _listening(exchange, resumed, response_id)


def _listening(exchange: Exchange, resumed: bool | None, response_id: ResponseId | None) -> Listening:
    attachment = exchange.attachment
    place = attachment.cursor.position()
    encoder = EventEncoder(
        attachment.session.id,
        place.incarnation,
        response_id,
        later_attempt=lambda cut_off: attachment.session.later_attempt(cut_off),
    )
    return Listening(
        exchange, encoder, _opening(attachment, encoder, place, resumed), response_id is not None
    )


def _opening(
    attachment: Attachment, encoder: EventEncoder, place: Position, resumed: bool | None
) -> Iterator[Said]:
    """Yield what is told first. Its last event alone has a place: half of it is none."""
    session = attachment.session
    running = session.responses.values()
    shown = Session.of(session.id, session.config, running=running, items=session.items())
    standing = list(encoder.standing(attachment.take_preamble()))
    cursor = encoder.cursor(place.seq, place.nonce)
    opened = Event(type=EventType.OPENED, session=shown, resumed=resumed)
    opened.cursor = None if standing else cursor
    yield opened
    for index, said in enumerate(standing, 1):
        said.cursor = cursor if index == len(standing) else None
        yield said


def _position(after: str | None) -> Position | None:
    if after is None:
        return None
    cursor = parse_cursor(after)
    if cursor is None or cursor[1]:  # none of this protocol's: as unusable as one from the future
        return Position(Incarnation(""), 0, Nonce(0))
    return cursor[0]


class _GraphqlStream(ExchangeStream):
    """What a subscription is told, in whatever frames.

    Args:
        listening: Its place.
        selection: What it has selected.
        on_close: Called once, when nobody reads any more.

    """

    def __init__(self, listening: Listening, selection: Selection, on_close: Callable[[], None]) -> None:
        super().__init__(listening.exchange, on_close)
        self._listening = listening
        self._selection = selection
        self._is_opened = False
        self._is_completed = False

    @property
    def _is_done(self) -> bool:
        return self._is_completed

    @abc.abstractmethod
    def _next(self, result: bytes) -> bytes:
        """Return a result as the transport has it."""

    @abc.abstractmethod
    def _complete(self) -> bytes:
        """Return that nothing more comes, as the transport has it."""

    @abc.abstractmethod
    def _leave(self) -> None:
        """Have the client go elsewhere: the node ends, and nothing more is said here."""

    def read(self) -> list[bytes]:
        """See :meth:`FrameSource.read`."""
        if not (self._is_opened or self.is_over or self._farewell is not None):
            return self._open()
        said = super().read()
        if self.is_over:
            return said
        if self._listening.is_told:
            self._is_completed = True
            said.append(self._complete())
        elif not said and self._listening.exchange.attachment.is_finished:
            self._leave()
            said += super().read()
        return said

    def _open(self) -> list[bytes]:
        """Return what is told first, a part at a time: it may be a whole conversation."""
        frames: list[bytes] = []
        size = 0
        while size < _MOST_BYTES:
            said = next(self._listening.opening, None)
            if said is None:
                self._is_opened = True
                break
            try:
                frames.append(self._next(answer_bytes(self._selection.show(said))))
            except DecodeError as exc:  # of a session, as much may be selected as by a query
                self._say_farewell(exc.code, exc.message, 400)
                return frames + super().read()
            size += len(frames[-1])
        return frames

    def _said(self, records: Iterable[Record]) -> Iterator[bytes]:
        for said in self._listening.encoder.encode(records):
            yield self._next(orjson.dumps(self._selection.show(said)))

    def _end(self, why: SessionError) -> None:
        if isinstance(why, CursorLost):  # it was read too slowly
            self._say_farewell("response_events_gone", _BEHIND, 404)
        else:
            super()._end(why)

    def close(self) -> None:
        """See :meth:`EventSource.close`."""
        self._listening.exchange.close()
        super().close()


class GraphqlEvents(_GraphqlStream):
    """A subscription as server-sent events: GraphQL over SSE, of distinct connections."""

    def _next(self, result: bytes) -> bytes:
        return event("next", result)

    def _complete(self) -> bytes:
        return event("complete", b"")

    def _error(self, code: str, message: str, status: int) -> bytes:  # noqa: ARG002 - of use elsewhere
        errors = {"errors": [error_fields(code, message)]}
        return self._next(orjson.dumps(errors)) + self._complete()

    def _leave(self) -> None:
        self._say_farewell("server_draining", _LEAVING, 503)


class GraphqlFrames(_GraphqlStream):
    """A subscription on a WebSocket.

    Args:
        listening: Its place.
        selection: What it has selected.
        operation: The client's name for it.
        leave: Has the whole connection go elsewhere, as soon as nothing is said on it.
        on_close: Called once, when nobody reads any more.

    """

    _is_told_by_the_close = True

    def __init__(
        self,
        listening: Listening,
        selection: Selection,
        operation: str,
        *,
        leave: Callable[[], None],
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(listening, selection, on_close)
        self._operation = operation
        self._head = next_head(operation)
        self._go_elsewhere = leave

    def give_up(self) -> None:
        """Say nothing more: its client wants no more of it. What it was told of goes on."""
        self._is_completed = True
        self._wake()

    def _next(self, result: bytes) -> bytes:
        return b"%b%b}" % (self._head, result)

    def _complete(self) -> bytes:
        return complete(self._operation)

    def _error(self, code: str, message: str, status: int) -> bytes:  # noqa: ARG002 - of use elsewhere
        return error(self._operation, [error_fields(code, message)])

    def _leave(self) -> None:
        self._is_completed = True  # not said: clients subscribe again by themselves where they go
        self._go_elsewhere()
