"""Runs one session: takes inputs in, lets responses run, and writes what comes of it.

The actor decides nothing itself. It feeds committed entries to the session,
asks it what follows, has the store write that, and starts and stops responders
until they match the session's state. It is the only writer of its session's
outputs, with one write in flight.

It has a task only while there is something to do; an idle session has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from unbroken.sessions.backends.base import Append, Fence, InputKey, Receipt, SessionStore, Snapshot
from unbroken.sessions.clock import Clock
from unbroken.sessions.cursor import Feed
from unbroken.sessions.entries import (
    Body,
    Deltas,
    Entry,
    HandleNoted,
    Refused,
    ResponseDone,
    SessionOpened,
    Status,
    Submitted,
)
from unbroken.sessions.errors import NodeDraining, SessionError, StoreError
from unbroken.sessions.event_log import EventLog
from unbroken.sessions.ids import PrincipalId, ResponseId, new_item_id
from unbroken.sessions.responder import Responder, Turn
from unbroken.sessions.response import Response
from unbroken.sessions.run import CANCELLED, INTERRUPTED, Run, RunLimits, Spawn
from unbroken.sessions.session import Session
from unbroken.sessions.turn import AttemptState

__all__ = ["Actor", "ActorLimits"]

_READ_LIMIT: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorLimits:
    """What an actor allows its session."""

    run: RunLimits
    retain_bytes: int = 256 * 1024
    """Log to keep in any case."""
    log_bytes: int = 1024 * 1024
    """Log above which even an attached cursor is left behind."""


class Actor:
    """The live session on its owner. :meth:`submit` and :meth:`wake` drive it."""

    def __init__(
        self,
        session: Session,
        log: EventLog,
        *,
        principal: PrincipalId,
        store: SessionStore,
        fence: Fence,
        responder: Responder,
        clock: Clock,
        limits: ActorLimits,
        spawn: Spawn,
        on_change: Callable[[Actor], None],
        on_response: Callable[[Status], None],
        on_refusal: Callable[[str], None],
        opened: bool,
    ) -> None:
        self.session: Final = session
        self.feed: Final = Feed(log)
        self.principal: Final = principal
        self.last_active = clock.monotonic()
        """When something last happened here, by the clock."""
        self.is_opened = opened
        """Whether the store knows the session. An empty session costs it nothing."""
        self._store = store
        self._fence = fence
        self._responder = responder
        self._clock = clock
        self._limits = limits
        self._spawn = spawn
        self._on_change = on_change
        self._on_response = on_response
        self._on_refusal = on_refusal
        self._runs: dict[ResponseId, Run] = {}
        self._kept_elsewhere = 0  # bytes of what the store keeps beside the log
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._orphans = {  # what ran under an owner that is gone
            response.id
            for response in session.responses.values()
            if response.attempt.state is not AttemptState.QUEUED
        }
        self._work = asyncio.Event()
        self._is_awake = False  # whether the task runs
        self._behind = False  # whether the store is known to hold entries not applied yet
        self._interrupting = False
        self._opening: asyncio.Task[None] | None = None
        self._compacted = log.floor  # how far the store has forgotten

    @property
    def log(self) -> EventLog:
        """The session's log, as far as this node holds it."""
        return self.feed.log

    @property
    def size(self) -> int:
        """Bytes this session takes, roughly."""
        return self.log.size + self.session.conversation_bytes + self._kept_elsewhere

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do and nobody is connected."""
        return not self._is_awake and not self.session.is_busy and not len(self.feed)

    @property
    def fence(self) -> Fence:
        """This node's proof that it owns the session."""
        return self._fence

    async def submit(self, key: InputKey | None, submitted: Submitted) -> Receipt:
        """Write an input, once per key, and see to it that it is answered.

        Returns when it is in the log. The answer comes through the log.

        Raises:
            MessageIdReused: The key was used for something else.
            StoreError: It could not be written.

        """
        if self.feed.ended is not None:
            raise self.feed.ended
        if not self.is_opened:
            await self._open()
        try:
            receipt = await self._store.submit(self.session.id, self._fence.incarnation, key, submitted)
        except asyncio.CancelledError:
            with suppress(NodeDraining):  # then whoever loads the session next reads it
                self.look()  # it may have been written all the same
            raise
        if receipt.entry is not None:
            self._ingest([receipt.entry])
        elif receipt.seq > self.session.applied:
            self._behind = True  # written, and its sender was cut off before this node was told
        self.wake()
        return receipt

    async def answered(self, seq: int) -> None:
        """Wait until input *seq* has been answered, or nothing more comes. Cancelling it loses nothing."""
        if self.session.consumed < seq and self.feed.ended is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((seq, waiter))
            await waiter

    def _tell_waiters(self) -> None:
        if self._waiters:
            consumed, is_over = self.session.consumed, self.feed.ended is not None
            waiting, self._waiters = self._waiters, []
            for seq, waiter in waiting:
                if waiter.done():
                    continue  # nobody waits any more
                if seq <= consumed or is_over:
                    waiter.set_result(None)
                else:
                    self._waiters.append((seq, waiter))

    def wake(self) -> None:
        """Have a look at what there is to do."""
        self._work.set()
        if not self._is_awake and self.feed.ended is None:
            self._spawn(self._live())
            self._is_awake = True

    def look(self) -> None:
        """Read what other nodes have written: there is said to be something."""
        self._behind = True
        self.wake()

    def interrupt(self) -> None:
        """End every response now, as interrupted: this node is shutting down."""
        self._interrupting = True
        for run in self._runs.values():
            run.stop(INTERRUPTED)
        self.wake()

    async def _open(self) -> None:
        """Begin the session in the store: once, and wholly, also if who needs it is cut off meanwhile."""
        if self._opening is None:
            self._opening = self._spawn(self._begin())
        await asyncio.shield(self._opening)

    async def _begin(self) -> None:
        fence = self._fence
        try:
            await self._store.create(self.session.id, fence.node, fence.incarnation)
            await self._commit([SessionOpened(self.principal, self.session.config)])
        except StoreError as exc:
            self._abandon(exc)
            raise
        self.is_opened = True

    # The task.

    async def _live(self) -> None:
        """Work until nothing is left to do. A failure ends the session on this node, not the node."""
        log = structlog.get_logger()
        try:
            await self._loop()
        except StoreError as exc:
            log.error("session lost", session_id=self.session.id, reason=type(exc).__name__)
            self._abandon(exc)
        except Exception as exc:  # the boundary: a bug in one session must not reach another
            log.exception("session crashed", session_id=self.session.id)
            self._abandon(SessionError(f"{type(exc).__name__} in the session's owner"))
        finally:
            self._is_awake = False
            self.last_active = self._clock.monotonic()
            self._on_change(self)

    def _abandon(self, reason: SessionError) -> None:
        """Give the session up: whoever reconnects finds what the store holds."""
        for run in self._runs.values():
            run.stop(INTERRUPTED)
        self.feed.end(reason)
        self._tell_waiters()

    async def _loop(self) -> None:
        while True:
            self._work.clear()
            if self._behind:
                await self._catch_up()
            if bodies := self._produced():
                await self._commit(bodies)
            elif self.session.has_inputs:
                consumed, bodies = self.session.decide()
                await self._commit(bodies, consumed=consumed)
            elif bodies := self._ended() or self.session.promote():
                await self._commit(bodies)
            elif self._floor_moved():
                await self._compact()
            elif not self._work.is_set():
                if not self._runs:
                    return  # nothing is awaited since the check, so no wake-up can be missed
                await self._work.wait()
            if not self._behind:  # otherwise what was written last may not be applied yet
                self._reconcile()

    def _produced(self) -> list[Body]:
        """Return what the runs have produced since the last time."""
        bodies: list[Body] = []
        for run in self._runs.values():
            response = self.session.responses[run.response_id]
            ordinal = response.ordinal
            if run.handle is not None:
                bodies.append(HandleNoted(run.response_id, run.handle, ordinal))
                run.handle = None
                ordinal += 1
            if not run.pieces or response.attempt.state is AttemptState.CANCELLING:
                run.take()  # what comes after a cancel is dropped
                continue
            if response.item_id is None:
                begun = self.session.begin_output(run.response_id, run.item_id, ordinal)
                bodies.append(begun)
                ordinal = begun.ordinal + 1
            bodies.append(Deltas(run.response_id, run.item_id, run.take(), ordinal))
        return bodies

    def _ended(self) -> list[Body]:
        """Return what ends the first attempt that has come to its end."""
        for response in self.session.responses.values():
            run = self._runs.get(response.id)
            state = response.attempt.state
            if run is not None:
                outcome = run.outcome
            elif self._interrupting or response.id in self._orphans:
                outcome = INTERRUPTED
            elif state is AttemptState.CANCELLING:
                outcome = CANCELLED  # it never began to run
            else:
                outcome = None
            if outcome is not None:
                self._runs.pop(response.id, None)
                return list(self.session.finish(response.id, outcome))
        return []

    def _reconcile(self) -> None:
        """Start and stop runs until they match the session's state."""
        for response in self.session.responses.values():
            run = self._runs.get(response.id)
            state = response.attempt.state
            if run is None:
                is_ours = response.id not in self._orphans and not self._interrupting
                if state is AttemptState.STARTING and is_ours:
                    run = Run(response.id, new_item_id(), self._limits.run, self._clock, self._work.set)
                    self._runs[response.id] = run
                    run.start(self._spawn, self._responder, self._turn(response))
            elif state is AttemptState.CANCELLING:
                run.stop(CANCELLED)

    # The store.

    async def _commit(self, bodies: Sequence[Body], *, consumed: int | None = None) -> None:
        consumed = self.session.consumed if consumed is None else consumed
        append = Append(self.session.id, self._fence, self.session.applied, consumed, bodies)
        (result,) = await self._store.append([append])
        if isinstance(result, StoreError):
            raise result
        self._ingest(result)
        self.session.consume(consumed)
        self._tell_waiters()

    async def _catch_up(self) -> None:
        """Apply what the store holds and this node has not seen: inputs that other nodes submitted."""
        self._behind = False
        while True:
            entries = await self._store.read(
                self.session.id, self._fence.incarnation, self.session.applied, _READ_LIMIT
            )
            if not entries:
                return
            self._ingest(entries)

    def _ingest(self, entries: Sequence[Entry]) -> None:
        """Apply committed entries in order. What leaves a gap waits until it is closed from the store."""
        session, log = self.session, self.log
        before = log.head
        for entry in entries:
            if entry.seq <= session.applied:
                continue
            if entry.seq != session.applied + 1:
                self._behind = True
                self._work.set()
                break
            session.apply(entry)
            log.append(entry)
            if type(entry.body) is Refused:
                self._on_refusal(entry.body.code)
            if type(entry.body) is ResponseDone:
                log.pack(entry.body.response_id, entry.body.output)
                self._on_response(entry.body.status)
                structlog.get_logger().info(
                    "response ended",
                    session_id=session.id,
                    response_id=entry.body.response_id,
                    status=entry.body.status,
                    code=None if entry.body.failure is None else entry.body.failure.code,
                )
        self._trim(before)
        self._on_change(self)
        self.feed.publish()

    def _trim(self, latest: int) -> None:
        """Forget what is over the bounds: not until it is somewhat over, and then enough for a while."""
        log, limits = self.log, self._limits
        if log.size > limits.retain_bytes * 5 // 4:
            log.trim(
                retain=limits.retain_bytes,
                maximum=limits.log_bytes if log.size <= limits.log_bytes else limits.log_bytes * 3 // 4,
                attached=self.feed.lowest,
                running=self.session.running_from,
                latest=latest,
            )

    def _floor_moved(self) -> bool:
        return self.log.floor > self._compacted

    async def _compact(self) -> None:
        """Let the store forget what this node has forgotten."""
        log = self.log
        self._compacted = log.floor
        applied = self.session.applied
        snapshot = Snapshot(applied, log.nonce_at(applied), self.session.snapshot())
        self._kept_elsewhere = len(snapshot.data)
        await self._store.compact(self.session.id, self._fence, log.floor, snapshot)

    def _turn(self, response: Response) -> Turn:
        return Turn(
            session_id=self.session.id,
            response_id=response.id,
            principal=self.principal,
            attempt=response.number,
            number=response.turn,
            config=self.session.config,
            request=response.request,
            messages=self.session.prompt(response.id),
        )
