"""Conversations as somebody has them: begun, listed, added to, exported and deleted. Each is a session."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from unbroken.server.auth.base import Grant
from unbroken.server.erasing.transcripts import Transcripts
from unbroken.server.protocols.conversations.decode import NewConversation
from unbroken.server.protocols.items import DecodeError
from unbroken.server.transports.beginning import Speaker, accepted, soon, take_back
from unbroken.server.transports.exchanges import Exchanges
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.index import SessionIndex
from unbroken.sessions.deletion import delete
from unbroken.sessions.entries import CreateItem, CreateResponse, DeleteItem, Submitted, UpdateConfig
from unbroken.sessions.errors import (
    LostTail,
    NodeFull,
    Refusal,
    SessionError,
    SessionGone,
    SessionNotFound,
    StoreUnavailable,
    TooManySessions,
    UnknownFormat,
)
from unbroken.sessions.ids import ItemId, ResponseId, SessionId, belongs_to, is_transient
from unbroken.sessions.items import Item, ResponseRequest
from unbroken.sessions.looking import look_at
from unbroken.sessions.node import Attachment, Node
from unbroken.sessions.session import Session

__all__ = ["Conversations", "check_own"]

_LOOKS: Final = 4
"""How often a page of the index is read for one that is shown, as what is listed there may have gone."""

_OWN_KEY: Final = "This key is good for some conversations only. Use the user's own."


class Conversations:
    """Those of all speakers.

    Args:
        exchanges: Knows how a session begins, and is found.
        node: Has the sessions that are stored.
        transient: Has those that aren't.
        store: Where the node's are.
        index: Where these are listed.
        transcripts: What the archive has of them.

    """

    def __init__(
        self,
        *,
        exchanges: Exchanges,
        node: Node,
        transient: Node,
        store: SessionStore,
        index: SessionIndex,
        transcripts: Transcripts,
    ) -> None:
        self._exchanges = exchanges
        self._node = node
        self._transient = transient
        self._store = store
        self._index = index
        self._transcripts = transcripts

    async def create(self, speaker: Speaker, wanted: NewConversation) -> Attachment:
        """Begin a conversation, which lasts as sessions do, also an empty one; return the hold on it.

        Raises:
            DecodeError, Refusal: It may not be.
            SessionError: It can't be had now.

        """
        async with soon():
            attachment = await self._exchanges.open(speaker)
        try:
            await self._note(speaker, attachment, wanted.metadata)
            if wanted.items:
                await self._add(speaker, attachment, wanted.items)
        except BaseException:
            attachment.close()
            with suppress(SessionError):  # else it expires
                await self._node.erase(attachment.session.id)
            raise
        return attachment

    async def find(self, speaker: Speaker, session_id: SessionId) -> Attachment:
        """Return the hold on a conversation.

        Raises:
            SessionNotFound: There is none, or it is another's.
            SessionError: It can't be had now.

        """
        async with soon():
            return await self._exchanges.stand(speaker, session_id)

    def token(self, speaker: Speaker, attachment: Attachment) -> str | None:
        """Return with what a conversation is gone on with over a WebSocket. None: it can't be."""
        return self._exchanges.token(attachment, attachment.cursor.chain, speaker)

    async def update(self, speaker: Speaker, session_id: SessionId, metadata: dict[str, str]) -> Attachment:
        """Note something of a conversation, in place of what was noted; return the hold on it.

        Raises:
            SessionNotFound: There is none, or it is another's.
            SessionError: It can't be had now.

        """
        attachment = await self.find(speaker, session_id)
        try:
            await self._note(speaker, attachment, metadata)
        except BaseException:
            attachment.close()
            raise
        return attachment

    async def _note(self, speaker: Speaker, attachment: Attachment, metadata: dict[str, str]) -> None:
        submission = self._exchanges.submission(speaker, attachment)
        async with soon():
            update = Submitted(UpdateConfig(metadata=metadata), attachment.cursor.chain)
            await accepted(attachment, (await submission.write(update)).seq)

    async def delete(self, speaker: Speaker, session_id: SessionId) -> None:
        """Delete a conversation for good, and cancel what is being answered in it.

        One that the archive alone has still is deleted there, by whoever comes with a key of their own.

        Raises:
            SessionNotFound: There is none, or it is another's.
            StoreUnavailable: It may have been done.
            SessionError: It can't be done now.

        """
        is_pinned = speaker.grant.pins is not None or speaker.resume is not None
        try:
            async with soon():  # by the same rules as whoever looks at it
                (await self._exchanges.stand(speaker, session_id, watches=False)).close()
        except (NodeFull, TooManySessions):  # that keeps nobody from making room
            if is_pinned:
                raise
        except SessionNotFound:
            if is_pinned or not await self._transcripts.erase_own(session_id, speaker.principal):
                raise
            return
        node = self._transient if is_transient(session_id) else self._node
        if node is self._node:  # first: a session that is there is found again
            await self._transcripts.erase(session_id)
        await delete(node, session_id, speaker.principal)
        with suppress(StoreUnavailable):  # else whoever lists it finds that it has gone
            await self._index.drop(speaker.principal, [session_id])

    # What is in one.

    async def add(
        self, speaker: Speaker, session_id: SessionId, items: Sequence[Item]
    ) -> tuple[Attachment, list[Item]]:
        """Have items be part of a conversation; return the hold on it, and them as they are there.

        Raises:
            SessionNotFound: There is none, or it is another's.
            DecodeError, Refusal: They can't be. Then none of them is.
            SessionError: It can't be had now.

        """
        attachment = await self.find(speaker, session_id)
        try:
            added = await self._add(speaker, attachment, items)
        except BaseException:
            attachment.close()
            raise
        found = (attachment.session.item(item_id) for item_id in added)
        return attachment, [item for item in found if item is not None]

    async def _add(self, speaker: Speaker, attachment: Attachment, items: Sequence[Item]) -> list[ItemId]:
        commands = [CreateItem(item) for item in items]
        pins = speaker.grant.pins
        if pins is not None and any(pins.violation(command) is not None for command in commands):
            message = "The short-lived key settles what the instructions say."
            raise DecodeError("session_pinned", message, param="items")
        submission = self._exchanges.submission(speaker, attachment)
        # All of it at once, and ahead of all: what is refused leaves nothing behind.
        await submission.check(CreateResponse(ResponseId(""), ResponseRequest(input=tuple(items))))
        chain, added = attachment.cursor.chain, list[ItemId]()
        try:
            async with soon():
                for command in commands:
                    receipt = await submission.write(Submitted(command, chain))
                    added.append(command.item.id)
                    await accepted(attachment, receipt.seq)
        except (Refusal, SessionError):
            await take_back(attachment, chain, added)
            raise
        return added

    async def remove(self, speaker: Speaker, session_id: SessionId, item_id: ItemId) -> Attachment:
        """Take an item out of a conversation; return the hold on that.

        Raises:
            SessionNotFound: There is no such conversation, or it is another's.
            Refusal: There is no such item, or it can't be taken out now.
            SessionError: It can't be had now.

        """
        attachment = await self.find(speaker, session_id)
        try:
            async with soon():
                receipt = await attachment.submit(Submitted(DeleteItem(item_id), attachment.cursor.chain))
                await accepted(attachment, receipt.seq)
        except BaseException:
            attachment.close()
            raise
        return attachment

    # All of somebody's.

    async def page(
        self, speaker: Speaker, limit: int, *, after: SessionId | None, oldest_first: bool
    ) -> tuple[list[Session], bool] | None:
        """Return up to *limit* conversations behind *after*, and whether there are more; None: *after* isn't.

        Those that aren't stored are in no list, nor are those in which nothing was said yet.

        Raises:
            DecodeError: The key is good for some only.
            SessionError: They can't be had now.

        """
        check_own(speaker.grant, speaker.resume)
        found: list[Session] = []
        for _ in range(_LOOKS):
            page = await self._index.page(
                speaker.principal, limit + 1, after=after, oldest_first=oldest_first
            )
            if page is None:
                return None
            gone: list[SessionId] = []
            for session_id, _ in page:
                if len(found) == limit:
                    break
                after = session_id
                with suppress(UnknownFormat):  # it is there, and for others to tell of
                    session = await self._look(speaker, session_id)
                    if session is not None:
                        found.append(session)
                    else:
                        gone.append(session_id)
            is_last = len(page) <= limit
            is_full = len(found) == limit
            if after in gone and not (is_last or is_full):
                gone.remove(after)  # what follows it is asked for by its name
            has_more = False
            if is_last or is_full:
                has_more = bool(page) and await self._is_followed(speaker, after, oldest_first)
            await self._index.drop(speaker.principal, gone)
            if is_last or is_full:
                return found, has_more
        return found, True

    async def _is_followed(self, speaker: Speaker, last: SessionId | None, oldest_first: bool) -> bool:
        """Return whether anything is listed behind *last*."""
        return bool(await self._index.page(speaker.principal, 1, after=last, oldest_first=oldest_first))

    async def _look(self, speaker: Speaker, session_id: SessionId) -> Session | None:
        """Return how a conversation stands; None: it has gone.

        Raises:
            UnknownFormat: A later release has written it.
            StoreUnavailable: It can't be looked up for the moment.

        """
        actor = self._node.hub.get(session_id)
        if actor is not None and actor.feed.ended is None:
            return actor.session if actor.principal == speaker.principal else None
        if not belongs_to(session_id, speaker.principal):
            return None
        try:
            session = await look_at(self._store, session_id, self._node.limits.session)
        except SessionGone:
            return None
        except LostTail:
            raise StoreUnavailable from None
        return session if session.principal == speaker.principal else None


def check_own(grant: Grant, resume: str | None) -> None:
    """Refuse what concerns all of somebody's to a key that is good for less.

    Raises:
        DecodeError: It is.

    """
    if grant.pins is not None or resume is not None:
        raise DecodeError("session_pinned", _OWN_KEY)
