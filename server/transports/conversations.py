"""Conversations as somebody has them: begun, listed, added to, exported and deleted. Each is a session."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from unbroken.server.erasing.transcripts import Transcripts
from unbroken.server.protocols.conversations.decode import NewConversation, NewItems
from unbroken.server.protocols.items import DecodeError
from unbroken.server.transports.beginning import Speaker, accepted
from unbroken.server.transports.conversation_pages import ConversationPages
from unbroken.server.transports.exchange import soon
from unbroken.server.transports.exchanges import Exchanges
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.index import SessionIndex
from unbroken.sessions.deletion import delete
from unbroken.sessions.entries import (
    Command,
    CreateItems,
    DeleteItem,
    InputKey,
    Submitted,
    UpdateConfig,
)
from unbroken.sessions.errors import (
    CursorLost,
    MessageIdReused,
    NodeDraining,
    NodeFull,
    SessionError,
    SessionNotFound,
    StoreUnavailable,
    TooManySessions,
)
from unbroken.sessions.gates import Gates
from unbroken.sessions.ids import (
    ItemId,
    SessionId,
    is_transient,
    new_item_id,
    new_session_id,
)
from unbroken.sessions.items import Item
from unbroken.sessions.node import Attachment, Node

__all__ = ["Conversations"]

_SETTLED: Final = "The short-lived key settles what the instructions say."


class Conversations:
    """Those of all speakers.

    Args:
        exchanges: Knows how a session begins, and is found.
        node: Has the sessions that are stored.
        transient: Has those that aren't.
        store: Where the node's are.
        index: Where these are listed.
        transcripts: What the archive has of them.

    Attributes:
        pages: All of somebody's.

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
        self.pages: Final = ConversationPages(node=node, store=store, index=index)
        self._index = index
        self._transcripts = transcripts
        self._gates = Gates()

    async def create(self, speaker: Speaker, wanted: NewConversation, name: str | None = None) -> Attachment:
        """Begin a conversation, which lasts as sessions do, also an empty one; return the hold on it.

        With what its items say, or not at all. The one that was begun by the same *name* is begun once.

        Raises:
            DecodeError, Refusal: It may not be, or the name was used for another one.
            SessionError: It can't be had now.

        """
        if name is None:
            return await self._create(speaker, wanted, None, None)
        session_id = new_session_id(speaker.principal, seed=f"conversation:{name}")
        key = InputKey(f"h:conversation:{name}", wanted.digest)
        async with soon(), self._gates.through(session_id):
            with suppress(CursorLost):
                return await self._create(speaker, wanted, session_id, key)
            # Another node has begun it in this moment: there it is.
            return await self._create(speaker, wanted, session_id, key)

    async def _create(
        self, speaker: Speaker, wanted: NewConversation, session_id: SessionId | None, key: InputKey | None
    ) -> Attachment:
        async with soon():
            attachment = await self._exchanges.open(speaker, wanted.metadata, session_id)
        try:
            await self._begin(speaker, attachment, wanted, key)
        except BaseException:
            if not attachment.session.applied:
                attachment.drop()  # the same name may ask otherwise; of an empty log nothing is missed
                raise
            attachment.close()
            if key is None:  # else who asks again goes on with it
                with suppress(SessionError):  # else it expires
                    await self._node.erase(attachment.session.id)
            raise
        return attachment

    async def _begin(
        self, speaker: Speaker, attachment: Attachment, wanted: NewConversation, key: InputKey | None
    ) -> None:
        command: Command = UpdateConfig(metadata=wanted.metadata)
        if wanted.items:
            command = CreateItems(wanted.items)
        session = attachment.session
        is_old = session.applied > 1  # before it is asked for its name: that may be just coming
        is_known = await _is_known(attachment, command, key)
        if is_old and not is_known:
            return  # it has been there for long: of its first input even the name is forgotten
        if not is_known:
            session.check(command)  # what is refused begins nothing
            if wanted.metadata != (session.config.metadata or {}):
                raise MessageIdReused  # whoever began it died of it, before it was known by its name
            await self._exchanges.submission(speaker, attachment).charge()
        await self._write(speaker, attachment, command, key, is_known=is_known)

    async def find(self, speaker: Speaker, session_id: SessionId) -> Attachment:
        """Return the hold on a conversation.

        Raises:
            SessionNotFound: There is none, or it is another's.
            SessionError: It can't be had now.

        """
        async with soon():
            return await self._exchanges.stand(speaker, session_id)

    async def _to_change(self, speaker: Speaker, session_id: SessionId) -> Attachment:
        """As :meth:`find`, for what is new in a conversation: a node that drains takes nothing."""
        attachment = await self.find(speaker, session_id)
        if attachment.is_ending:
            attachment.close()
            raise NodeDraining
        return attachment

    def token(self, speaker: Speaker, attachment: Attachment) -> str | None:
        """Return with what a conversation is gone on with over a WebSocket. None: it can't be."""
        return self._exchanges.token(attachment, attachment.cursor.chain, speaker)

    async def update(self, speaker: Speaker, session_id: SessionId, metadata: dict[str, str]) -> Attachment:
        """Note something of a conversation, in place of what was noted; return the hold on it.

        Raises:
            SessionNotFound: There is none, or it is another's.
            SessionError: It can't be had now.

        """
        attachment = await self._to_change(speaker, session_id)
        try:
            await self._write(speaker, attachment, UpdateConfig(metadata=metadata))
        except BaseException:
            attachment.close()
            raise
        return attachment

    async def _write(
        self,
        speaker: Speaker,
        attachment: Attachment,
        command: Command,
        key: InputKey | None = None,
        *,
        is_known: bool = False,
    ) -> None:
        """Have *command* be part of a conversation: looked at before, unless it *is_known* there already."""
        submission = self._exchanges.submission(speaker, attachment)
        if not is_known:
            pins = speaker.grant.pins
            if pins is not None and (field := pins.violation(command)) is not None:
                raise DecodeError("session_pinned", _SETTLED, param=field)
            await submission.check(command)
        async with soon():
            submitted = Submitted(command, attachment.cursor.chain, key=key)
            receipt = await submission.write(submitted)
            await accepted(attachment, receipt.seq)
        if attachment.session.consumed < receipt.seq:
            raise StoreUnavailable  # the session was lost here, and nobody knows

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
            (await self.find(speaker, session_id)).close()  # by the same rules as whoever looks at it
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
        self, speaker: Speaker, session_id: SessionId, wanted: NewItems, name: str | None = None
    ) -> tuple[Attachment, list[Item]]:
        """Have items be part of a conversation; return the hold on it, and them as they are there.

        All of them, or none. What was asked for by the same *name* is done once.

        Raises:
            SessionNotFound: There is none, or it is another's.
            DecodeError, Refusal: They can't be, or the name was used for others. Then none of them is.
            SessionError: It can't be had now.

        """
        items, key = wanted.items, None
        if name is not None:
            key = InputKey(f"h:items:{name}", wanted.digest)
            # By its name alone it is known which they were.
            items = tuple(
                replace(item, id=new_item_id(f"{session_id}\0{name}\0{index}"))
                for index, item in enumerate(items)
            )
        attachment = await self._to_change(speaker, session_id)
        try:
            command = CreateItems(items)
            is_known = await _is_known(attachment, command, key)
            await self._write(speaker, attachment, command, key, is_known=is_known)
        except BaseException:
            attachment.close()
            raise
        found = (attachment.session.item(item.id) for item in items)
        return attachment, [item for item in found if item is not None]

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


async def _is_known(attachment: Attachment, command: Command, key: InputKey | None) -> bool:
    """Return whether *command* was written before, by its name: then to write it adds nothing.

    Raises:
        Refusal: Something else was, by that name; or nobody can say for the moment.

    """
    if key is None:
        return False
    async with soon():
        return await attachment.recall(Submitted(command, attachment.cursor.chain, key=key))
