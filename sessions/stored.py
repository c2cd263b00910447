"""The part of an actor that stands with its store: begins the session there, reads it, and says whose it is.

Nothing is written here but the session's first entry. What the store has lost, or that it is out of reach,
has the actor go on alone; what can't be gone on with ends the session on this node.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

from unbroken.sessions.alone import Alone
from unbroken.sessions.backends.base import Fence, Opened, SessionStore
from unbroken.sessions.beginning import begin
from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.entries import ResponseDone, SessionOpened
from unbroken.sessions.errors import (
    CursorLost,
    LostTail,
    NodeDraining,
    SessionDeleted,
    SessionError,
    SessionGone,
    StoreError,
    StoreUnavailable,
    UnknownFormat,
)
from unbroken.sessions.event_log import EventLog
from unbroken.sessions.ids import NodeId, PrincipalId
from unbroken.sessions.outage import Outage
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import Spawn
from unbroken.sessions.session import Session

__all__ = ["Stored"]

_ANSWERED_WITHIN: Final = 3.0
"""Seconds that whoever wants to know what the store holds waits for a write that is on its way, or for its
turn to ask again: a moment more than an answer may take.
"""

_FORGOTTEN_AFTER: Final = 5.0
"""Seconds after which what was deleted leaves the log: who reads that, here or elsewhere, has got past it."""


class Stored(Alone):
    """What an actor knows of its session in the store, as owner or as follower."""

    _on_response: Callable[[Session, ResponseDone], None]

    def __init__(
        self,
        session: Session,
        log: EventLog,
        store: SessionStore,
        limits: ActorLimits,
        *,
        node: NodeId,
        principal: PrincipalId,
        opened: bool,
        fence: Fence,
        is_owner: bool,
        clock: Clock,
        find_outage: Callable[[], Outage],
        spawn: Spawn,
    ) -> None:
        super().__init__(
            session,
            log,
            store,
            limits,
            node=node,
            fence=fence,
            is_owner=is_owner,
            clock=clock,
            find_outage=find_outage,
            spawn=spawn,
        )
        self.principal: Final = principal
        self.is_opened = opened
        """Whether the store knows the session. An empty session costs it nothing."""
        self.wanted_by: NodeId | None = None
        """A node that has connections of the session and would rather own it."""
        self._is_writing = False  # whether a write is on its way: nothing is read meanwhile
        self._clock = clock
        self.kept_at = clock.monotonic() if is_owner else float("-inf")
        """When the store was last told, by the clock, to keep the session, or it was made this node's."""
        self.listed_at = float("-inf")
        """When it was last to be listed, by the clock: the node's note."""
        self._held_up: tuple[asyncio.Event, ...] = ()  # of those who wait for something to be read
        self._compacting: asyncio.Task[None] | None = None
        self._forgetting: Timer | None = None  # until what was deleted leaves the log
        self._is_owed = False  # whether the store couldn't be told of that
        self._opening: asyncio.Task[None] | None = None
        self._is_tried = False  # whether that was tried before

    @abstractmethod
    def _rest(self) -> None:
        """Note that nothing is left to do."""

    @abstractmethod
    def _owner_changed(self) -> None:
        """Have what follows from a change of the owner be seen to."""

    # It begins.

    @property
    def is_beginning(self) -> bool:
        """Whether it is being begun in the store."""
        return self._opening is not None and not self._opening.done()

    async def begun(self) -> None:
        """Wait until it is not, whatever came of it. Cancelling it loses nothing."""
        if self._opening is not None:
            await asyncio.wait([self._opening])

    async def _open(self) -> None:
        """Begin the session in the store: once, and wholly, also if who needs it is cut off meanwhile."""
        if self._opening is None:
            self._opening = self._spawn(self._begin())
        await asyncio.shield(self._opening)

    async def _begin(self) -> None:
        opened = SessionOpened(self.principal, self.session.config, int(1000 * self._clock.time()))
        was_tried, self._is_tried = self._is_tried, True
        try:
            self.fence, entries = await begin(
                self._store, self.session.id, self.fence, opened, self._clock, was_tried=was_tried
            )
        except StoreUnavailable as exc:
            self._note_failure(exc)
            if not self.outage.is_over_patience:
                self._opening = None  # whoever has something to say next tries again
                raise
            self._is_created = False
            self._go_on_alone()
            assert self._ring is not None
            entries = self._ring.write([opened])
        except (StoreError, CursorLost, UnknownFormat) as exc:
            self._abandon(exc)
            raise
        self._ingest(entries)
        self.is_opened = True

    # It is read.

    def look(self) -> None:
        """Read what other nodes have written: there is said to be something."""
        self._is_behind = True
        self.wake()

    async def catch_up(self, *, is_patient: bool = False) -> None:
        """Have read what the store holds by now; or as much as can be read of it without waiting.

        Who *is_patient* waits for a moment: others may have read what is being written here, before the
        answer to that has come.
        """
        self._is_behind = True
        is_held_up = (self._is_writing or self._retry.is_waiting) and not self._ring
        if is_patient and is_held_up and self.feed.ended is None:
            await self._until_it_is_read()
        if self._reading is None and not (self._is_writing or self._retry.is_waiting or self._ring):
            self._reading = self._spawn(self._beside(self._catch_up))
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def _until_it_is_read(self) -> None:
        """Wait until the store is being read, or it isn't going to be: not for long."""
        is_over = asyncio.Event()
        timer = self._clock.call_later(_ANSWERED_WITHIN, is_over.set)
        self._held_up = (*self._held_up, is_over)
        try:
            await is_over.wait()
        finally:
            timer.cancel()
            self._held_up = tuple(each for each in self._held_up if each is not is_over)

    def _hold_up_nobody(self) -> None:
        for is_over in self._held_up:
            is_over.set()

    def _go_on_alone(self) -> None:
        super()._go_on_alone()
        self._hold_up_nobody()

    def note_blindness(self) -> None:
        """Tell those who are connected here to another's session whether this node still hears of it."""
        if not self.is_owner:
            self._note_durable(not self.outage.is_over_patience)

    async def _beside(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do *work* in the store in a task of its own, and then look again at what there is to do."""
        try:
            await work()
        except StoreUnavailable as exc:
            self._try_later(exc)
        except SessionDeleted as exc:
            self._fail(exc)
        except (LostTail, SessionGone) as exc:
            if self.is_owner and self._store.is_shared:
                self._go_on_alone()
            else:
                self._fail(exc)
        except Exception as exc:  # noqa: BLE001 - the boundary: it is told of there
            self._fail(exc)
        self._try_now()

    def _try_later(self, why: StoreUnavailable) -> None:
        """Ask the store again after a while, first for what it holds: it can't be reached now."""
        self._is_behind = True
        # Who goes on alone does so until an outage is over: then there has to be one.
        self._note_failure(None if self._ring else why)
        if self._ring is not None:
            return
        if self.is_opened and self._is_sure and self.outage.is_over_patience:
            self._go_on_alone()
        elif self.feed.ended is None:
            self._retry.later()

    async def _catch_up(self) -> None:
        """Read what the store holds and this node has not seen: nothing is written meanwhile."""
        self._hold_up_nobody()
        try:
            while self._is_behind and self._ring is None:
                self._is_behind = False
                fence = await self._read_on()
                if self._ring is not None:
                    break
                if not self.is_owner:
                    self._retry.failures = 0  # which says nothing of whether anything can be written
                self._note_owner(fence)
            if self._ring is None:
                self._is_contested = False
                if self.is_owner:
                    self._resume_writing()
        except SessionDeleted:
            raise
        except (LostTail, SessionGone):
            if self.is_owner:  # by a store that has lost something; or it is another node's by now
                with suppress(SessionGone):
                    self._note_owner((await self._store.inspect(self.session.id)).fence)
            raise
        finally:
            self._reading = None
        self.rejoin()  # if it went on alone meanwhile

    def _note_answered(self, consumed: int) -> None:
        """See :meth:`Replica._note_answered`. An answer may be nothing, and so in no log."""
        if not self.is_owner:
            self.session.consume(consumed)
            self._tell_waiters()

    def _resume_writing(self) -> None:
        """Go on as the owner, when all that is in the log has been read."""
        if self._is_taking:
            self._is_taking = False
            self._runs.adopt(self.session.running_ids)
        if self._asked is not None and self._written:
            # Nobody else writes outputs.
            asked, self._asked = self._asked, None  # it was written, and only the answer was lost
            self.session.consume(asked.consumed)
            self._runs.settle()
        self.session.consume(self._due)
        self._tell_waiters()
        if self._asked is None:
            self._runs.reconcile()  # else when that is written: it may hold the end of what would be begun

    # Its owner changes.

    def _note_owner(self, fence: Fence) -> None:
        """Note whose the session was when the store was last read."""
        if fence == self.fence:
            return
        before, self.fence = self.fence, fence
        if not self.is_owner:
            self._owner_changed()
        elif fence.node != before.node:  # else the store has lost how it became this node's, and it still is
            self.demote()

    def promote(self, opened: Opened) -> None:
        """Run the session from here on: this node has acquired it, with all that is here in the store."""
        self.fence = opened.fence
        self.is_owner = self._is_taking = True
        self._note_durable(True)  # whether its node heard anything lately doesn't matter any more
        self._due = opened.consumed  # when the answers have been read: until then the store may lose them
        self.look()

    def demote(self) -> None:
        """Write nothing any more: the session is another node's. Connections are shown what that one writes.

        What was produced here and isn't in the log is dropped: no client was shown it.
        """
        self.is_owner = self._is_taking = False
        self.wanted_by = None
        self._asked, self._due = None, 0
        self._runs.pass_on()
        self._owner_changed()
        with suppress(NodeDraining):
            self.look()

    def let_go(self, why: SessionError) -> None:
        """Write nothing any more, here or elsewhere, and leave what runs to another owner."""
        self.is_owner = False
        self._abandon(why)

    # It ends here, or rests.

    def _abandon(self, reason: SessionError) -> None:
        """Give the session up: whoever reconnects finds what the store holds."""
        self._runs.stop()
        self._retry.stop()
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._hold_up_nobody()
        self.feed.end(reason)
        self._tell_waiters()
        self._rest()

    def _fail(self, exc: Exception) -> None:
        """Give the session up because of *exc*. A failure ends the session on this node, not the node."""
        log = structlog.get_logger()
        if isinstance(exc, SessionDeleted):
            log.info("session deleted", session_id=self.session.id)
            self._delete(exc)
        elif isinstance(exc, NodeDraining) or (not self.is_owner and isinstance(exc, SessionGone | LostTail)):
            self._abandon(CursorLost())  # nobody is left, or this is no part of the log: they start over
        elif isinstance(exc, StoreError | UnknownFormat):
            log.error("session lost", session_id=self.session.id, reason=type(exc).__name__)
            self._abandon(exc)
        else:  # the boundary: a bug in one session must not reach another
            log.error("session crashed", session_id=self.session.id, exc_info=exc)
            self._abandon(SessionError(f"{type(exc).__name__} in the session's owner"))

    def note_deleted(self) -> None:
        """End what runs, and show those who are connected that the session was deleted."""
        if self.feed.ended is None:
            self._fail(SessionDeleted())

    def _delete(self, why: SessionDeleted) -> None:
        """End what runs, for good: nobody goes on with it, and no log will say how it ended."""
        ended = self._runs.end() if self.is_owner else []
        self.is_owner = False
        self._ring = self._asked = None  # nothing of it is written any more
        self._abandon(why)
        for done in ended:
            self._on_response(self.session, done)

    def forget_deleted(self) -> None:
        """Have the log hold nothing of what was deleted, here and, if it is this node's, in the store.

        What still runs may need it, and whoever is connected: then it is looked at again in a moment.
        """
        self._forgetting = None
        if self.feed.ended is None:
            if self._ring is None and self._forget_deleted():
                if self._is_owed:
                    self._stored_floor, self._is_owed = -1, False
                self._try_now()
            else:
                self._forget_deleted_soon()

    def _forget_deleted_soon(self) -> None:
        if self._forgetting is None:
            self._forgetting = self._clock.call_later(_FORGOTTEN_AFTER, self.forget_deleted)

    @property
    def owes_forgetting(self) -> bool:
        """Whether the store may still have what was deleted."""
        return self._is_owed or self.log.deleted_at > self.log.floor

    async def shrink(self) -> None:
        """Have the store keep the end of the log alone, beside a snapshot: nobody is here any more."""
        self._forget_most()
        if (self._has_forgotten or self._is_owed) and self.is_owner:
            await self._compact(self.fence)

    async def _compact_beside(self) -> None:
        try:
            if not await self._compact(self.fence) and self.log.deleted_at:
                self._is_owed = True
                self._forget_deleted_soon()
        finally:
            self._compacting = None
