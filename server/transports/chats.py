"""Chats by the names that clients give them: asked in, come back to, and stopped, through whichever door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from unbroken.server.protocols.asked import Asked
from unbroken.server.protocols.conversation_names import conversation_id, session_named
from unbroken.server.protocols.ui.chunks import Fields
from unbroken.server.protocols.ui.decode import Chat
from unbroken.server.protocols.ui.encode import UiEncoder
from unbroken.server.protocols.ui.history import earlier_steps, wanted_of
from unbroken.server.protocols.ui.messages import messages_of
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Exchanges, Speaker
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.sessions.errors import SessionNotFound
from unbroken.sessions.ids import ResponseId, SessionId, belongs_to, is_transient, new_session_id
from unbroken.sessions.session import Session

__all__ = ["Chats", "told_of"]

_T = TypeVar("_T")

_GONE: Final = "The answer's pieces aren't kept any more. Get the chat's messages: they have it as a whole."


class Chats:
    """The chats of all speakers. Each is a session, whose id is made of its speaker's and its name.

    Args:
        exchanges: Begins responses, and finds them.

    """

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges

    async def ask(self, speaker: Speaker, chat: Chat) -> Exchange:
        """Have the answer be begun, unless it is there already, and return the hold on it, at its beginning.

        Raises:
            DecodeError: It asks for what can't be.
            HttpRefusal: It is there, and can't be told any more piece by piece.
            Refusal: It may not, or not now.
            SessionError: It can't be had now.

        """
        plan = speaker.grant.principal.plan
        return await self.ask_in(speaker, chat.id, lambda session: wanted_of(chat, session, plan))

    async def ask_in(
        self, speaker: Speaker, chat_id: str, decide: Callable[[Session | None], Asked | ResponseId]
    ) -> Exchange:
        """As :meth:`ask`. What is to be asked for, if anything, is what *decide* says of the chat's session.

        Raises:
            DecodeError: It asks for what can't be.
            HttpRefusal: It is there, and can't be told any more piece by piece.
            Refusal: It may not, or not now.
            SessionError: It can't be had now.

        """
        exchange = await self._exchanges.begin_in(speaker, self._session(speaker, chat_id), decide)
        return _at_its_beginning(exchange)

    async def find_running(self, speaker: Speaker, chat_id: str) -> Exchange | None:
        """Return the hold on the answer that is being made, at its beginning. None: there is none.

        Raises:
            SessionError: It can't be had now.

        """
        response_id = await self.read(speaker, chat_id, _running_in)
        if response_id is None:
            return None
        exchange = await self._exchanges.find(speaker, response_id)
        if exchange.rewind():
            return exchange
        exchange.close()
        return None  # it has ended meanwhile, or is too long to be told again

    async def find(self, speaker: Speaker, response_id: ResponseId) -> Exchange:
        """Return the hold on a response of the speaker's, at its beginning.

        Raises:
            HttpRefusal: It can't be told any more piece by piece.
            SessionNotFound: There is none, or it is another's.
            SessionError: It can't be had now.

        """
        exchange = await self._exchanges.find(speaker, response_id)
        session = exchange.attachment.session
        if not exchange.is_running and session.endings.get(response_id) is None and not exchange.rewind():
            exchange.close()
            raise SessionNotFound
        return _at_its_beginning(exchange)

    async def find_named(
        self, speaker: Speaker, chat_id: str, name: Callable[[Session], ResponseId | None]
    ) -> Exchange:
        """Return the hold on the response in a chat's session that *name* says, at its beginning.

        Raises:
            HttpRefusal: It can't be told any more piece by piece.
            SessionNotFound: There is none.
            SessionError: It can't be had now.

        """
        response_id = await self.read(speaker, chat_id, name)
        if response_id is None:
            raise SessionNotFound
        return await self.find(speaker, response_id)

    async def read(self, speaker: Speaker, chat_id: str, look: Callable[[Session], _T]) -> _T | None:
        """Return what *look* sees in a chat's session. None: it isn't there yet, or any more.

        Raises:
            SessionError: It can't be had now.

        """
        try:
            attachment = await self._exchanges.stand(speaker, self._session(speaker, chat_id))
        except SessionNotFound:
            return None
        try:
            if (seen := look(attachment.session)) is None:
                await attachment.catch_up()  # this node may not have heard of it
                seen = look(attachment.session)
            return seen
        finally:
            attachment.close()

    async def stop(self, speaker: Speaker, chat_id: str) -> bool:
        """Stop what is being answered, and return whether there was anything.

        Raises:
            SessionError: It can't be stopped now.

        """
        return await self._exchanges.stop_in(speaker, self._session(speaker, chat_id))

    async def messages(self, speaker: Speaker, chat_id: str) -> list[Fields]:
        """Return the messages of a chat, as far as they are whole. A chat comes to be with its first one.

        Raises:
            SessionError: They can't be had now.

        """
        return await self.read(speaker, chat_id, messages_of) or []

    @staticmethod
    def encoder(exchange: Exchange, *, replays: bool) -> UiEncoder:
        """Return what says a response. *replays*: to a client that may have no part of its message."""
        earlier = earlier_steps(exchange.attachment.session, exchange.response_id)
        return UiEncoder(exchange.response_id, told=told_of(exchange), earlier=earlier, replays=replays)

    @staticmethod
    def _session(speaker: Speaker, chat_id: str) -> SessionId:
        named = session_named(chat_id)
        if belongs_to(named, speaker.principal) and not is_transient(named):
            return named  # it was begun elsewhere
        return new_session_id(speaker.principal, seed=f"ui:{chat_id}")


def told_of(exchange: Exchange) -> Fields:
    """Return by which names a response is gone on with through other doors."""
    told = {"conversation": conversation_id(exchange.attachment.session.id)}
    if exchange.resume is not None:
        told["resume"] = exchange.resume
    return told


def _running_in(session: Session) -> ResponseId | None:
    running = session.responses.values()
    return next((each.id for each in running if each.request.in_conversation), None)


def _at_its_beginning(exchange: Exchange) -> Exchange:
    if not exchange.rewind():
        exchange.close()
        raise HttpRefusal(404, "response_events_gone", _GONE, "messages")
    return exchange
