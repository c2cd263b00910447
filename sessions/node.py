"""One server process as seen by its connections: begin a session, attach to one, shut down.

The node owns every task that its sessions start. Leaving its context cancels
and awaits them all.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import structlog

from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.base import Fence, Receipt, SessionStore
from unbroken.sessions.backends.cluster import Alone, Cluster
from unbroken.sessions.caps import Caps
from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.committer import Committer
from unbroken.sessions.cursor import Cursor
from unbroken.sessions.entries import CancelResponse, CreateResponse, DeleteItem, ResponseDone, Submitted
from unbroken.sessions.errors import (
    CursorLost,
    NodeDraining,
    NodeFull,
    NodeOverloaded,
    Refusal,
    SessionNotFound,
    StoreUnavailable,
    TooManyConnections,
)
from unbroken.sessions.event_log import EventLog, Position, Verdict
from unbroken.sessions.hub import Hub
from unbroken.sessions.ids import (
    ChainId,
    Incarnation,
    NodeId,
    PrincipalId,
    SessionId,
    new_incarnation,
    new_node_id,
    new_session_id,
)
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.node_limits import NodeLimits
from unbroken.sessions.outage import Outage
from unbroken.sessions.ownership import Ownership
from unbroken.sessions.responder import Responder
from unbroken.sessions.response import Standing
from unbroken.sessions.run import Run
from unbroken.sessions.session import Session
from unbroken.sessions.turn_cap import TurnCap

__all__ = ["Attachment", "Node", "NodeLimits"]

_DEPARTURE_RATE: Final = 500.0
"""Connections a second that a draining node sends elsewhere."""

_DEPARTURE_WINDOW: Final = 5.0
"""Seconds in which they have left, however many there are."""

_PROBE_INTERVAL: Final = 0.5
"""Seconds between two questions whether the store is back."""

_NO_SESSION: Final = SessionId("")

_TELLING_TIMEOUT: Final = 0.3
"""Seconds that connections get to be told of what was interrupted."""


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
            wait = node.departure()
            self._leaves_at = node.now() + wait
            if wait:
                node.call_later(wait, self.cursor.wake)
        return node.now() >= self._leaves_at

    async def submit(self, submitted: Submitted) -> Receipt:
        """Write an input, once per key. The answer comes through the log.

        Raises:
            Refusal: It was a duplicate of an input that was refused, or can't be taken now.
            NodeFull: The node can't hold more.
            StoreError: It could not be written.

        """
        node = self._node
        if node.is_draining and isinstance(submitted.command, CreateResponse):
            raise Refusal("server_draining", str(NodeDraining()))
        if not node.takes_responses and isinstance(submitted.command, CreateResponse):
            raise Refusal("server_overloaded", str(NodeOverloaded()))
        grows = not isinstance(submitted.command, CancelResponse | DeleteItem)
        if grows and node.hub.size >= node.limits.bytes:
            raise NodeFull
        try:
            receipt = await node.turns.submit(self._actor, submitted, node.hub.holds)
        except StoreUnavailable as exc:
            raise Refusal("store_unavailable", str(exc)) from None
        if receipt.duplicate and (refused := self.session.refusals.get(receipt.seq)) is not None:
            raise Refusal(refused.code, refused.message, param=refused.param)
        return receipt

    async def answered(self, seq: int) -> None:
        """Wait until input *seq* has been answered in the log, or the session is lost."""
        await self._actor.answered(seq)

    def close(self) -> None:
        """Let go of the session. Stops nothing."""
        self.cursor.close()
        self._node.detached(self._actor)


class Node:
    """The sessions of one process. Use as an asynchronous context manager.

    Args:
        store: Where sessions are kept.
        responder: What answers.
        cluster: The nodes that share the store; None: there are no others.
        caps: How many responses principals have, here and elsewhere; None: here alone. The node opens
            and closes them.
        clock: Where time comes from.
        limits: What the node holds.
        on_response: Told of each attempt that ends here.
        on_refusal: Told the code of each input that is refused in the log.
        on_run: Told of each responder's work here when it has ended.

    """

    def __init__(
        self,
        *,
        store: SessionStore,
        responder: Responder,
        clock: Clock,
        limits: NodeLimits,
        cluster: Cluster | None = None,
        caps: Caps | None = None,
        on_response: Callable[[ResponseDone], None],
        on_refusal: Callable[[str], None] = lambda _: None,
        on_run: Callable[[Run], None] = lambda _: None,
    ) -> None:
        self.id: Final[NodeId] = new_node_id()
        self.limits: Final = limits
        self.caps: Final = Caps(clock) if caps is None else caps
        self.turns: Final = TurnCap(self.caps, store, limits.responses_per_principal)
        self.hub: Final = Hub(self.turns)
        self._store = store
        self._cluster: Cluster = Alone() if cluster is None else cluster
        self._committer = Committer(
            store, self._spawn, clock, patience=limits.patience, gathering=limits.gathering
        )
        self._responder = responder
        self._clock = clock
        self._on_response = on_response
        self._on_refusal = on_refusal
        self._on_run = on_run
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._context = contextvars.Context()
        self._sweeper: Timer | None = None
        self.is_draining = False
        """Whether the node takes no new sessions, connections or responses any more."""
        self.is_handing_over = False
        """Whether its connections, and its sessions, are to go on on other nodes."""
        self.draining_since = self._departures = 0.0  # a time by its clock; seconds over which they leave
        self._draw = random.Random().random  # noqa: S311 - it only spreads them
        self.takes_sessions = True
        """Whether new sessions are begun. For whoever watches the load: sessions that exist go on."""
        self.takes_responses = True
        """Whether new responses are, too. Those that run go on."""
        self._changed = asyncio.Event()  # something a drain waits for may have happened
        self._outage = Outage(
            clock, patience=limits.outage_patience, is_strict=limits.is_strict, on_begin=self._outage_began
        )
        self._ownership = Ownership(
            self.id,
            store=store,
            cluster=self._cluster,
            hub=self.hub,
            caps=self.caps,
            clock=clock,
            limits=limits.session,
            make=self._actor,
            spawn=self._spawn,
            on_change=self._changed.set,
        )

    async def __aenter__(self) -> Self:
        self._is_open = True
        self._context = contextvars.copy_context()
        self._sweeper = self._clock.call_later(self.limits.sweep_interval, self._begin_sweep)
        await self._cluster.join(self.id, self._ownership)
        self.caps.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.caps.aclose()  # which waits, while sessions may still write
        self._is_open = False
        await self._cluster.leave()
        self._committer.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=self.limits.actor.run.stop_timeout)
            if stuck:
                structlog.get_logger().error("tasks do not stop", node_id=self.id, count=len(stuck))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task of this node's. Unlike in a task group, its failure leaves the others alone.

        Its context is the node's: what the connection that caused it bound for its logs isn't the session's.
        """
        if not self._is_open:
            work.close()
            raise NodeDraining
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (exc := task.exception()) is None:
            return
        # These are no bugs, and who waits is told. NodeDraining: a closing node refused its next step.
        if not isinstance(exc, StoreUnavailable | CursorLost | NodeDraining):
            structlog.get_logger().error("task failed", node_id=self.id, exc_info=exc)

    # Connections.

    async def create(
        self,
        principal: PrincipalId,
        config: SessionConfig,
        chain: ChainId,
        *,
        session_id: SessionId | None = None,
        incarnation: Incarnation | None = None,
    ) -> Attachment:
        """Begin a session. The store doesn't learn of it before its first input.

        One that another node began, and that never had an input, goes on under the *session_id* and
        *incarnation* that its client knows. On a full node, sessions that have been idle for long make
        room for it.

        Raises:
            NodeFull: The node holds as many sessions or bytes as it may.
            NodeOverloaded: :attr:`takes_sessions` is false.
            NodeDraining: The node is shutting down.

        """
        if self.is_draining:
            raise NodeDraining
        if not self.takes_sessions:
            raise NodeOverloaded
        if self._is_full:
            await self._make_room()
            if self._is_full:
                raise NodeFull
        session = Session(session_id or new_session_id(), self.limits.session)
        session.config = config
        log = EventLog(incarnation or new_incarnation())
        fence = Fence(self.id, 1, log.incarnation)
        actor = self._actor(session, log, principal, fence, opened=False)
        self.hub.add(actor)
        return Attachment(self, actor, actor.feed.attach(0, chain), resumed=False, preamble=[])

    async def attach(
        self,
        session_id: SessionId,
        principal: PrincipalId,
        position: Position | None,
        chain: ChainId,
        *,
        repeat: bool = False,
    ) -> Attachment:
        """Attach to a session, from *position*; None: from as far back as the log goes.

        With *repeat*, the entry at *position* is read once more: the client has
        seen only some of its frames. A position that can't be used is no error:
        the attachment then starts over with a snapshot, and says so.

        Raises:
            SessionNotFound: There is none of that id, or it is another principal's.
            TooManyConnections: It has as many connections as it may, and none of the same chain, whose
                oldest would make room: it may be long dead, without anybody having noticed.
            NodeDraining: The node is shutting down.

        """
        if self.is_draining:
            raise NodeDraining
        actor = self.hub.get(session_id)
        if actor is None or actor.feed.ended is not None:
            actor = await self._ownership.load(session_id)
        if actor.principal != principal:
            raise SessionNotFound
        if len(actor.feed) >= self.limits.connections_per_session and not actor.feed.displace(chain):
            raise TooManyConnections
        log, session = actor.log, actor.session
        actor.last_active = self._clock.monotonic()
        if position is None and log.floor == 0:
            return Attachment(self, actor, actor.feed.attach(0, chain), resumed=True, preamble=[])
        if position is not None and log.check(position) is Verdict.HELD:
            seq = position.seq - 1 if repeat else position.seq
            if seq >= log.floor:
                return Attachment(self, actor, actor.feed.attach(seq, chain), resumed=True, preamble=[])
        # Start over, from how things stand.
        cursor = actor.feed.attach(session.applied, chain)
        return Attachment(self, actor, cursor, resumed=position is None, preamble=session.standing())

    @property
    def has_others(self) -> bool:
        """Whether there may be other nodes that hold the same sessions."""
        return self._store.is_shared

    @property
    def _is_full(self) -> bool:
        return len(self.hub) >= self.limits.sessions or self.hub.size >= self.limits.bytes

    def detached(self, actor: Actor) -> None:
        """Note that a connection has left *actor*."""
        actor.last_active = self._clock.monotonic()
        self._changed.set()
        self._ownership.settle(actor)

    def _actor(
        self,
        session: Session,
        log: EventLog,
        principal: PrincipalId,
        fence: Fence,
        *,
        opened: bool,
        is_owner: bool = True,
    ) -> Actor:
        return Actor(
            session,
            log,
            principal=principal,
            store=self._store,
            committer=self._committer,
            fence=fence,
            responder=self._responder,
            clock=self._clock,
            limits=self.limits.actor,
            outage=self._outage,
            spawn=self._spawn,
            on_change=self._on_change,
            on_response=self._on_response,
            on_refusal=self._on_refusal,
            on_run=self._on_run,
            on_owner=self._ownership.on_owner,
            opened=opened,
            is_owner=is_owner,
        )

    # A store that is out of reach.

    @property
    def is_store_lost(self) -> bool:
        """Whether the store failed when it was last asked."""
        return self._outage.is_on or self._cluster.is_cut_off

    @property
    def unsaved(self) -> int:
        """How many sessions go on without the store."""
        return sum(not actor.feed.is_durable for actor in self.hub) if self._outage.is_on else 0

    def _outage_began(self) -> None:
        structlog.get_logger().error("store out of reach", node_id=self.id)
        self._clock.call_later(_PROBE_INTERVAL, self._begin_probe)

    def _begin_probe(self) -> None:
        with suppress(NodeDraining):
            self._spawn(self._probe())

    async def _probe(self) -> None:
        """Ask the store whether it is back. Whatever a session owes it is written then."""
        try:
            await self._store.unfollow(_NO_SESSION, self.id)  # to be read isn't enough
        except StoreUnavailable:
            self._clock.call_later(_PROBE_INTERVAL, self._begin_probe)
            return
        self._outage.note_success()
        structlog.get_logger().info("store back", node_id=self.id)
        await self._ownership.verify()

    def _on_change(self, actor: Actor) -> None:
        self.hub.account(actor)
        self._changed.set()
        self._ownership.settle(actor)

    def now(self) -> float:
        """Return the time by the node's clock, in seconds."""
        return self._clock.monotonic()

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Call *callback* in *delay* seconds."""
        self._clock.call_later(delay, callback)

    def departure(self) -> float:
        """Return in how many seconds one of the connections of a node that hands over is to leave."""
        return self._draw() * self._departures

    @property
    def commits_waiting(self) -> int:
        """How many sessions wait for the store to write what they have produced."""
        return len(self._committer)

    # Forgetting.

    def _begin_sweep(self) -> None:
        if self._is_open:
            self._sweeper = self._clock.call_later(self.limits.sweep_interval, self._begin_sweep)
            self._spawn(self.sweep())

    async def sweep(self) -> None:
        """Forget the sessions that have been idle for too long."""
        now = self._clock.monotonic()
        for actor in self.hub:
            limit = self._idle_limit if actor.is_opened else self.limits.empty_grace
            if actor.feed.ended is not None and not len(actor.feed):
                self._ownership.bury(actor)
            elif now - actor.last_active >= limit:
                await self._give_up(actor)

    @property
    def _idle_limit(self) -> float:
        limits = self.limits
        return (
            min(limits.idle_timeout, limits.release_after) if self._store.is_shared else limits.idle_timeout
        )

    async def _make_room(self) -> None:
        """Forget some of those sessions that have been idle for longest, if any has been for long enough."""
        now = self._clock.monotonic()
        idle = [
            actor
            for actor in self.hub
            if actor.is_idle and (not actor.is_opened or now - actor.last_active >= self.limits.room_timeout)
        ]
        idle.sort(key=lambda actor: actor.last_active)
        # Several at once: looking for them costs a walk through all.
        for actor in idle[: 1 + len(self.hub) // 100]:
            await self._ownership.forget(actor)

    # Shutting down.

    def begin_drain(self) -> None:
        """Take no new work, and let connections go.

        Where other nodes are there to go to, they end soon, one after another, also while a response runs:
        it is followed from there. Otherwise as soon as their sessions have nothing left to say.
        """
        self.draining_since = self.now()
        self.is_draining = self._ownership.is_leaving = True
        self.is_handing_over = self._store.is_shared and self._cluster.has_others
        self._departures = min(_DEPARTURE_WINDOW, self.hub.connections / _DEPARTURE_RATE)
        self._withdraw()
        for actor in self.hub:
            actor.feed.publish()

    def end_drain(self) -> None:
        """Take new work again. Connections that have left, and responses that were interrupted, stay so."""
        self.is_draining = self.is_handing_over = False
        self._ownership.stay()
        for actor in self.hub:
            actor.stay()
        self._withdraw()

    def _withdraw(self) -> None:
        """Tell the others whether this node would take what they give up."""
        with suppress(NodeDraining):
            self._spawn(self._cluster.withdraw(is_draining=self.is_draining))

    async def drained(self, timeout: float) -> None:
        """Wait until every response has ended and every connection is gone.

        After *timeout* seconds, responses that still run are ended as
        interrupted: they get their stop timeout, and connections a moment to be told.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.settled()
                return
        for actor in self.hub:
            if not actor.session.is_running:
                continue
            if self.is_handing_over and actor.is_owner and actor.is_recoverable:
                self._spawn(self._ownership.leave(actor))
            elif actor.is_owner:
                actor.interrupt()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.actor.run.stop_timeout + _TELLING_TIMEOUT):
                await self.settled()

    @property
    def is_settled(self) -> bool:
        """Whether nothing runs, nobody is connected, and what other nodes can have is theirs."""
        keeps = self._store.is_shared and (len(self.hub) or len(self._ownership.returns))
        return not (self.hub.is_busy or self.hub.connections or keeps)

    async def settled(self) -> None:
        """Wait for that while the node drains. One task at a time may."""
        task = asyncio.current_task()
        assert task is not None
        while not self.is_settled:
            self._changed.clear()
            for actor in self.hub:
                actor.feed.publish()
                if actor.feed.ended is not None and not len(actor.feed):
                    self._ownership.bury(actor)
                elif self._store.is_shared and actor.is_idle:
                    await self._give_up(actor)
                    if task.cancelling():  # the store's client may take a cancellation for its own, and go on
                        raise asyncio.CancelledError
            if not (self._changed.is_set() or self.is_settled):
                await self._changed.wait()

    async def _give_up(self, actor: Actor) -> None:
        """Forget *actor*, or try again in a while: somebody else is to find it free."""
        try:
            await self._ownership.forget(actor)
        except StoreUnavailable:
            self._clock.call_later(_PROBE_INTERVAL, self._changed.set)

    def __repr__(self) -> str:
        return f"<Node {self.id} {len(self.hub)} sessions>"
