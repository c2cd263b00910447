"""The door ``WS /v1/ui/ws``: the AI SDK's ``WebSocketChatTransport``, several answers on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from unbroken.server.limits import ConnectionLimits
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.ui.socket import (
    Abort,
    Resume,
    Send,
    Unsaid,
    decode_frame,
    error_frame,
    frame,
)
from unbroken.server.transports.chats import Chats
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Speaker
from unbroken.server.transports.field_names import UI
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.lanes import Lanes, LanesFull, QueueFull
from unbroken.server.transports.talk import FrameSource, Talk
from unbroken.server.transports.talk_door import Interlocutor
from unbroken.server.transports.ui_stream import UiFrames
from unbroken.sessions.errors import SessionError

__all__ = ["UiSocket", "say_alone"]

_REQUESTS: Final = 32
"""That may be answered at once on one connection."""

_GRACE: Final = 0.5
"""Seconds within which whoever gives up what they came back to may come back to it again."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A request that is being answered, or waits for that."""

    said: Send | Resume
    exchange: Exchange | None = None
    """The hold on the answer. None: it isn't there yet."""
    is_aborted: bool = False
    """Whether its client has given it up."""
    is_to_stop: bool = False
    """Whether the answer is to be stopped as soon as it is there."""


class UiSocket:
    """Makes who answers the clients of ``WS /v1/ui/ws``.

    Args:
        chats: The chats.
        limits: What a connection may do.

    """

    def __init__(self, chats: Chats, limits: ConnectionLimits) -> None:
        self._chats = chats
        self._limits = limits

    def __call__(self, speaker: Speaker, _fields: Mapping[str, Sequence[str]]) -> Interlocutor:
        """Return who answers *speaker*."""
        return _Connection(self._chats, speaker, self._limits)


class _Connection:
    """What is asked for on one connection. Each request is a lane of its own, and asks once."""

    def __init__(self, chats: Chats, speaker: Speaker, limits: ConnectionLimits) -> None:
        self._chats = chats
        self._speaker = speaker
        self._limits = limits
        self._talk: Talk
        self._lanes: Lanes[_Asked]
        self._running: dict[str, _Asked] = {}  # by the requests' ids
        self._come_back: dict[str, asyncio.Event] = {}  # by chat: set when its client comes back to it

    def begin(self, talk: Talk) -> None:
        """See :class:`Interlocutor`."""
        self._talk = talk
        self._lanes = Lanes(talk, self._answer, most=_REQUESTS, most_waiting=self._limits.input_queue)

    def hear(self, data: str | bytes) -> None:
        """See :class:`~unbroken.server.transports.talk.Hear`."""
        try:
            said = decode_frame(data, max_depth=self._limits.frame_depth)
        except Unsaid as exc:
            self._refuse(exc, exc.request_id)
            return
        if isinstance(said, Abort):
            given_up = self._running.get(said.request_id)
            if given_up is not None and not given_up.is_aborted:
                given_up.is_aborted = True
                self._talk.spawn(self._abort(given_up))
            return
        if said.request_id in self._running:
            message = "A request of this `requestId` is being answered. Give each one an id of its own."
            self._refuse(DecodeError("invalid_request", message, param="requestId"), said.request_id)
            return
        asked = _Asked(said)
        try:
            self._lanes.ask(said.request_id, asked)
        except (LanesFull, QueueFull):
            message = f"{_REQUESTS} requests are being answered, as many as may be. Wait for one of them."
            self._refuse(HttpRefusal(429, "websocket_stream_limit_reached", message), said.request_id)
        else:
            self._running[said.request_id] = asked
            if (come_back := self._come_back.pop(said.chat_id, None)) is not None:
                come_back.set()

    async def _answer(self, asked: _Asked) -> FrameSource | None:
        said, request_id = asked.said, asked.said.request_id
        try:
            if isinstance(said, Send):
                exchange: Exchange | None = await self._chats.ask(self._speaker, said.chat)
            else:
                exchange = await self._chats.find_running(self._speaker, said.chat_id)
        except (DecodeError, SessionError, HttpRefusal) as exc:
            self._let_go(request_id)
            self._refuse(exc, request_id)
            return None
        if exchange is None:
            self._let_go(request_id)
            self._talk.say(frame("no-active", request_id))
            return None
        asked.exchange = exchange
        if asked.is_to_stop:
            self._talk.spawn(self._stop(asked))
        encoder = self._chats.encoder(exchange, replays=isinstance(said, Resume))
        return UiFrames(exchange, encoder, request_id, lambda: self._let_go(request_id))

    def _let_go(self, request_id: str) -> None:
        self._running.pop(request_id, None)

    async def _abort(self, asked: _Asked) -> None:
        """Stop what a request asked for, or came back to, unless its client comes back to it once more.

        Pages that are built up twice, as React's strict mode has them, give up the first of two at once.
        """
        chat_id = asked.said.chat_id
        if isinstance(asked.said, Resume):
            come_back = self._come_back.setdefault(chat_id, asyncio.Event())
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE):
                    await come_back.wait()
                    return
            self._come_back.pop(chat_id, None)
        await self._stop(asked)

    async def _stop(self, asked: _Asked) -> None:
        """Stop one answer, and no other of its chat."""
        if asked.exchange is None:
            asked.is_to_stop = True
            return
        try:
            await asked.exchange.stop()
        except SessionError as exc:
            asked.is_aborted = False  # it may be tried again
            self._refuse(exc, asked.said.request_id)

    def _refuse(self, why: Exception, request_id: str | None) -> None:
        refusal = why if isinstance(why, HttpRefusal) else UI.refusal_of(why)
        if refusal is None:
            raise why
        retry_after = refusal.retry_after if refusal.status in (429, 503) else None
        self._talk.say(error_frame(refusal.code, refusal.message, request_id, retry_after=retry_after))


def say_alone(code: str, message: str, *, status: int, retry_after: int | None = None) -> bytes:  # noqa: ARG001 - the protocol has no place for it
    """Return an error of the whole connection."""
    return error_frame(code, message, retry_after=retry_after)
