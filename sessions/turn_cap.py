"""How many responses a principal may have at once, on all nodes: those that run, and those that wait.

A request is counted where it comes in, until the session's owner has answered
it; what the owner has begun is counted where the owner is. So the bound may be
exceeded by what crosses: where a response's owner is gone, it isn't counted until another has taken it;
and another owner's responses are there whether they may or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.base import Receipt, SessionStore, names_of, recalled
from unbroken.sessions.backends.tally import Kind
from unbroken.sessions.caps import Caps
from unbroken.sessions.entries import CreateResponse, Submitted
from unbroken.sessions.errors import Refusal
from unbroken.sessions.ids import SessionId

__all__ = ["TurnCap"]

_KIND: Final[Kind] = "response"


class TurnCap:
    """Counts the responses of a node's sessions, and refuses requests for more than there may be.

    It costs nothing where there is no bound, and nothing for each piece.

    Args:
        caps: Where they are counted.
        store: Knows requests that were written before.
        most: Responses of one principal; 0: there is no bound.

    """

    def __init__(self, caps: Caps, store: SessionStore, most: int) -> None:
        self._caps = caps
        self._store = store
        self._most: Final = most
        self._counted: dict[SessionId, int] = {}  # of those that have any
        self._requests: dict[SessionId, list[int]] = {}  # those written here that nobody has answered yet

    async def submit(self, actor: Actor, submitted: Submitted, is_here: Callable[[Actor], bool]) -> Receipt:
        """Write an input, unless it asks for one response too many. What was written before is told so.

        *is_here* says whether an actor is still its node's for that session.

        Raises:
            Refusal: Its principal has as many responses as it may. Nothing was written.
            StoreError: It could not be written.

        """
        if not self._most or not isinstance(submitted.command, CreateResponse):
            return await actor.submit(submitted)
        if not await self._caps.admit(_KIND, actor.principal, self._most):
            if (known := await self.recall(actor, submitted)) is not None:
                return known
            raise Refusal(
                "too_many_responses",
                f"{self._most} responses of yours run or wait, as many as may at once, in all your sessions. "
                "Send this again when one of them has ended.",
            )
        has_place = True
        try:
            receipt = await actor.submit(submitted)
            if not receipt.duplicate and is_here(actor):
                has_place = False
                self._expect(actor, receipt.seq)
        finally:
            if has_place:
                self._caps.change(_KIND, actor.principal, -1)
        return receipt

    async def recall(self, actor: Actor, submitted: Submitted) -> Receipt | None:
        """Return what became of a request that was written before; None: it wasn't."""
        receipt: Receipt | None = None
        key = submitted.key
        if key is not None and not actor.feed.is_durable:  # the store doesn't have all that was said
            receipt = recalled(key, names_of(actor.keys()))
        elif key is not None and actor.is_opened:
            receipt = await self._store.recall(actor.session.id, actor.log.incarnation, submitted)
        if receipt is not None and receipt.seq > actor.session.applied:
            actor.look()
        return receipt

    def _expect(self, actor: Actor, seq: int) -> None:
        """Have the place of a request be its session's, until it is answered."""
        session_id = actor.session.id
        self._requests.setdefault(session_id, []).append(seq)
        self._counted[session_id] = self._counted.get(session_id, 0) + 1
        self.note(actor)

    def note(self, actor: Actor) -> None:
        """Note how many responses a session of the node's has by now."""
        if not self._most:
            return
        session = actor.session
        is_over = actor.feed.ended is not None
        count = len(session.responses) if actor.is_owner and not is_over else 0
        if requests := self._requests.pop(session.id, None):
            requests = [] if is_over else [seq for seq in requests if seq > session.consumed]
            if requests:
                self._requests[session.id] = requests
                count += len(requests)
        self._set(actor, count)

    def forget(self, actor: Actor) -> None:
        """Note that a session isn't the node's any more."""
        self._requests.pop(actor.session.id, None)
        self._set(actor, 0)

    def _set(self, actor: Actor, count: int) -> None:
        session_id = actor.session.id
        before = self._counted.pop(session_id, 0)
        if count:
            self._counted[session_id] = count
        if count != before:
            self._caps.change(_KIND, actor.principal, count - before)
