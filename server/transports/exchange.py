"""A response that somebody asked for over HTTP, or asks about: their hold on it.

Whoever lets go of it stops nothing. A response goes on, and can be come back to while its session lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

from unbroken.server.quota.base import Decision
from unbroken.sessions.entries import CancelResponse, DeleteItem, ResponseQueued, ResponseStarted, Submitted
from unbroken.sessions.errors import Refusal, SessionNotFound, StoreUnavailable
from unbroken.sessions.event_log import Position, Record, Verdict
from unbroken.sessions.ids import ChainId, ItemId, ResponseId
from unbroken.sessions.items import Item
from unbroken.sessions.node import Attachment

__all__ = ["Exchange", "soon"]

_READ_LIMIT: Final = 512
"""Sequence numbers that are read at a time."""

_SOON: Final = 15.0
"""Seconds within which an input has been answered, or can't be for the moment."""

_TAKEN: Final = 10.0
"""Seconds within which a stop that was written has been taken: less than whoever waits around it has."""

_KEPT: Final = (
    "The stop is saved, and nobody has carried it out yet: the server that answers can't be reached. It is "
    "carried out as soon as one goes on with the conversation; you needn't send it again."
)


class Exchange:
    """One response in one session. Close it when its request has been answered, or drop it.

    Args:
        attachment: See below.
        response_id: See below.
        chain: Whose inputs are written with it.
        resume: See below.
        decision: See below.
        on_drop: Removes what came with the request, when nobody comes back to it.

    Attributes:
        response_id: The response.
        attachment: The hold on its session.
        resume: The token with which the session is gone on with over a WebSocket. None: it can't be.
        decision: What was reserved for it, and what is left. None: it wasn't asked for here.

    """

    def __init__(
        self,
        attachment: Attachment,
        response_id: ResponseId,
        chain: ChainId,
        *,
        resume: str | None = None,
        decision: Decision | None = None,
        on_drop: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.attachment: Final = attachment
        self.response_id: Final = response_id
        self.resume: Final = resume
        self.decision: Final = decision
        self._chain = chain
        self._on_drop = on_drop
        self._cursor = attachment.cursor

    def rewind(self) -> bool:
        """Read from the response's first entry on; False: the log has forgotten that, or never held it."""
        beginning = self.attachment.log.beginning_of(self.response_id)
        if beginning is None:
            return False
        self._cursor.seq = beginning - 1
        return True

    def seek(self, position: Position) -> bool:
        """Read on behind *position*; False: what follows it isn't in the log, or not any more, or not yet."""
        if self.attachment.log.check(position) is not Verdict.HELD:
            return False
        self._cursor.seq = position.seq
        return True

    def take(self) -> list[Record]:
        """Return what comes next in the session's log, other responses' entries among it; empty: nothing yet.

        Raises:
            SessionError: Nothing more will come, or what comes next has been forgotten.

        """
        return self._cursor.take(_READ_LIMIT)

    @property
    def is_at_head(self) -> bool:
        """Whether all that there is by now has been taken."""
        return self._cursor.is_at_head

    def listen(self, callback: Callable[[], None] | None) -> None:
        """Call *callback*, which must not raise, whenever there may be something to take."""
        self._cursor.listen(callback)

    @property
    def is_running(self) -> bool:
        """Whether the response hasn't ended, as far as is known here."""
        return self.response_id in self.attachment.session.responses

    @property
    def is_answering(self) -> bool:
        """Whether the response hasn't ended, or the attempt that stands for it, as far as is known here."""
        return self.is_running or self.superseded_by in self.attachment.session.responses

    @property
    def superseded_by(self) -> ResponseId | None:
        """See :meth:`Session.later_attempt`."""
        return self.attachment.session.later_attempt(self.response_id)

    async def stop(self) -> bool:
        """Have the response stop, and return whether it still ran: it, or the attempt that stands for it.

        Raises:
            Refusal: It can't be stopped now, or nobody has heard of it in time: it says which.
            StoreError: It could not be written.

        """
        if self.is_running:
            return await self._cancel(self.response_id)  # by now it may be attempted again elsewhere, unheard
        later = self.superseded_by
        return later in self.attachment.session.responses and await self._cancel(later)

    async def _cancel(self, response_id: ResponseId) -> bool:
        command = CancelResponse(response_id)
        async with soon():
            receipt = await self.attachment.submit(Submitted(command, self._chain))
        try:
            async with asyncio.timeout(_TAKEN):
                await self.attachment.answered(receipt.seq)
        except TimeoutError:
            raise Refusal("store_unavailable", _KEPT) from None
        return receipt.seq not in self.attachment.session.refusals

    async def forget(self, output: Iterable[ItemId]) -> None:
        """Take what the response said out of the conversation: the items of that name.

        Raises:
            Refusal: It can't be taken out now.
            StoreError: It could not be written.

        """
        session = self.attachment.session
        for item_id in output:
            if session.item(item_id) is None:
                continue  # it went with another, or before
            async with soon():
                receipt = await self.attachment.submit(Submitted(DeleteItem(item_id), self._chain))
                await self.attachment.answered(receipt.seq)
            if (refused := session.refusals.get(receipt.seq)) is not None:
                raise Refusal(refused.code, refused.message)

    def input_items(self) -> list[Item]:
        """Return what the response answered, oldest first, as far as it is still in the conversation.

        Raises:
            SessionNotFound: Nobody knows any more.

        """
        session = self.attachment.session
        if (running := session.responses.get(self.response_id)) is not None:
            given = running.request.input
            return list(session.prompt(running.id) if given is None else given)
        if (given := self._given()) is not None:
            return list(given)
        if (ended := session.endings.get(self.response_id)) is not None:
            items = session.items()
            place = next((index for index, item in enumerate(items, 1) if item.id == ended.anchor), 0)
            return items[:place]
        raise SessionNotFound

    def _given(self) -> tuple[Item, ...] | None:
        """Return what the response answers in place of a conversation, as far as the log knows."""
        log = self.attachment.log
        beginning = log.beginning_of(self.response_id)
        if beginning is None:
            return None
        body = getattr(log.read(beginning - 1, 1)[0], "body", None)
        return body.request.input if isinstance(body, ResponseStarted | ResponseQueued) else None

    async def drop(self) -> None:
        """Let go of the session, which nobody comes back to. What runs there goes on to its end."""
        self._cursor.listen(None)
        self.attachment.drop()
        if self._on_drop is not None:
            await self._on_drop()

    def close(self) -> None:
        """Let go of the session."""
        self._cursor.listen(None)
        self.attachment.close()


@asynccontextmanager
async def soon() -> AsyncIterator[None]:
    """Give up what isn't done in time: what it waits for is out of reach."""
    try:
        async with asyncio.timeout(_SOON):
            yield
    except TimeoutError:
        raise StoreUnavailable from None
