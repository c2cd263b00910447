"""Chats by the names that clients give them: asked in, come back to, and stopped, through whichever door."""

from __future__ import annotations

from typing import Final

from unbroken.server.protocols.ui.chunks import Fields
from unbroken.server.protocols.ui.decode import Chat
from unbroken.server.protocols.ui.encode import UiEncoder
from unbroken.server.protocols.ui.history import earlier_steps, wanted_of
from unbroken.server.protocols.ui.messages import messages_of
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Exchanges, Speaker
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.sessions.errors import SessionNotFound
from unbroken.sessions.ids import SessionId, new_session_id

__all__ = ["Chats"]

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
        exchange = await self._exchanges.begin_in(
            speaker, self._session(speaker, chat.id), lambda session: wanted_of(chat, session, plan)
        )
        if not exchange.rewind():
            exchange.close()
            raise HttpRefusal(404, "response_events_gone", _GONE, "messages")
        return exchange

    async def find_running(self, speaker: Speaker, chat_id: str) -> Exchange | None:
        """Return the hold on the answer that is being made, at its beginning. None: there is none.

        Raises:
            SessionError: It can't be had now.

        """
        try:
            attachment = await self._exchanges.stand(speaker, self._session(speaker, chat_id))
        except SessionNotFound:
            return None  # it isn't there yet, or any more
        running = attachment.session.responses.values()
        response_id = next((each.id for each in running if each.request.in_conversation), None)
        attachment.close()
        if response_id is None:
            return None
        exchange = await self._exchanges.find(speaker, response_id)
        if exchange.rewind():
            return exchange
        exchange.close()
        return None  # it has ended meanwhile, or is too long to be told again

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
        try:
            attachment = await self._exchanges.stand(speaker, self._session(speaker, chat_id))
        except SessionNotFound:
            return []
        try:
            return messages_of(attachment.session)
        finally:
            attachment.close()

    @staticmethod
    def encoder(exchange: Exchange, *, replays: bool) -> UiEncoder:
        """Return what says a response. *replays*: to a client that may have no part of its message."""
        session = exchange.attachment.session
        told = {"conversation": session.id.replace("sess_", "conv_", 1)}
        if exchange.resume is not None:
            told["resume"] = exchange.resume
        earlier = earlier_steps(session, exchange.response_id)
        return UiEncoder(exchange.response_id, told=told, earlier=earlier, replays=replays)

    @staticmethod
    def _session(speaker: Speaker, chat_id: str) -> SessionId:
        return new_session_id(speaker.principal, seed=f"ui:{chat_id}")
