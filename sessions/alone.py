"""The part of an actor that goes on without its store, and comes back to it.

What is written meanwhile is in a ring, numbered here, and clients are told that it isn't saved. The
store takes it once it can: behind what it holds, or as a new log where it has lost something.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog

from unbroken.sessions.backends.base import Append, Fence, SessionStore
from unbroken.sessions.clock import Clock
from unbroken.sessions.entries import Body
from unbroken.sessions.errors import (
    CursorLost,
    Fenced,
    NodeDraining,
    SessionDeleted,
    SessionError,
    StoreError,
    StoreUnavailable,
)
from unbroken.sessions.event_log import EventLog
from unbroken.sessions.ids import NodeId, new_incarnation
from unbroken.sessions.outage import Outage, Retry
from unbroken.sessions.rejoining import settle
from unbroken.sessions.replica import ActorLimits, Replica
from unbroken.sessions.ring import Anew, Ring
from unbroken.sessions.run import Spawn
from unbroken.sessions.runs import Runs
from unbroken.sessions.session import Session
from unbroken.sessions.weak import weakly

__all__ = ["Alone"]


class Alone(Replica, ABC):
    """What an actor knows of its store, and does without it."""

    _runs: Runs

    def __init__(
        self,
        session: Session,
        log: EventLog,
        store: SessionStore,
        limits: ActorLimits,
        *,
        node: NodeId,
        fence: Fence,
        is_owner: bool,
        clock: Clock,
        find_outage: Callable[[], Outage],
        spawn: Spawn,
    ) -> None:
        super().__init__(session, log, store, limits, node)
        self.is_owner: bool = is_owner
        """Whether this node runs the session's responses, and alone writes their outputs."""
        self.fence = fence
        """The owner's, as far as it is known here: on the owner, its proof."""
        self._spawn = spawn
        self._asked: Append | None = None  # what is to be written, until that is known to be done
        self._branch = 0  # grows when it goes on alone: what was asked for before may be on another one
        self._asked_on = 0
        self._due = 0  # the last input that an owner before has answered, as far as that hasn't been read yet
        self._is_taking = False  # whether this node became the owner, and has to read the log first
        self._is_contested = False  # whether the store says that it isn't, and hasn't said who is
        self._find_outage = find_outage
        self.outage: Outage = find_outage()
        """Whether the store can be reached, as far as this session is concerned: that of its part."""
        self.must_be_listed = False
        """Whether the store had lost it: what lists it may have been lost, too. The node's to take back."""
        self._ring: Ring | None = None  # what is written without the store; None: it is there
        self._is_created = True  # whether the store knows the session, if it is opened
        self._retry = Retry(clock, weakly(self._try_now))
        self._now = clock.time
        self._reading: asyncio.Task[None] | None = None  # catches up with the store

    @abstractmethod
    def wake(self) -> None:
        """Have a look at what there is to do."""

    @abstractmethod
    def _next(self) -> tuple[int, Sequence[Body] | None]:
        """Return the last input that is answered, and what is to be written; None: there is nothing."""

    @abstractmethod
    async def _beside(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do *work* in the store, and then look again at what there is to do."""

    @abstractmethod
    def _resume_writing(self) -> None:
        """Go on as the owner, when all that is in the log has been read."""

    @abstractmethod
    def _abandon(self, reason: SessionError) -> None:
        """Give the session up."""

    @property
    def _is_apart(self) -> bool:
        """See :attr:`Replica._is_apart`."""
        return self._ring is not None

    @property
    def _is_sure(self) -> bool:
        """Whether this node owns the session, as far as it knows, and knows all of it."""
        return self.is_owner and not (self._is_taking or self._is_contested) and self.feed.ended is None

    def find_part(self) -> bool:
        """Find out which part of the store has the session by now. Return whether that is another one.

        In a cluster sessions move from server to server. To ask each time would cost too much.
        """
        before, self.outage = self.outage, self._find_outage()
        return self.outage is not before

    def _note_failure(self, why: StoreUnavailable | None) -> None:
        """Note that the store didn't answer: the part that has the session, and none that had it before."""
        self.find_part()
        self.outage.note_failure(self.session.id, why)

    def _try_now(self) -> None:
        with suppress(NodeDraining):
            self.wake()

    @property
    def is_recoverable(self) -> bool:
        """Whether another owner could go on with, or begin anew, all that runs here."""
        return self._runs.are_recoverable

    def _go_on_alone(self) -> None:
        """Write without the store until it takes that: it is out of reach, or has lost something."""
        self._is_contested = False  # by a store that has lost something, or was asked no more
        if self._ring is None:
            self._due = 0  # what isn't here may be nowhere: it is answered anew
        if self._is_taking:
            self._resume_writing()  # what is here is all that is left of the log
        if self._ring is None:
            self._branch += 1
            self._ring = Ring(self.position, self._limits.alone_bytes, self.keys)
            self._retry.stop()
            structlog.get_logger().warning("session not durable", session_id=self.session.id)
            self._note_durable(False)
        self.rejoin()

    def begin_anew(self) -> None:
        """Have the store hold what is here as a new log: its own isn't what this was made of."""
        self._go_on_alone()
        assert self._ring is not None
        self._ring.anew = Anew(new_incarnation(), [], keeps_keys=False)

    def rejoin(self) -> None:
        """Have the store take what was written without it, if it can be reached."""
        if self._ring is not None and self._reading is None and not self.outage.is_on:
            self._reading = self._spawn(self._beside(self._rejoin))
        self.wake()

    def _write_alone(self, ring: Ring) -> None:
        """Number here what there is to write, until there is nothing or no room for more."""
        if self._asked is not None:
            asked, self._asked = self._asked, None
            # What of it was read is in the log. Then the store went away, before its end was reached.
            self._take_in(ring, asked.consumed, asked.bodies[self._written :])
        while not ring.is_full:
            answered, bodies = self._next()
            if bodies is None:
                break
            self._take_in(ring, answered, bodies)

    def _take_in(self, ring: Ring, answered: int, bodies: Sequence[Body]) -> None:
        ring.consumed = max(ring.consumed, answered)
        ring.finished += self._finished_in(bodies, self._now())
        self._ingest(ring.write(bodies))
        self.session.consume(answered)
        self._tell_waiters()
        self._runs.reconcile()

    async def _rejoin(self) -> None:
        """See :meth:`rejoin`. Nothing is written meanwhile but inputs, and these follow."""
        session_id, store = self.session.id, self._store
        try:
            if not self._is_created:
                await self._create()
                self._is_created = True
            while (ring := self._ring) is not None:
                settled = await settle(store, self, self.fence, ring)
                self.fence, self._ring = settled.fence, None if settled.is_all else settled.rest
                if settled.log is not None:
                    self.must_be_listed = True
                    self._stored_floor = settled.log.floor
                    self._restart(settled.log)
                    for submitted in settled.foreign:
                        self._ingest(settled.rest.take_over(submitted))
            self._runs.settle()  # nobody has taken it meanwhile
            self._is_behind = True  # others may have written since
            structlog.get_logger().info("session durable again", session_id=session_id)
            self._note_durable(True)
        except Fenced:
            # Somebody took it meanwhile. What was said here isn't in the log, and nobody can go on from it.
            self.is_owner = False
            self._runs.pass_on()
            self._abandon(CursorLost())
        finally:
            self._reading = None

    async def _create(self) -> None:
        """Have the store know a session that was begun without it.

        Raises:
            Fenced: Another node has begun it: its client was there, too, before it said anything.
            SessionDeleted: And it was deleted there.
            StoreUnavailable: It may be known by now.

        """
        try:
            await self._store.create(self.session.id, self.fence.node, self.fence.incarnation)
        except (StoreUnavailable, SessionDeleted):
            raise
        except StoreError as exc:
            raise Fenced from exc
