"""One session on a node: takes inputs in and applies what was committed.

On the session's owner it also lets responses run and writes what comes of it;
elsewhere it follows, and shows its connections what the owner writes.

The actor decides nothing itself. It feeds committed entries to the session,
asks it what follows, has the committer write that, and starts and stops
responders until they match the session's state. It is the only writer of its
session's outputs, with one write in flight.

It is called when there may be something to do, and has no task of its own,
except while it reads or compacts in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog
from msgspec.structs import replace

from unbroken.sessions.alone import Alone
from unbroken.sessions.backends.base import Append, Fence, Opened, Receipt, SessionStore
from unbroken.sessions.beginning import begin
from unbroken.sessions.clock import Clock
from unbroken.sessions.committer import Committer
from unbroken.sessions.entries import (
    Body,
    Entry,
    Refused,
    ResponseDone,
    SessionOpened,
    Submitted,
    ToolStarted,
)
from unbroken.sessions.errors import (
    CursorLost,
    Fenced,
    LostTail,
    NodeDraining,
    SessionError,
    SessionGone,
    StoreError,
    StoreUnavailable,
    UnknownFormat,
    Unseen,
)
from unbroken.sessions.event_log import EventLog
from unbroken.sessions.ids import NodeId, PrincipalId
from unbroken.sessions.outage import Outage
from unbroken.sessions.rejoining import is_still_of
from unbroken.sessions.replica import COUNTED, ActorLimits
from unbroken.sessions.responder import Responder
from unbroken.sessions.run import Run, Spawn
from unbroken.sessions.runs import Runs, log_end
from unbroken.sessions.session import Session

__all__ = ["Actor"]


class Actor(Alone):
    """The live session on a node. :meth:`submit` and :meth:`wake` drive it."""

    def __init__(
        self,
        session: Session,
        log: EventLog,
        *,
        principal: PrincipalId,
        store: SessionStore,
        find_committer: Callable[[], Committer],
        fence: Fence,
        responder: Responder,
        clock: Clock,
        limits: ActorLimits,
        find_outage: Callable[[], Outage],
        spawn: Spawn,
        on_change: Callable[[Actor], None],
        on_response: Callable[[Session, ResponseDone], None],
        on_refusal: Callable[[str], None],
        on_run: Callable[[Run], None],
        on_owner: Callable[[Actor], None],
        is_leaving: Callable[[], bool],
        opened: bool,
        is_owner: bool = True,
    ) -> None:
        super().__init__(
            session,
            log,
            store,
            limits,
            fence=fence,
            is_owner=is_owner,
            clock=clock,
            find_outage=find_outage,
            spawn=spawn,
        )
        self.principal: Final = principal
        self.last_active = clock.monotonic()
        """When something last happened here, by the clock."""
        self.is_opened = opened
        """Whether the store knows the session. An empty session costs it nothing."""
        self.wanted_by: NodeId | None = None
        """A node that has connections of the session and would rather own it."""
        self.is_scheduled = False
        """The committer's note."""
        self._find_committer = find_committer
        self._committer = find_committer()
        self._clock = clock
        self._on_change = on_change
        self._on_response = on_response
        self._on_refusal = on_refusal
        self._on_owner = on_owner
        self._is_leaving = is_leaving
        self._runs = Runs(
            session,
            principal,
            responder,
            clock,
            limits.run,
            attempts=limits.attempts,
            spawn=spawn,
            heard=self._heard,
            on_end=on_run,
            is_sole=not store.is_shared,
        )
        if is_owner:
            self._runs.adopt(session.running_ids)
        self._is_input_next = True
        self._is_writing = False
        self._wrote_at = float("-inf")  # when pieces were last written, by the clock
        self._compacting: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._is_tried = False  # whether that was tried before

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do or to save, and nobody is connected."""
        return not (
            self.is_scheduled
            or self._ring is not None
            or self._is_writing
            or self._reading
            or self._compacting
            or self.is_beginning
            or self._runs
            or (self.is_owner and self.session.is_busy)
            or len(self.feed)
        )

    @property
    def _only_begins(self) -> bool:
        """Whether all that is to be done is for the next owner to begin: this node hands over."""
        return self._is_leaving() and not (self._runs or self.session.running_ids)

    @property
    def is_for_the_next(self) -> bool:
        """Whether that is so, and nothing is under way that another owner would have to wait for."""
        return (
            self.is_owner
            and self.is_opened
            and self.session.is_busy
            and self._only_begins
            and not (self._ring or self._is_writing or self._reading or self._compacting or self._asked)
        )

    async def submit(self, submitted: Submitted) -> Receipt:
        """Write an input, once per key, and see to it that it is answered.

        Returns when it is in the log. The answer comes through the log.

        Raises:
            MessageIdReused: The key was used for something else.
            CursorLost: What is here is no part of the log any more. Nothing was written.
            StoreError: It could not be written.

        """
        if self.feed.ended is not None:
            raise self.feed.ended
        if not self.is_opened:
            await self._open()
        try:
            log, receipt = self.log, await self._write_input(submitted)
            while log is not self.log:  # that was begun anew meanwhile, maybe without it
                log, receipt = self.log, await self._write_input(submitted)
        except asyncio.CancelledError:
            with suppress(NodeDraining):  # then whoever loads the session next reads it
                self.look()  # it may have been written all the same
            raise
        if receipt.entry is not None:
            if receipt.seq <= self.session.applied:
                self._is_behind = True  # it has been read already, or what was read is no part of the log
            self._ingest([receipt.entry])
        elif receipt.seq > self.session.applied:
            self._is_behind = True  # written, and its sender was cut off before this node was told
        self.wake()
        return receipt

    async def _write_input(self, submitted: Submitted) -> Receipt:
        is_doubtful = False
        if self._ring is None:
            try:
                receipt = await self._store.submit(self.session.id, submitted, self.position)
                if self._ring is None or (receipt.entry is not None and self.log.holds(receipt.entry)):
                    return receipt
                is_doubtful = True  # taken, but its number may be another's by now: this node went on alone
            except StoreUnavailable as exc:
                self._note_failure(exc)
                self._is_behind = is_doubtful = True  # it may have been written all the same
                if not (self._is_sure and self.outage.is_over_patience):
                    raise
            except (LostTail, SessionGone):
                if not self._store.is_shared:
                    raise
                self.look()
                is_ours = self._is_sure and await is_still_of(self._store, self.session.id, self.fence.node)
                if not (is_ours and self._is_sure):
                    self._is_contested = self.is_owner
                    raise CursorLost from None  # what its sender was shown is no part of the log
            if self._ring is None:
                self._go_on_alone()
        if self._ring is None:  # it was back at once
            return await self._store.submit(self.session.id, submitted, self.position)
        if self.outage.is_strict:
            raise StoreUnavailable
        return self._ring.submit(submitted, is_doubtful=is_doubtful)

    def wake(self) -> None:
        """Have a look at what there is to do."""
        self._is_stirred = True
        if self.feed.ended is None:
            self._committer.schedule(self)

    def find_part(self) -> bool:
        """See :meth:`Alone.find_part`. What is under way goes on where it was asked for."""
        has_moved = super().find_part()
        if has_moved:
            self._committer = self._find_committer()
        return has_moved

    def look(self) -> None:
        """Read what other nodes have written: there is said to be something."""
        self._is_behind = True
        self.wake()

    async def catch_up(self) -> None:
        """Have read what the store holds by now; or as much as can be read of it without waiting."""
        self._is_behind = True
        if self._reading is None and not (self._is_writing or self._retry.is_waiting or self._ring):
            self._reading = self._spawn(self._beside(self._catch_up))
        if self._reading is not None:
            await asyncio.wait([self._reading])

    def note_blindness(self) -> None:
        """Tell those who are connected here to another's session whether this node still hears of it."""
        if not self.is_owner:
            self._note_durable(not self.outage.is_over_patience)

    def interrupt(self) -> None:
        """End every response now, as interrupted: this node is shutting down."""
        self._runs.interrupt()
        self.wake()

    def stay(self) -> None:
        """Let responses run again: this node doesn't shut down after all. What was interrupted stays so."""
        if self._runs.stay() and self.feed.ended is None:
            if self.is_owner and not (self._is_taking or self._asked):
                self._runs.reconcile()  # else that follows with what is being written or read
            self._try_now()

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
        opened = SessionOpened(self.principal, self.session.config)
        was_tried, self._is_tried = self._is_tried, True
        try:
            self.fence, entries = await begin(
                self._store, self.session.id, self.fence, opened, was_tried=was_tried
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

    def _abandon(self, reason: SessionError) -> None:
        """Give the session up: whoever reconnects finds what the store holds."""
        self._runs.stop()
        self._retry.stop()
        self.feed.end(reason)
        self._tell_waiters()
        self._rest()

    def _fail(self, exc: Exception) -> None:
        """Give the session up because of *exc*. A failure ends the session on this node, not the node."""
        log = structlog.get_logger()
        if isinstance(exc, NodeDraining) or (not self.is_owner and isinstance(exc, SessionGone | LostTail)):
            self._abandon(CursorLost())  # nobody is left, or this is no part of the log: they start over
        elif isinstance(exc, StoreError | UnknownFormat):
            log.error("session lost", session_id=self.session.id, reason=type(exc).__name__)
            self._abandon(exc)
        else:  # the boundary: a bug in one session must not reach another
            log.error("session crashed", session_id=self.session.id, exc_info=exc)
            self._abandon(SessionError(f"{type(exc).__name__} in the session's owner"))

    def _rest(self) -> None:
        """Note that nothing is left to do."""
        self.last_active = self._clock.monotonic()
        self._account()

    def _account(self) -> None:
        super()._account()
        self._on_change(self)

    # What is written.

    def next_append(self) -> Append | None:
        """See :meth:`Writer.next_append`."""
        if self.feed.ended is not None or self._is_writing or self._reading or self._retry.is_waiting:
            return None
        try:
            if self._is_behind and self._ring is None:
                self._reading = self._spawn(self._beside(self._catch_up))
                return None
            if not self.is_owner:
                self._is_stirred = False
                return None
            if self._ring is not None:
                if not self.outage.is_strict:  # else nothing is said until the store has taken the session
                    self._write_alone(self._ring)
                return None
            if self._asked is not None:
                return self._ask_again(self._asked)
            answered, bodies = self._next()
        except Exception as exc:  # noqa: BLE001 - the boundary: it is told of there
            self._fail(exc)
            return None
        if bodies is None:
            return None
        self._is_writing = True
        session = self.session
        is_busy = not self._is_stirred or session.is_running_after(bodies)
        self._written = 0
        self._asked = append = Append(
            session.id, self.fence, session.applied, self.feed.log.head_nonce, answered, bodies, is_busy
        )
        return append

    def _ask_again(self, asked: Append) -> Append:
        """Return what was asked for and isn't in the log: inputs may have come before it."""
        self._is_writing = True
        self._written = 0
        self._asked = append = replace(
            asked, fence=self.fence, seen=self.session.applied, nonce=self.log.head_nonce
        )
        return append

    def _next(self) -> tuple[int, Sequence[Body] | None]:
        """Return the last input that is answered, and what is to be written; None: there is nothing."""
        session = self.session
        consumed = session.consumed
        if self._is_stirred and self._is_input_next and session.has_inputs and not self._only_begins:
            self._is_input_next = False
            return session.decide()
        self._is_input_next = True  # taking turns: neither a flood of pieces nor one of inputs has it all
        bodies, has_ended = self._runs.produced()
        if has_ended:
            self._is_stirred = True
        if bodies:
            return consumed, bodies
        if self._is_stirred:
            if session.has_inputs and not self._only_begins:
                return session.decide()
            if bodies := self._runs.ended() or ([] if self._is_leaving() else session.promote()):
                return consumed, bodies
            self._is_stirred = False
            if self._has_forgotten and self._compacting is None and self._ring is None:
                self._compacting = self._spawn(self._beside(self._compact_beside))
            if not self._runs:
                self._rest()
        return consumed, None

    def committed(self, result: Sequence[Entry] | StoreError) -> bool:
        """See :meth:`Writer.committed`."""
        self._is_writing = False
        if not isinstance(result, StoreError):
            self._runs.settle()
        if self.feed.ended is not None:
            return False  # it was given up meanwhile: whoever is its owner now sees to what follows
        asked = self._asked
        try:
            if isinstance(result, StoreError):
                self._refused(result)
                return self._is_behind
            if self._ring is not None:  # it went on alone meanwhile: what the store took is on another branch
                self._written = 0
                return True
            self._asked = None
            if self._retry.failures:
                self._retry.reached()
                self.outage.note_success()
            self._ingest(result)
            if asked is not None and result and result[-1].last > self.session.applied:
                self._asked, self._written = asked, 0  # until it has been read: the store may lose it
            elif self._is_stirred and asked is not None:  # else it was but pieces
                self.session.consume(asked.consumed)
                self._tell_waiters()
                if not self._is_behind:  # otherwise what was written last may not be applied yet
                    self._runs.reconcile()
        except Exception as exc:  # noqa: BLE001 - the boundary: it is told of there
            self._fail(exc)
        return self._is_stirred or self._is_behind

    def _refused(self, error: StoreError) -> None:
        """See to a write that the store refused, or didn't answer."""
        if isinstance(error, Fenced) and self._store.is_shared:
            self._is_contested = self._is_behind = True  # whose it is comes with what is read
        elif isinstance(error, StoreUnavailable):
            self._try_later(error)  # it may have been written: that is read first
        elif isinstance(error, Unseen):
            self._is_behind = True  # it has been
        elif isinstance(error, LostTail | SessionGone) and self._store.is_shared:
            self._go_on_alone()
        else:
            raise error

    def _heard(self) -> None:
        """Write what a run has produced: at once, unless that was done a moment ago."""
        if self.feed.ended is not None:
            return
        now = self._clock.monotonic()
        try:
            if now - self._wrote_at >= self._committer.patience:
                self._wrote_at = now
                self._committer.write(self)
            elif self._runs.has_ended:
                self._committer.schedule(self)
            else:
                self._committer.hold(self)
        except NodeDraining:
            pass  # nobody will miss it

    async def _beside(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do *work* in the store in a task of its own, and then look again at what there is to do."""
        try:
            await work()
        except StoreUnavailable as exc:
            self._try_later(exc)
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
        except (LostTail, SessionGone):
            if self.is_owner:  # by a store that has lost something; or it is another node's by now
                with suppress(SessionGone):
                    self._note_owner((await self._store.inspect(self.session.id)).fence)
            raise
        finally:
            self._reading = None
        self.rejoin()  # if it went on alone meanwhile

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
        self._runs.reconcile()

    # Ownership.

    def _note_owner(self, fence: Fence) -> None:
        """Note whose the session was when the store was last read."""
        if fence == self.fence:
            return
        before, self.fence = self.fence, fence
        if not self.is_owner:
            self._on_owner(self)
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
        self._on_owner(self)
        with suppress(NodeDraining):
            self.look()

    def let_go(self, why: SessionError) -> None:
        """Write nothing any more, here or elsewhere, and leave what runs to another owner."""
        self.is_owner = False
        self._abandon(why)

    def _observe(self, body: Body) -> None:
        """See to what an entry means beside the session's state."""
        if type(body) is ResponseDone:
            self.log.pack(body.response_id, body.output)
        if type(body) in COUNTED:
            self._account()  # the node counts responses, and requests that nobody has answered
        if type(body) is Refused and self.is_owner:
            self._on_refusal(body.code)
        elif type(body) is ToolStarted:
            self._runs.note_started(body.response_id, body.item_id)
        elif type(body) is ResponseDone and self.is_owner:  # else its owner tells
            self._on_response(self.session, body)
            log_end(self.session.id, body)

    async def shrink(self) -> None:
        """Have the store keep the end of the log alone, beside a snapshot: nobody is here any more."""
        self._forget_most()
        if self._has_forgotten and self.is_owner:
            await self._compact(self.fence)

    async def _compact_beside(self) -> None:
        try:
            await self._compact(self.fence)
        finally:
            self._compacting = None
