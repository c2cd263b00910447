"""``GET /v1/sessions/{id}/events``: a session's log, read-only, as server-sent events or by asking again.

In the words of Realtime, with the same cursors: whoever watches here goes on over a WebSocket, and back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.auth.lapse import Lapse
from unbroken.server.errors import ERROR_MEANINGS
from unbroken.server.protocols.conversation_names import session_named
from unbroken.server.protocols.cursor import parse_cursor
from unbroken.server.protocols.realtime.connection import RealtimeConnection
from unbroken.server.protocols.realtime.encode import error_frame
from unbroken.server.resume import ResumeTokens
from unbroken.server.transports.asking import refusal_of
from unbroken.server.transports.awaiting import left
from unbroken.server.transports.exchanges import Speaker
from unbroken.server.transports.http_way import Endpoint, HttpRefusal, Visit, found
from unbroken.server.transports.query import check_query
from unbroken.server.transports.reception import Reception
from unbroken.server.transports.sse import EventStream, event
from unbroken.sessions.errors import SessionError, SessionNotFound
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import Incarnation, Nonce, belongs_to, new_chain_id
from unbroken.sessions.node import Attachment, Node

__all__ = ["SessionEventsDoor"]

_READ_LIMIT: Final = 512
_MOST_BYTES: Final = 16_384
_MOST_EVENTS: Final = 1_000
"""In one answer to who asks again."""

_LONGEST_WAIT: Final = 55
"""Seconds that one who asks may wait: proxies cut what is silent for a minute."""

_ID: Final = b'"event_id":"'


@dataclass(slots=True)
class _Watch:
    """Somebody's view of a session."""

    attachment: Attachment
    connection: RealtimeConnection
    pending: Iterator[bytes]
    """Of what was taken, what is to be shown yet."""

    def more(self) -> list[bytes]:
        """Return the next events; none: there are none for the moment.

        Raises:
            SessionError: Nothing more will come, or what comes next has been forgotten.

        """
        events: list[bytes] = []
        size = 0
        while size < _MOST_BYTES and len(events) < _MOST_EVENTS:
            if taken := list(islice(self.pending, 1)):
                events += taken
                size += len(taken[0])
            elif records := self.attachment.cursor.take(_READ_LIMIT):
                self.pending = self.connection.records(records)
            else:
                break
        return events


class SessionEventsDoor:
    """Serves the events of sessions."""

    def __init__(
        self,
        *,
        reception: Reception,
        node: Node,
        tokens: ResumeTokens,
    ) -> None:
        self._reception = reception
        self._node = node
        self._tokens = tokens

    def routes(self) -> list[Route]:
        """Return its route."""
        return [Route("/v1/sessions/{session_id}/events", Endpoint(self._serve))]

    async def _serve(self, request: Request, send: Send) -> None:
        await self._reception.way.serve(request, send, self._watched, refusal_of)

    async def _watched(self, visit: Visit) -> Response:
        speaker = await self._reception.let_in(visit)
        found(("GET",), visit.method)
        query = visit.request.query_params
        check_query(query, ("after", "wait", "resume", "ticket"))
        wait = _wait(query.get("wait"))
        # A browser that was cut off names what it saw last in a header.
        after = visit.request.headers.get("last-event-id") or query.get("after")
        try:
            # What there is can be asked for on a node that drains, too; it isn't waited for more there.
            watches = wait is None or not self._node.is_draining
            session_id = visit.request.path_params["session_id"]
            watch = await self._attached(speaker, session_id, after, watches=watches)
        except SessionNotFound:
            message = "There is no such session: it has ended, or it isn't yours."
            raise HttpRefusal(404, "session_not_found", message) from None
        if wait is None:
            return self._streamed(watch, speaker)
        try:
            return await self._asked(watch, wait, visit.request)
        finally:
            watch.attachment.close()

    async def _attached(self, speaker: Speaker, named: str, after: str | None, *, watches: bool) -> _Watch:
        session_id = session_named(named)
        if not belongs_to(session_id, speaker.principal):
            raise SessionNotFound
        if speaker.resume is not None:  # then they are here for that session alone
            known = self._tokens.check(speaker.resume, speaker.principal)
            if known is None or known[0] != session_id:
                raise SessionNotFound
        chain = new_chain_id()
        cursor = None if after is None else parse_cursor(after)
        if after is not None and cursor is None:  # none of ours: as unusable as one from the future
            cursor = Position(Incarnation(""), 0, Nonce(0)), 0
        position, remaining = (None, 0) if cursor is None else cursor
        attachment = await self._node.attach(
            session_id, speaker.principal, position, chain, repeat=remaining > 0, watches=watches
        )
        is_on = attachment.resumed and position is not None
        start = position if is_on and position is not None else attachment.cursor.position()
        connection = RealtimeConnection(
            attachment.session,
            start,
            chain,
            max_depth=1,
            remaining=remaining if is_on else 0,
            refusals_from=0 if is_on else attachment.session.applied,
        )
        token = self._tokens.mint(session_id, chain, speaker.principal)
        resumed = None if after is None else attachment.resumed
        opening = connection.opening(token, resumed=resumed, preamble=attachment.take_preamble())
        return _Watch(attachment, connection, opening)

    def _streamed(self, watch: _Watch, speaker: Speaker) -> Response:
        staying = ExitStack()
        source = _Stream(watch, staying.close)
        self._reception.attend(speaker, staying, source.lapse)
        return EventStream(source, self._reception.clock)

    async def _asked(self, watch: _Watch, wait: float, request: Request) -> Response:
        """Answer with what there is, or with what comes first within *wait* seconds; maybe nothing."""
        events = watch.more()
        if len(events) == 1 and not watch.attachment.is_ending:  # the session itself: nothing that is new
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    events += await self._news(watch, request)
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        body = b'{"object":"list","data":[%b],"after":%b}' % (
            b",".join(events),
            orjson.dumps(_id_of(events[-1]).decode()),
        )
        return Response(body, headers=headers, media_type="application/json")

    @staticmethod
    async def _news(watch: _Watch, request: Request) -> list[bytes]:
        """Return what comes next; nothing, where the client has left, or is to go elsewhere."""
        woken = asyncio.Event()
        leaving = asyncio.create_task(left(request))
        leaving.add_done_callback(lambda _: woken.set())
        watch.attachment.cursor.listen(woken.set)
        try:
            while not (news := watch.more() or leaving.done() or watch.attachment.is_finished):
                woken.clear()
                await woken.wait()
            return news if isinstance(news, list) else []
        finally:
            watch.attachment.cursor.listen(None)
            leaving.cancel()
            await asyncio.wait((leaving,))


class _Stream:
    """See :class:`~unbroken.server.transports.sse.EventSource`."""

    def __init__(self, watch: _Watch, on_close: Callable[[], None]) -> None:
        self._watch = watch
        self._on_close = on_close
        self._callback: Callable[[], None] | None = None
        self._farewell: bytes | None = None
        self._is_over = False

    @property
    def is_over(self) -> bool:
        return self._is_over

    def take(self) -> bytes:
        said = b""
        if self._farewell is None and not self._is_over:
            try:
                said = b"".join(map(_framed, self._watch.more()))
            except SessionError as exc:
                refusal = refusal_of(exc)
                code = "internal_error" if refusal is None else refusal.code
                self._say_farewell(code, "The stream ends. Go on behind the last event.")
            else:
                self._is_over = self._watch.attachment.is_finished
        if self._farewell is not None:
            said, self._farewell, self._is_over = said + self._farewell, None, True
        return said

    def _say_farewell(self, code: str, message: str) -> None:
        # Without an id: whoever goes on does so behind what came before.
        frame = self._watch.connection.own(error_frame(code, message))
        self._farewell = event("error", frame)

    def lapse(self, reason: Lapse) -> None:
        """End the stream: what the client was let in with no longer counts."""
        if not self._is_over:
            self._say_farewell(reason.value, ERROR_MEANINGS[reason.value])
            if self._callback is not None:
                self._callback()

    def listen(self, callback: Callable[[], None] | None) -> None:
        self._callback = callback
        self._watch.attachment.cursor.listen(callback)

    def close(self) -> None:
        self._watch.attachment.close()
        self._on_close()


def _framed(frame: bytes) -> bytes:
    """Return an event of Realtime as it is sent here: its id is what a browser names when it comes again."""
    return b"id: %b\ndata: %b\n\n" % (_id_of(frame), frame)


def _id_of(frame: bytes) -> bytes:
    """Return the cursor of an event: the last field of that name, as no text can look like one."""
    begin = frame.rindex(_ID) + len(_ID)
    return frame[begin : frame.index(b'"', begin)]


def _wait(given: str | None) -> float | None:
    """Return for how long somebody would wait; None: they want a stream.

    Raises:
        HttpRefusal: It is no such time.

    """
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 4 and int(given) <= _LONGEST_WAIT):
        raise HttpRefusal(
            400, "invalid_request", f"`wait` is a number of seconds up to {_LONGEST_WAIT}.", "wait"
        )
    return float(given)
