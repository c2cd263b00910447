"""A connection's hold on a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.base import NOBODY, Receipt
from unbroken.sessions.cursor import Cursor
from unbroken.sessions.entries import CancelResponse, CreateResponse, DeleteItem, Submitted
from unbroken.sessions.errors import NodeDraining, NodeOverloaded, Refusal, StoreUnavailable
from unbroken.sessions.event_log import EventLog
from unbroken.sessions.response import Standing
from unbroken.sessions.session import Session

if TYPE_CHECKING:
    from unbroken.sessions.node import Node

__all__ = ["Attachment"]


class Attachment:
    """A connection's hold on a session. Close it when the connection ends; the session goes on.

    Attributes:
        resumed: What follows continues exactly where the client's cursor stood.
            False for a new session, and where the cursor could not be used: the
            client then starts over from :attr:`preamble`.
        preamble: What to show before anything the cursor yields, in order: items,
            and responses as far as they have been said.

    """

    def __init__(
        self, node: Node, actor: Actor, cursor: Cursor, *, resumed: bool, preamble: list[Standing]
    ) -> None:
        self._node = node
        self._actor = actor
        self.cursor: Final = cursor
        self.resumed: Final = resumed
        self.preamble = preamble
        self._leaves_at: float | None = None

    @property
    def session(self) -> Session:
        """The session, to look at and not to touch."""
        return self._actor.session

    @property
    def log(self) -> EventLog:
        """The session's log, to look something up in."""
        return self._actor.log

    def take_preamble(self) -> list[Standing]:
        """Return the preamble, and keep none of it: a connection may live for days."""
        preamble, self.preamble = self.preamble, []
        return preamble

    @property
    def is_ending(self) -> bool:
        """Whether the node is shutting down: then look at :attr:`is_finished`."""
        return self._node.is_draining

    @property
    def is_finished(self) -> bool:
        """Whether the node is shutting down and this connection has been shown all that will come."""
        if not (self._node.is_draining and self.cursor.is_at_head):
            return False
        return self._is_dismissed() if self._node.is_handing_over else not self.session.is_busy

    def _is_dismissed(self) -> bool:
        """Whether it is this connection's turn to go to another node: all at once would be a storm there."""
        node = self._node
        if self._leaves_at is None or self._leaves_at < node.draining_since:  # of a drain taken back
            wait = node.departures.next()
            self._leaves_at = node.now() + wait
            if wait:
                node.call_later(wait, self.cursor.wake)
        return node.now() >= self._leaves_at

    async def submit(self, submitted: Submitted) -> Receipt:
        """Write an input, once per key. The answer comes through the log.

        Raises:
            Refusal: It was a duplicate of an input that was refused, or can't be taken now.
            NodeFull, TooManySessions: The node can't hold more, or not of this principal's.
            StoreError: It could not be written.

        """
        node = self._node
        if node.is_draining and (isinstance(submitted.command, CreateResponse) or self._is_nobodys):
            raise Refusal("server_draining", str(NodeDraining()))
        if not node.takes_responses and isinstance(submitted.command, CreateResponse):
            raise Refusal("server_overloaded", str(NodeOverloaded()))
        grows = not isinstance(submitted.command, CancelResponse | DeleteItem)
        if grows:
            await node.room.make_to_grow(self._actor.principal)
        try:
            receipt = await node.turns.submit(self._actor, submitted, node.hub.holds)
        except StoreUnavailable as exc:
            raise Refusal("store_unavailable", str(exc)) from None
        if receipt.duplicate and (refused := self.session.refusals.get(receipt.seq)) is not None:
            raise Refusal(refused.code, refused.message, param=refused.param)
        return receipt

    @property
    def _is_nobodys(self) -> bool:
        """Whether nobody would answer an input, if this node took the session for none."""
        return not self._actor.is_owner and self._actor.fence.node == NOBODY

    async def recall(self, submitted: Submitted) -> bool:
        """Whether an input was written before: then to submit it says what became of it, and does nothing.

        Raises:
            Refusal: It can't be found out for the moment.

        """
        try:
            return await self._node.turns.recall(self._actor, submitted) is not None
        except StoreUnavailable as exc:
            raise Refusal("store_unavailable", str(exc)) from None

    async def catch_up(self) -> None:
        """Read what the store holds of the session, in case that this node hasn't heard of something."""
        await self._actor.catch_up()

    async def answered(self, seq: int) -> None:
        """Wait until input *seq* has been answered in the log, or the session is lost."""
        await self._actor.answered(seq)

    def drop(self) -> None:
        """Let go of a session that nobody comes back to: it is forgotten as soon as nothing runs there."""
        self._actor.is_dropped = True
        self.close()

    def close(self) -> None:
        """Let go of the session. Stops nothing."""
        self.cursor.close()
        self._node.detached(self._actor)
