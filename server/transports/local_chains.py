"""What a connection may go on from that isn't stored: its own responses, and nobody else's."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from unbroken.server.protocols.asked import Asked
from unbroken.server.protocols.conversation_names import session_named
from unbroken.server.transports.asking import not_there
from unbroken.server.transports.exchange import Exchange
from unbroken.sessions.ids import SessionId, is_transient, session_of

__all__ = ["LocalChains"]

_MOST: Final = 256
"""Responses that are known. Who goes on from older ones begins anew."""

_MOST_HELD: Final = 2
"""Sessions that are kept from going, those of the latest responses: a tool may run for longer than what
nobody holds is there. All connections that a key may have hold less than its share of a full node so."""


class LocalChains:
    """Knows which responses that aren't stored were begun on one connection, and holds what they said.

    By the protocol's rules: a response that isn't stored is gone on from where it was begun, and nowhere
    else; and after a continuation that failed it isn't any more.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()  # the oldest first
        self._held: OrderedDict[SessionId, Exchange] = OrderedDict()  # by session, the oldest first
        self._is_over = False

    def check(self, asked: Asked) -> None:
        """Refuse what goes on from a response that isn't stored, and isn't known here.

        Raises:
            DecodeError: It does. What is said of it is what is said of one that there never was.

        """
        if asked.conversation is not None:
            named = session_named(asked.conversation)
            if is_transient(named) and all(session_of(each) != named for each in self._known):
                raise not_there(asked.conversation)
        elif asked.previous is not None:
            session_id = session_of(asked.previous)
            if session_id is not None and is_transient(session_id) and asked.previous not in self._known:
                raise not_there(None)

    def begun(self, exchange: Exchange) -> None:
        """Note that a response was begun on this connection."""
        if not is_transient(exchange.attachment.session.id):
            return
        self._known[exchange.response_id] = None
        if len(self._known) > _MOST:
            self._known.popitem(last=False)

    def failed(self, previous: str | None) -> None:
        """Note that what was to go on from *previous* failed: that isn't gone on from any more."""
        if previous is not None:
            self._known.pop(previous, None)

    def let_go(self, exchange: Exchange) -> None:
        """Take over an exchange whose response has been said: it is closed when nobody goes on from there."""
        session_id = exchange.attachment.session.id
        if self._is_over or not is_transient(session_id):
            exchange.close()
            return
        if (before := self._held.pop(session_id, None)) is not None:
            before.close()
        self._held[session_id] = exchange
        if len(self._held) > _MOST_HELD:
            self._held.popitem(last=False)[1].close()

    def close(self) -> None:
        """Let go of everything: the connection has ended."""
        self._is_over = True
        while self._held:
            self._held.popitem()[1].close()
