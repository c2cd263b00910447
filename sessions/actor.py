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
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from msgspec.structs import replace

from unbroken.sessions.backends.base import Append, Fence, Receipt, SessionStore
from unbroken.sessions.clock import Clock
from unbroken.sessions.committer import Committer
from unbroken.sessions.entries import (
    Body,
    Entry,
    ItemDeleted,
    Refused,
    ResponseDone,
    Submitted,
    ToolStarted,
)
from unbroken.sessions.errors import (
    CursorLost,
    Fenced,
    LostTail,
    NodeDraining,
    SessionDeleted,
    SessionGone,
    StoreError,
    StoreUnavailable,
    Unseen,
    again,
)
from unbroken.sessions.event_log import EventLog, Position
from unbroken.sessions.ids import NodeId, PrincipalId
from unbroken.sessions.outage import Outage
from unbroken.sessions.rejoining import is_still_of
from unbroken.sessions.replica import COUNTED, ActorLimits
from unbroken.sessions.responder import Responder
from unbroken.sessions.run import Run, Spawn
from unbroken.sessions.runs import Runs, log_end
from unbroken.sessions.session import Session
from unbroken.sessions.stored import Stored
from unbroken.sessions.weak import weakly

__all__ = ["Actor", "MakeActor"]


class Actor(Stored):
    """The live session on a node. :meth:`submit` and :meth:`wake` drive it."""

    def __init__(
        self,
        session: Session,
        log: EventLog,
        *,
        node: NodeId,
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
            node=node,
            principal=principal,
            opened=opened,
            fence=fence,
            is_owner=is_owner,
            clock=clock,
            find_outage=find_outage,
            spawn=spawn,
        )
        self.last_active = clock.monotonic()
        """When something last happened here, by the clock. To be read, and nothing found, is nothing."""
        self.is_scheduled = False
        """The committer's note."""
        self.is_dropped = False
        """The node's note: nobody comes back to it, so that it is forgotten as soon as it rests."""
        self._find_committer = find_committer
        self._committer = find_committer()
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
            heard=weakly(self._heard),
            on_end=on_run,
            is_sole=not store.is_shared,
        )
        if is_owner:
            self._runs.adopt(session.running_ids)
        self._is_input_next = True
        self._wrote_at = float("-inf")  # when pieces were last written, by the clock
        self._rested_at = session.applied  # how far the log reached when it last had nothing left to do

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
            SessionDeleted: The session was deleted. Nothing was written.
            StoreError: It could not be written.

        """
        if self.feed.ended is not None:
            raise again(self.feed.ended)
        if not self.is_opened:
            await self._open()
        try:
            receipt = await self._write_input(submitted)
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
        while True:
            log = self.log
            receipt, is_stored = await self._try_to_write(submitted)
            if log is self.log or not is_stored:
                return receipt
            # The log was begun anew meanwhile, maybe without it.

    async def _try_to_write(self, submitted: Submitted) -> tuple[Receipt, bool]:
        """Return the receipt, and whether it is the store's: else it was taken here, in the log as it is."""
        is_doubtful = False
        if self._ring is None:
            seen = self.position
            try:
                receipt = await self._store.submit(self.session.id, submitted, seen)
                if self._ring is None or (receipt.entry is not None and self.log.holds(receipt.entry)):
                    return self._linked(receipt, seen), True
                is_doubtful = True  # taken, but its number may be another's by now: this node went on alone
            except StoreUnavailable as exc:
                self._note_failure(exc)
                self._is_behind = is_doubtful = True  # it may have been written all the same
                if not (self._is_sure and self.outage.is_over_patience):
                    raise
            except SessionDeleted as exc:
                self._fail(exc)
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
            seen = self.position
            return self._linked(await self._store.submit(self.session.id, submitted, seen), seen), True
        if self.outage.is_strict:
            raise StoreUnavailable
        return self._ring.submit(submitted, is_doubtful=is_doubtful), False

    def _linked(self, receipt: Receipt, seen: Position) -> Receipt:
        """Return a receipt with its entry only if that came directly behind *seen*: there the store had it.

        What is between may not be what is here: the store may have gone back to *seen* meanwhile, and on from
        there. Then it is read, which finds out.
        """
        if receipt.entry is None or receipt.seq == seen.seq + 1:
            return receipt
        self._is_behind = True
        return Receipt(receipt.seq, receipt.duplicate, None)

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

    def _rest(self) -> None:
        """Note that nothing is left to do: whether anything was, or the log was but read."""
        if self._rested_at != self.session.applied:
            self._rested_at = self.session.applied
            self.last_active = self._clock.monotonic()
        self._account()

    def _account(self) -> None:
        super()._account()
        self._on_change(self)

    def _owner_changed(self) -> None:
        self._on_owner(self)

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
        session = self.session
        is_busy = not self._is_stirred or session.is_running_after(bodies)
        return self._ask(
            Append(
                session.id,
                self.fence,
                session.applied,
                self.feed.log.head_nonce,
                answered,
                bodies,
                is_busy,
                self._finished_in(bodies, self._now()) if self._is_stirred else (),
            )
        )

    def _ask_again(self, asked: Append) -> Append:
        """Return what was asked for and isn't in the log: inputs may have come before it."""
        return self._ask(
            replace(asked, fence=self.fence, seen=self.session.applied, nonce=self.log.head_nonce)
        )

    def _ask(self, append: Append) -> Append:
        self._is_writing = True
        self._asked, self._written, self._asked_on = append, 0, self._branch
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
        is_elsewhere = self._is_elsewhere(result)
        if not (isinstance(result, StoreError) or is_elsewhere):
            self._runs.settle()
        if self.feed.ended is not None:
            return False  # it was given up meanwhile: whoever is its owner now sees to what follows
        asked = self._asked
        try:
            if is_elsewhere:  # what the store says is of what is no part of the log, maybe: that is read
                self._written = 0
                self._is_behind = True
                return True
            if isinstance(result, StoreError):
                self._refused(result)
                return self._is_behind
            self._asked = None
            if self._retry.failures:
                self._retry.reached()
                self.outage.note_success()
            if asked is None or not result or result[0].seq == asked.seen + 1:
                self._ingest(result)
            else:
                self._is_behind = True  # what came between may not be what is here: see _linked
            if asked is not None and result and result[-1].seq > self.session.applied:
                self._asked, self._written = asked, 0  # until it has been read: the store may lose it
            elif self._is_stirred and asked is not None:  # else it was but pieces
                self.session.consume(asked.consumed)
                self._tell_waiters()
                if not self._is_behind:  # otherwise what was written last may not be applied yet
                    self._runs.reconcile()
        except Exception as exc:  # noqa: BLE001 - the boundary: it is told of there
            self._fail(exc)
        return self._is_stirred or self._is_behind

    def _is_elsewhere(self, result: Sequence[Entry] | StoreError) -> bool:
        """Whether what was asked for is of another branch than the log by now, whatever came of it.

        It went on alone meanwhile, and may be back; or something else is in the log where *result* was
        written: the store has lost that since.
        """
        if self._asked_on != self._branch:
            return True
        if isinstance(result, StoreError) or not result:
            return False
        return result[0].seq <= self.session.applied and not self.log.holds(result[0])

    def _refused(self, error: StoreError) -> None:
        """See to a write that the store refused, or didn't answer."""
        if isinstance(error, SessionDeleted):
            raise error
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

    def _observe(self, body: Body) -> None:
        """See to what an entry means beside the session's state."""
        if type(body) is ResponseDone:
            self.log.pack(body.response_id, body.output)
        if type(body) in COUNTED:
            self._account()  # the node counts responses, and requests that nobody has answered
        if type(body) is Refused and self.is_owner:
            self._on_refusal(body.code)
        elif type(body) is ItemDeleted and self.log.deleted_at > self.log.floor:
            self._forget_deleted_soon()
        elif type(body) is ToolStarted:
            self._runs.note_started(body.response_id, body.item_id)
        elif type(body) is ResponseDone and self.is_owner:  # else its owner tells
            self._on_response(self.session, body)
            log_end(self.session.id, body)


class MakeActor(Protocol):
    """Makes an actor of the node's."""

    def __call__(
        self,
        session: Session,
        log: EventLog,
        principal: PrincipalId,
        fence: Fence,
        *,
        opened: bool,
        is_owner: bool = True,
    ) -> Actor:
        """Return an actor for *session*."""
