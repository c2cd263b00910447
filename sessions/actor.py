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
from dataclasses import dataclass
from typing import Final

import structlog
from msgspec.structs import replace

from unbroken.sessions.account import REFUSAL_COST, SESSION_COST, Account, config_bytes
from unbroken.sessions.backends.base import (
    Append,
    Fence,
    InputKey,
    Opened,
    Receipt,
    Resident,
    SessionStore,
    Snapshot,
)
from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.committer import Committer
from unbroken.sessions.cursor import Feed
from unbroken.sessions.entries import (
    Body,
    Deltas,
    Entry,
    HandleNoted,
    Refused,
    ResponseDone,
    ResponseQueued,
    ResponseStarted,
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
)
from unbroken.sessions.event_log import EventLog, Position
from unbroken.sessions.ids import NodeId, Nonce, PrincipalId, ResponseId, new_incarnation, new_response_id
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.outage import Outage
from unbroken.sessions.recovery import another_attempt, resumption_of
from unbroken.sessions.responder import Responder, Resuming, Resumption, Turn
from unbroken.sessions.response import Response
from unbroken.sessions.ring import Ring
from unbroken.sessions.run import CANCELLED, INTERRUPTED, Run, RunLimits, Spawn
from unbroken.sessions.session import Session
from unbroken.sessions.turn import AttemptState

__all__ = ["Actor", "ActorLimits"]

_READ_LIMIT: Final = 4096

_RETRY_DELAYS: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds after which a store that couldn't be reached is asked again; the last one from then on."""

_ACCOUNT_STEP: Final = 8192
"""Bytes by which a session may grow before its node is told, while nothing else happens in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorLimits:
    """What an actor allows its session."""

    run: RunLimits
    retain_bytes: int = 256 * 1024
    """Log to keep in any case."""
    log_bytes: int = 1024 * 1024
    """Log above which even an attached cursor is left behind."""
    alone_bytes: int = 1024 * 1024
    """What a session takes in while its store is out of reach."""
    attempts: int = 1
    """How often a turn is attempted whose owners are lost, and whose answer no upstream keeps."""


class Actor:
    """The live session on a node. :meth:`submit` and :meth:`wake` drive it."""

    def __init__(
        self,
        session: Session,
        log: EventLog,
        *,
        principal: PrincipalId,
        store: SessionStore,
        committer: Committer,
        fence: Fence,
        responder: Responder,
        clock: Clock,
        limits: ActorLimits,
        outage: Outage,
        spawn: Spawn,
        on_change: Callable[[Actor], None],
        on_response: Callable[[ResponseDone], None],
        on_refusal: Callable[[str], None],
        on_run: Callable[[Run], None],
        on_owner: Callable[[Actor], None],
        opened: bool,
        is_owner: bool = True,
    ) -> None:
        self.session: Final = session
        self.feed: Final = Feed(log)
        self.principal: Final = principal
        self.last_active = clock.monotonic()
        """When something last happened here, by the clock."""
        self.is_opened = opened
        """Whether the store knows the session. An empty session costs it nothing."""
        self.is_owner: bool = is_owner
        """Whether this node runs the session's responses, and alone writes their outputs."""
        self.fence = fence
        """The owner's, as far as it is known here: on the owner, its proof."""
        self.wanted_by: NodeId | None = None
        """A node that has connections of the session and would rather own it."""
        self.is_scheduled = False
        """The committer's note."""
        self._store = store
        self._committer = committer
        self._responder = responder
        self._clock = clock
        self._limits = limits
        self._spawn = spawn
        self._on_change = on_change
        self._on_response = on_response
        self._on_refusal = on_refusal
        self._on_run = on_run
        self._on_owner = on_owner
        self._runs: dict[ResponseId, Run] = {}
        self._kept_elsewhere = 0  # bytes of what the store keeps beside the log
        self._keys_bytes = store.keys_bytes if isinstance(store, Resident) else None
        self._account_of_log = Account()
        self._config: SessionConfig | None = None  # whose bytes are known
        self._config_bytes = 0
        self._nonce = log.nonce_at(log.head)  # of the last entry applied
        self._is_written = False  # whether an output was read, since a write whose answer was lost
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._orphans = (
            set(session.running_ids) if is_owner else set()
        )  # what ran under an owner that is gone
        self._resumed: dict[ResponseId, Resumption] = {}  # of those, what goes on here
        self._trim_above = limits.retain_bytes * 5 // 4
        self._is_stirred = False  # whether anything but new pieces may call for a write
        self._is_input_next = True
        self._asked: Append | None = (
            None  # what the store was last asked to write, until that is known to be done
        )
        self._is_writing = False
        self._is_taking = (
            False  # whether ownership has come to this node, and the log isn't read to its end yet
        )
        self._outage = outage
        self._ring: Ring | None = None  # what is written without the store; None: it is there
        self._is_created = True  # whether the store knows the session, if it is opened
        self._failures = 0  # how often in succession the store couldn't be reached
        self._retry: Timer | None = None
        self._wrote_at = float("-inf")  # when pieces were last written, by the clock
        self._is_behind = False  # whether the store is known to hold entries not applied yet
        self._reading: asyncio.Task[None] | None = None  # catches up with the store
        self._compacting: asyncio.Task[None] | None = None
        self._compacted = log.floor  # how far the store has forgotten
        self._accounted = 0  # the log's size when the node was last told
        self._interrupting = False
        self._opening: asyncio.Task[None] | None = None
        self._is_retried = False  # whether that was tried before

    @property
    def log(self) -> EventLog:
        """The session's log, as far as this node holds it."""
        return self.feed.log

    @property
    def size(self) -> int:
        """Bytes this session takes, roughly."""
        session = self.session
        if session.config is not self._config:
            self._config, self._config_bytes = session.config, config_bytes(session.config)
        return (
            SESSION_COST
            + max(self.log.size - self._account_of_log.repeated, 0)
            + session.conversation_bytes
            + self._config_bytes
            + REFUSAL_COST * len(session.refusals)
            + self._kept_elsewhere
            + (self._keys_bytes(session.id) if self._keys_bytes is not None else 0)
        )

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do and nobody is connected."""
        return not (
            self.is_scheduled
            or self._is_writing
            or self._reading
            or self._compacting
            or self._runs
            or (self.is_owner and self.session.is_busy)
            or len(self.feed)
        )

    @property
    def _position(self) -> Position:
        return Position(self.log.incarnation, self.session.applied, self._nonce)

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
            receipt = await self._write_input(key, submitted)
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

    async def _write_input(self, key: InputKey | None, submitted: Submitted) -> Receipt:
        if self._ring is None:
            try:
                return await self._store.submit(self.session.id, self.log.incarnation, key, submitted)
            except StoreUnavailable:
                self._outage.note_failure()
                self._is_behind = True  # it may have been written all the same
                if not (self.is_owner and self._outage.is_over_patience):
                    raise
            except SessionGone:
                if not (self.is_owner and self._store.is_shared):
                    raise
            self._go_on_alone()
        if self._ring is None:  # it was back at once
            return await self._store.submit(self.session.id, self.log.incarnation, key, submitted)
        return self._ring.submit(key, submitted)

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
        self._is_stirred = True
        if self.feed.ended is None:
            self._committer.schedule(self)

    def look(self) -> None:
        """Read what other nodes have written: there is said to be something."""
        self._is_behind = True
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
        session_id, fence = self.session.id, self.fence
        try:
            await self._store.create(session_id, fence.node, fence.incarnation)
            result: Sequence[Entry] | StoreError = []
            if self._is_retried:  # it may have been written, and only the answer lost
                result = (await self._store.read(session_id, self._position, _READ_LIMIT)).entries
            self._is_retried = True
            if not result:
                opened = [SessionOpened(self.principal, self.session.config)]
                (result,) = await self._store.append(
                    [Append(session_id, fence, 0, Nonce(0), 0, opened, is_busy=False)]
                )
            if isinstance(result, StoreError):
                raise result
        except StoreUnavailable:
            self._outage.note_failure()
            if not self._outage.is_over_patience:
                self._opening = None  # whoever has something to say next tries again
                raise
            self._is_created = False
            self._go_on_alone()
            assert self._ring is not None
            result = self._ring.write([SessionOpened(self.principal, self.session.config)])
        except StoreError as exc:
            self._abandon(exc)
            raise
        self._ingest(result)
        self.is_opened = True

    def _abandon(self, reason: SessionError) -> None:
        """Give the session up: whoever reconnects finds what the store holds."""
        self._stop_runs()
        self._disarm()
        self.feed.end(reason)
        self._tell_waiters()
        self._rest()

    def _fail(self, exc: Exception) -> None:
        """Give the session up because of *exc*. A failure ends the session on this node, not the node."""
        log = structlog.get_logger()
        if not self.is_owner and isinstance(exc, SessionGone | LostTail):
            self._abandon(
                CursorLost()
            )  # what is here is no part of the log (any more): connections start over
        elif isinstance(exc, StoreError):
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
        self._accounted = self.log.size
        self._on_change(self)

    # What is written.

    def next_append(self) -> Append | None:
        """See :meth:`Writer.next_append`."""
        if self.feed.ended is not None or self._is_writing or self._reading or self._retry:
            return None
        try:
            if self._is_behind and self._ring is None:
                self._reading = self._spawn(self._beside(self._catch_up))
                return None
            if not self.is_owner:
                self._is_stirred = False
                return None
            if self._ring is not None:
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
        self._is_written = False
        self._asked = append = Append(
            session.id, self.fence, session.applied, self._nonce, answered, bodies, is_busy
        )
        return append

    def _ask_again(self, asked: Append) -> Append:
        """Return what was asked for and isn't in the log: inputs may have come before it."""
        self._is_writing = True
        self._is_written = False
        self._asked = append = replace(asked, fence=self.fence, seen=self.session.applied, nonce=self._nonce)
        return append

    def _next(self) -> tuple[int, Sequence[Body] | None]:
        """Return the last input that is answered, and what is to be written; None: there is nothing."""
        session = self.session
        consumed = session.consumed
        if self._is_stirred and self._is_input_next and session.has_inputs:
            self._is_input_next = False
            return session.decide()
        self._is_input_next = True  # taking turns: neither a flood of pieces nor one of inputs has it all
        if bodies := self._produced():
            return consumed, bodies
        if self._is_stirred:
            if session.has_inputs:
                return session.decide()
            if bodies := self._ended() or session.promote():
                return consumed, bodies
            self._is_stirred = False
            if self.log.floor > self._compacted and self._compacting is None:
                self._compacting = self._spawn(self._beside(self._compact))
            if not self._runs:
                self._rest()
        return consumed, None

    def committed(self, result: Sequence[Entry] | StoreError) -> bool:
        """See :meth:`Writer.committed`."""
        self._is_writing = False
        asked = self._asked
        try:
            if isinstance(result, StoreError):
                self._refused(result)
                return self._is_behind
            self._asked = None
            if self._failures:
                self._reached()
            self._ingest(result)
            if self._is_stirred and asked is not None:  # else it was but pieces
                self._answer(asked)
        except Exception as exc:  # noqa: BLE001 - the boundary: it is told of there
            self._fail(exc)
        return self._is_stirred or self._is_behind

    def _answer(self, written: Append) -> None:
        self.session.consume(written.consumed)
        self._tell_waiters()
        if not self._is_behind:  # otherwise what was written last may not be applied yet
            self._reconcile()

    def _refused(self, error: StoreError) -> None:
        """See to a write that the store refused, or didn't answer."""
        if isinstance(error, Fenced) and self._store.is_shared:
            self.demote()
        elif isinstance(error, StoreUnavailable):
            self._try_later()  # it may have been written: that is read first
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
            elif any(run.outcome is not None for run in self._runs.values()):
                self._committer.schedule(self)
            else:
                self._committer.hold(self)
        except NodeDraining:
            pass  # nobody will miss it

    def _produced(self) -> list[Body]:
        """Return what the runs have produced since the last time."""
        bodies: list[Body] = []
        for run in self._runs.values():
            if run.outcome is not None:
                self._is_stirred = True
            news = run.take()
            if not news and run.handle is None:
                continue
            response = self.session.responses[run.response_id]
            ordinal = response.ordinal
            if run.handle is not None:
                bodies.append(HandleNoted(run.response_id, run.handle, ordinal))
                run.handle = None
                ordinal += 1
            if response.attempt.state is not AttemptState.CANCELLING:  # what comes after a cancel is dropped
                bodies += self.session.write(run.response_id, news, ordinal)
        return bodies

    def _ended(self) -> list[Body]:
        """Return what ends the first attempt that has come to its end, or what lets it go on here."""
        for response in self.session.responses.values():
            run = self._runs.get(response.id)
            state = response.attempt.state
            is_lost = False  # whether it ends because its owner is gone
            if run is not None:
                outcome = run.outcome
                if outcome is not None and outcome.status == "failed" and response.id in self._resumed:
                    outcome, is_lost = INTERRUPTED, True  # its rest can't be had
            elif self._interrupting:
                outcome = INTERRUPTED
            elif state is AttemptState.CANCELLING:
                outcome = CANCELLED  # it never began to run, or its owner is gone
            elif response.id in self._orphans:
                if self._resume(response):
                    return [HandleNoted(response.id, response.handle or "", response.ordinal)]
                outcome, is_lost = INTERRUPTED, True
            else:
                outcome = None
            if outcome is not None:
                if run is not None:
                    del self._runs[response.id]
                    self._on_run(run)
                self._resumed.pop(response.id, None)
                bodies = list(self.session.finish(response.id, outcome))
                if is_lost:
                    bodies += another_attempt(response, new_response_id(), self._limits.attempts)
                return bodies
        return []

    def _resume(self, response: Response) -> bool:
        """Let an orphan go on here, if its upstream keeps it alive; True: once that is in the log."""
        resumption = self._resumption(response)
        if resumption is None:
            return False
        self._orphans.discard(response.id)
        self._resumed[response.id] = resumption
        return True

    def _resumption(self, response: Response) -> Resumption | None:
        responder = self._responder
        can_resume = isinstance(responder, Resuming) and responder.can_resume
        return resumption_of(response) if can_resume else None

    def _reconcile(self) -> None:
        """Start and stop runs until they match the session's state."""
        for response in self.session.responses.values():
            run = self._runs.get(response.id)
            state = response.attempt.state
            if run is None:
                resumption = self._resumed.get(response.id)
                is_ours = response.id not in self._orphans and not self._interrupting
                if is_ours and (state is AttemptState.STARTING or resumption is not None):
                    self._start(response, resumption)
            elif state is AttemptState.CANCELLING:
                run.stop(CANCELLED)

    def _start(self, response: Response, resumption: Resumption | None) -> None:
        run = Run(response.id, self._limits.run, self._clock, self._heard)
        self._runs[response.id] = run
        known = () if resumption is None else response.outputs
        turn = self._turn(response, resumption)
        run.start(self._spawn, self._responder, turn, self.session.call_ids(response.id), known)

    # The store.

    async def _beside(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do *work* in the store in a task of its own, and then look again at what there is to do."""
        try:
            await work()
        except StoreUnavailable:
            self._try_later()
        except (LostTail, SessionGone) as exc:
            if self.is_owner and self._store.is_shared:
                self._go_on_alone()
            else:
                self._fail(exc)
        except Exception as exc:  # noqa: BLE001 - the boundary: it is told of there
            self._fail(exc)
        with suppress(NodeDraining):
            self.wake()

    def _try_later(self) -> None:
        """Ask the store again after a while, first for what it holds: it can't be reached now."""
        self._is_behind = True
        self._outage.note_failure()
        if self.is_owner and self.is_opened and self._ring is None and self._outage.is_over_patience:
            self._go_on_alone()
        elif self._ring is None and self._retry is None and self.feed.ended is None:
            delay = _RETRY_DELAYS[min(self._failures, len(_RETRY_DELAYS) - 1)]
            self._failures += 1
            self._retry = self._clock.call_later(delay, self._try_now)

    def _try_now(self) -> None:
        self._retry = None
        with suppress(NodeDraining):
            self.wake()

    def _disarm(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _reached(self) -> None:
        self._failures = 0
        self._outage.note_success()

    # Without the store.

    @property
    def is_durable(self) -> bool:
        """Whether all that is here is in the store, as far as that is known."""
        return self._ring is None

    def _go_on_alone(self) -> None:
        """Write without the store until it takes that: it is out of reach, or has lost something."""
        if self._ring is None:
            self._ring = Ring(self._position, self._limits.alone_bytes)
            self._disarm()
            structlog.get_logger().warning("session not durable", session_id=self.session.id)
            self.feed.publish()
        self.rejoin()

    def rejoin(self) -> None:
        """Have the store take what was written without it, if it can be reached."""
        if self._ring is not None and self._reading is None and not self._outage.is_on:
            self._reading = self._spawn(self._beside(self._rejoin))
        self.wake()

    def _write_alone(self, ring: Ring) -> None:
        """Number here what there is to write, until there is nothing or no room for more."""
        if self._asked is not None:
            asked, self._asked = self._asked, None
            self._take_in(ring, asked.consumed, asked.bodies)
        while not ring.is_full:
            answered, bodies = self._next()
            if bodies is None:
                break
            self._take_in(ring, answered, bodies)

    def _take_in(self, ring: Ring, answered: int, bodies: Sequence[Body]) -> None:
        ring.consumed = max(ring.consumed, answered)
        self._ingest(ring.write(bodies))
        self.session.consume(answered)
        self._tell_waiters()
        self._reconcile()

    async def _rejoin(self) -> None:
        """See :meth:`rejoin`. Nothing is written meanwhile but inputs, and these follow."""
        session, store = self.session, self._store
        try:
            if not self._is_created:
                await store.create(session.id, self.fence.node, self.fence.incarnation)
                self._is_created = True
            while (ring := self._ring) is not None:
                entries = list(ring.entries)
                place = self._place_behind(entries, ring)
                try:
                    await store.rejoin(session.id, self.fence, ring.after, ring.consumed, entries, ring.keys)
                except LostTail:
                    if not await self._is_held(
                        place
                    ):  # else it was taken before, and only the answer was lost
                        await self._begin_anew(ring)
                        continue
                except SessionGone:
                    await self._begin_anew(ring)
                    continue
                rest = ring.confirm(len(entries), place)
                self._ring = rest if rest.entries else None
            self._is_behind = True  # others may have written since
            structlog.get_logger().info("session durable again", session_id=session.id)
            self.feed.publish()
        except Fenced:
            # Somebody took it meanwhile. What was said here isn't in the log, and nobody can go on from it.
            self.is_owner = False
            self._pass_runs_on()
            self._abandon(CursorLost())
        finally:
            self._reading = None

    def _place_behind(self, entries: Sequence[Entry], ring: Ring) -> Position:
        if not entries:
            return ring.after
        return Position(self.log.incarnation, entries[-1].last, entries[-1].nonce)

    async def _is_held(self, place: Position) -> bool:
        """Return whether the store's log has this place."""
        try:
            await self._store.read(self.session.id, place, 1)
        except (LostTail, SessionGone):
            return False
        return True

    async def _foreign(self, ring: Ring) -> list[Submitted]:
        """Return inputs that the store holds and this node doesn't: whoever sent them was told so."""
        log = self.log
        for place in (ring.after, log.position(log.floor)):
            with suppress(LostTail, SessionGone):
                entries = (await self._store.read(self.session.id, place, _READ_LIMIT)).entries
                return [
                    entry.body
                    for entry in entries
                    if isinstance(entry.body, Submitted)
                    and not (entry.seq <= log.head and log.nonce_at(entry.seq) == entry.nonce)
                ]
        return []

    async def _begin_anew(self, ring: Ring) -> None:
        """Have the store hold the session as it is here: it has lost what it had confirmed, or has more."""
        session = self.session
        foreign = await self._foreign(ring)
        snapshot = Snapshot(session.applied, self._nonce, session.snapshot())
        fence = await self._store.reseed(session.id, self.fence, new_incarnation(), snapshot)
        structlog.get_logger().warning("log begun anew", session_id=session.id, inputs=len(foreign))
        log = EventLog(fence.incarnation, floor=snapshot.seq, floor_nonce=snapshot.nonce)
        late = [entry for entry in ring.entries if entry.seq > snapshot.seq]  # inputs that came meanwhile
        for entry in late:
            log.append(entry)
        self.fence = fence
        self._account_of_log = Account()
        self._compacted = snapshot.seq
        self._ring = ring = ring.confirm(
            len(ring.entries) - len(late), Position(fence.incarnation, snapshot.seq, snapshot.nonce)
        )
        self.feed.restart(log)
        for submitted in foreign:
            self._ingest(ring.write([submitted]))

    async def _catch_up(self) -> None:
        """Read what the store holds and this node has not seen: nothing is written meanwhile."""
        session = self.session
        try:
            while self._is_behind:
                self._is_behind = False
                while True:
                    page = await self._store.read(session.id, self._position, _READ_LIMIT)
                    if self._failures:
                        self._reached()
                    self._is_written |= any(type(entry.body) is not Submitted for entry in page.entries)
                    self._ingest(page.entries)
                    if not page.entries:
                        break
                self._note_owner(page.fence)
            if self.is_owner:
                self._resume_writing()
        finally:
            self._reading = None

    def _resume_writing(self) -> None:
        """Go on as the owner, when all that is in the log has been read."""
        if self._is_taking:
            self._is_taking = False
            self._orphans = set(self.session.running_ids)
        if self._asked is not None and self._is_written:
            # Nobody else writes outputs.
            asked, self._asked = self._asked, None  # it was written, and only the answer was lost
            self.session.consume(asked.consumed)
        self._tell_waiters()
        self._reconcile()

    # Ownership.

    def _note_owner(self, fence: Fence) -> None:
        """Note whose the session was when the store was last read."""
        if fence == self.fence:
            return
        if self.is_owner:
            self.demote()
        self.fence = fence
        self._on_owner(self)

    def promote(self, opened: Opened) -> None:
        """Run the session from here on: this node has acquired it."""
        self.fence = opened.fence
        self.is_owner = self._is_taking = True
        self.session.consume(opened.consumed)
        self.look()

    def demote(self) -> None:
        """Write nothing any more: the session is another node's. Connections are shown what that one writes.

        What was produced here and isn't in the log is dropped: no client was shown it.
        """
        self.is_owner = self._is_taking = False
        self.wanted_by = None
        self._asked = None
        self._pass_runs_on()
        self._orphans.clear()
        self._on_owner(self)
        with suppress(NodeDraining):
            self.look()

    @property
    def is_recoverable(self) -> bool:
        """Whether another owner could go on with, or begin anew, all that runs here."""
        return all(
            response.attempt.state is AttemptState.QUEUED
            or self._resumption(response) is not None
            or another_attempt(response, response.id, self._limits.attempts)
            for response in self.session.responses.values()
        )

    def let_go(self) -> None:
        """Write nothing any more, here or elsewhere, and leave what runs to another owner."""
        self.is_owner = False
        self._pass_runs_on()
        self._abandon(NodeDraining())

    def _pass_runs_on(self) -> None:
        for run in self._runs.values():
            run.pass_on()
        self._runs.clear()
        self._resumed.clear()

    def _stop_runs(self) -> None:
        for run in self._runs.values():
            run.stop(INTERRUPTED)
        self._runs.clear()

    def _ingest(self, entries: Sequence[Entry]) -> None:
        """Apply committed entries in order. What leaves a gap waits until it is closed from the store."""
        session, log = self.session, self.log
        before = log.head
        for entry in entries:
            if entry.seq <= session.applied:
                continue
            if entry.seq != session.applied + 1:
                self._is_behind = True
                break
            is_pieces = type(entry.body) is Deltas
            held = 0 if is_pieces else session.conversation_bytes
            session.apply(entry)
            log.append(entry)
            self._nonce = entry.nonce
            if not is_pieces:
                self._is_stirred = True
                self._account_of_log.note(entry, held - session.conversation_bytes)
                self._observe(entry.body)
        if log.size > self._trim_above:
            self._trim(before)
        if abs(log.size - self._accounted) > _ACCOUNT_STEP:
            self._account()
        self.feed.publish()

    def _observe(self, body: Body) -> None:
        """See to what an entry means beside the session's state."""
        if type(body) is Refused:
            if self.is_owner:
                self._on_refusal(body.code)
        elif type(body) is ResponseStarted or type(body) is ResponseQueued:
            self._account()
        elif type(body) is ToolStarted:
            if (run := self._runs.get(body.response_id)) is not None:
                run.note_started(body.item_id)
        elif type(body) is ResponseDone:
            self.log.pack(body.response_id, body.output)
            self._account()  # the node counts those that run
            if not self.is_owner:
                return  # its owner tells
            self._on_response(body)
            log = structlog.get_logger()
            # What is as it should be is counted, not logged by default: a line costs a third of an answer.
            (log.debug if body.status == "completed" else log.info)(
                "response ended",
                session_id=self.session.id,
                response_id=body.response_id,
                status=body.status,
                code=None if body.failure is None else body.failure.code,
            )

    def _trim(self, latest: int) -> None:
        """Forget what is over the bounds: not until it is somewhat over, and then enough for a while."""
        log, limits = self.log, self._limits
        log.trim(
            retain=limits.retain_bytes,
            maximum=limits.log_bytes if log.size <= limits.log_bytes else limits.log_bytes * 3 // 4,
            attached=self.feed.lowest,
            running=self.session.running_from,
            latest=latest,
        )
        self._account_of_log.forget(log.floor)

    async def _compact(self) -> None:
        """Let the store forget what this node has forgotten."""
        log = self.log
        try:
            self._compacted = log.floor
            applied = self.session.applied
            snapshot = Snapshot(applied, log.nonce_at(applied), self.session.snapshot())
            self._kept_elsewhere = len(snapshot.data)
            await self._store.compact(self.session.id, self.fence, log.floor, snapshot)
        except (StoreUnavailable, Fenced):
            pass  # there is another time, or another owner
        finally:
            self._compacting = None

    def _turn(self, response: Response, resumption: Resumption | None) -> Turn:
        return Turn(
            session_id=self.session.id,
            response_id=response.id,
            principal=self.principal,
            attempt=response.number,
            number=response.turn,
            config=self.session.config,
            request=response.request,
            items=self.session.prompt(response.id),
            approved=self.session.approved(response.id),
            resumption=resumption,
        )
