"""The door ``WS /v1/widget/deepchat``: the web component deep-chat, one chat on one connection.

The widget connects when it is shown, and again at once when the connection is lost: to the same address,
which is all that it can say. So an address that names a chat is told what is being answered there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from unbroken.server.limits import ConnectionLimits
from unbroken.server.protocols.deepchat.decode import decode_message, new_chat_id
from unbroken.server.protocols.deepchat.encode import END, DeepChatEncoder, error_frame
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.ui.decode import Chat
from unbroken.server.transports.asking import refusal_of
from unbroken.server.transports.chats import Chats
from unbroken.server.transports.deepchat_stream import DeepChatFrames
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Speaker
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.lanes import Lanes, LanesFull, QueueFull
from unbroken.server.transports.query import checked
from unbroken.server.transports.talk import FrameSource, Talk
from unbroken.server.transports.talk_door import Interlocutor
from unbroken.sessions.errors import SessionError

__all__ = ["DeepChatSocket", "say_alone"]

_MOST_END: Final = 64
"""Characters of the text that ends an answer."""

_CHATS: Final = 8
"""In which something may be answered at once on one connection: pages have one."""


class DeepChatSocket:
    """Makes who answers the clients of ``WS /v1/widget/deepchat``.

    Args:
        chats: The chats.
        limits: What a connection may do.

    """

    def __init__(self, chats: Chats, limits: ConnectionLimits) -> None:
        self._chats = chats
        self._limits = limits

    def __call__(self, speaker: Speaker, fields: Mapping[str, Sequence[str]]) -> Interlocutor:
        """Return who answers *speaker*.

        Raises:
            DecodeError: The address asks for what can't be.

        """
        chat_id, end = (next(reversed(fields.get(name, ())), None) for name in ("chat", "end"))
        if chat_id is not None:
            checked(chat_id, "chat")
        if end is not None and not 1 <= len(end) <= _MOST_END:
            raise DecodeError("invalid_query", f"`end` takes 1 to {_MOST_END} characters.", param="end")
        return _Connection(self._chats, speaker, self._limits, chat_id, END if end is None else end)


class _Connection:
    """What is said on one connection. What comes while an answer is given waits for its end."""

    def __init__(
        self, chats: Chats, speaker: Speaker, limits: ConnectionLimits, chat_id: str | None, end: str
    ) -> None:
        self._chats = chats
        self._speaker = speaker
        self._limits = limits
        self._named = chat_id
        self._chat_id = new_chat_id() if chat_id is None else chat_id
        self._end = end
        self._talk: Talk
        self._lanes: Lanes[Chat | None]

    def begin(self, talk: Talk) -> None:
        """See :class:`Interlocutor`."""
        self._talk = talk
        self._lanes = Lanes(talk, self._answer, most=_CHATS, most_waiting=self._limits.input_queue)
        if self._named is not None:
            self._lanes.ask(self._named, None)

    def hear(self, data: str | bytes) -> None:
        """See :class:`~unbroken.server.transports.talk.Hear`."""
        try:
            if isinstance(data, bytes):
                raise DecodeError("binary_frame", "Send text frames: this protocol has no binary ones.")
            chat = decode_message(data, self._chat_id, max_depth=self._limits.frame_depth)
            self._lanes.ask(chat.id, chat)
        except (LanesFull, QueueFull):
            message = "More is being said than is answered. Wait for the answers."
            self._refuse(HttpRefusal(429, "input_queue_full", message))
        except DecodeError as exc:
            self._refuse(exc)

    async def _answer(self, chat: Chat | None) -> FrameSource | None:
        """Return the answer to what was said. None was: whatever is being answered there, if anything is."""
        try:
            exchange: Exchange | None
            if chat is None:
                exchange = await self._chats.find_running(self._speaker, self._chat_id)
            else:
                exchange = await self._chats.ask(self._speaker, chat)
        except (DecodeError, SessionError, HttpRefusal) as exc:
            self._refuse(exc)
            return None
        if exchange is None:
            return None
        encoder = DeepChatEncoder(exchange.response_id, end=self._end)
        return DeepChatFrames(exchange, encoder, lambda: None)

    def _refuse(self, why: Exception) -> None:
        refusal = why if isinstance(why, HttpRefusal) else refusal_of(why)
        if refusal is None:
            raise why
        self._talk.say(error_frame(refusal.message))


def say_alone(code: str, message: str, *, status: int, retry_after: int | None = None) -> bytes:  # noqa: ARG001 - it has no place for these
    """Return an error of the whole connection."""
    return error_frame(message)
