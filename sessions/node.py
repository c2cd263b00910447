"""One server process as seen by its connections: begin a session, attach to one, shut down.

The node owns every task that its sessions start. Leaving its context cancels
and awaits them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final, Self

from unbroken.sessions.actor import Actor
from unbroken.sessions.attachment import Attachment
from unbroken.sessions.backends.base import Fence, SessionStore
from unbroken.sessions.backends.cluster import Alone, Cluster
from unbroken.sessions.backends.index import SessionIndex
from unbroken.sessions.caps import Caps
from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.committer import Committers
from unbroken.sessions.departures import Departures
from unbroken.sessions.entries import ResponseDone
from unbroken.sessions.errors import (
    NodeDraining,
    NodeOverloaded,
    SessionNotFound,
    StoreUnavailable,
    TooManyConnections,
)
from unbroken.sessions.event_log import EventLog, Position, Verdict
from unbroken.sessions.holders import Holder, HolderOf, Holders
from unbroken.sessions.hub import Hub
from unbroken.sessions.ids import (
    ChainId,
    Incarnation,
    NodeId,
    Nonce,
    PrincipalId,
    SessionId,
    new_incarnation,
    new_node_id,
    new_session_id,
)
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.listing import Listing
from unbroken.sessions.node_limits import NodeLimits
from unbroken.sessions.node_tasks import NodeTasks
from unbroken.sessions.outages import Outages
from unbroken.sessions.ownership import Ownership
from unbroken.sessions.responder import Responder
from unbroken.sessions.room import Room, part_of
from unbroken.sessions.run import Run
from unbroken.sessions.session import Session
from unbroken.sessions.turn_cap import TurnCap

__all__ = ["Attachment", "Node", "NodeLimits"]

_GIVEN_UP_AGAIN: Final = 0.5
"""Seconds after which a session that the store couldn't be told of is given up again."""

_LOOKED_AT_ALL: Final = 1.0
"""Seconds after which a node that drains looks at all its sessions again, whatever has happened to which."""

_TELLING_TIMEOUT: Final = 0.3
"""Seconds that connections get to be told of what was interrupted."""

_UNHEARD_OF: Final = frozenset({Verdict.FUTURE, Verdict.OTHER_BRANCH})
"""What a node says of places in a log that has gone on, or was begun anew, without its having heard of it."""


class Node:
    """The sessions of one process. Use as an asynchronous context manager.

    Args:
        store: Where sessions are kept.
        responder: What answers.
        cluster: The nodes that share the store; None: there are no others.
        index: Where its sessions are listed; None: nowhere.
        erase_late: Erases what turns out to be older than an erasure of all of its principal's. None: here.
        caps: How many responses principals have; None: here alone. The node opens and closes them.
        holder_of: For whom a principal's sessions count. Themselves by default.
        is_transient: Its sessions are nowhere else, and their ids say so. *caps* are opened by another.
        clock: Where time comes from.
        limits: What the node holds.
        on_response: Told of each attempt that ends here, and of its session.
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
        index: SessionIndex | None = None,
        erase_late: Callable[[SessionId], Awaitable[None]] | None = None,
        holder_of: HolderOf = Holder,
        is_transient: bool = False,
        on_response: Callable[[Session, ResponseDone], None],
        on_refusal: Callable[[str], None] = lambda _: None,
        on_run: Callable[[Run], None] = lambda _: None,
    ) -> None:
        self.id: Final[NodeId] = new_node_id()
        self.limits: Final = limits
        self.caps: Final = Caps(clock) if caps is None else caps
        self.turns: Final = TurnCap(self.caps, store, limits.responses_per_principal)
        holders = Holders(
            part_of(limits, limits.principal_share), part_of(limits, limits.strangers_share), holder_of
        )
        self.hub: Final = Hub(self.turns, holders)
        self._store = store
        self._is_transient = is_transient
        self._cluster: Cluster = Alone() if cluster is None else cluster
        self._tasks = NodeTasks(self.id)
        self._committers = Committers(
            store, self._tasks.spawn, clock, patience=limits.patience, gathering=limits.gathering
        )
        self._responder = responder
        self._clock = clock
        self._on_response = on_response
        self._on_refusal = on_refusal
        self._on_run = on_run
        self._sweeper: Timer | None = None
        self.is_draining = False
        """Whether the node takes no new sessions, connections or responses any more."""
        self.is_handing_over = False
        """Whether its connections, and its sessions, are to go on on other nodes."""
        self.draining_since = 0.0  # a time by its clock
        self.departures: Final = Departures()
        self.takes_sessions = True
        """Whether new sessions are begun. For whoever watches the load: sessions that exist go on."""
        self.takes_responses = True
        """Whether new responses are, too. Those that run go on."""
        self._changed = asyncio.Event()  # something a drain waits for may have happened
        self._touched: set[Actor] = set()  # to which it has, while the node drains
        self._outages = Outages(
            self.id,
            store,
            clock,
            patience=limits.outage_patience,
            is_strict=limits.is_strict,
            spawn=self._tasks.spawn,
            noted_by=lambda outage: (each.session.id for each in self.hub if each.outage is outage),
            on_back=lambda part: self._ownership.verify(part),
        )
        self._listing = Listing(
            index,
            clock,
            lifetime=limits.idle_timeout,
            spawn=self._tasks.spawn,
            erase=erase_late or self.erase,
        )
        self._ownership = Ownership(
            self.id,
            store=store,
            cluster=self._cluster,
            hub=self.hub,
            caps=self.caps,
            clock=clock,
            limits=limits.session,
            lifetime=limits.idle_timeout,
            make=self._actor,
            spawn=self._tasks.spawn,
            outages=self._outages,
            on_change=self._changed.set,
            on_kept=self._listing.note,
        )
        self.room: Final = Room(
            self.hub,
            holders,
            lambda actor: self._tasks.wholly(self._ownership.forget(actor)),
            limits,
            clock,
            is_shared=store.is_shared,
        )

    async def __aenter__(self) -> Self:
        self._tasks.open()
        self._sweeper = self._clock.call_later(self.limits.sweep_interval, self._begin_sweep)
        await self._cluster.join(self.id, self._ownership)
        if not self._is_transient:
            self.caps.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_transient:
            await self.caps.aclose()  # which waits, while sessions may still write
        self._tasks.close()
        await self._cluster.leave()
        self._committers.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._tasks.stop(self.limits.actor.run.stop_timeout)

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
        *incarnation* that its client knows: there is nothing to miss, so that it is resumed. If that has come
        here meanwhile, the client attaches to it. On a full node, sessions that have been idle for long make
        room for it; of a principal who has as many as one may, those at rest, the oldest first.

        Whoever waits may be cancelled, as for :meth:`attach`: then there is no attachment.

        Raises:
            SessionNotFound: Another principal's has come meanwhile; or one that has gone again.
            TooManyConnections: It has come meanwhile, and has as many connections as it may.
            TooManySessions: Its principal has as many as one may, and none at rest.
            NodeFull: The node holds as many sessions or bytes as it may, or strangers may.
            NodeOverloaded: :attr:`takes_sessions` is false.
            NodeDraining: The node is shutting down.

        """
        if self.is_draining:
            raise NodeDraining
        if not self.takes_sessions:
            raise NodeOverloaded
        named = session_id or new_session_id(principal, transient=self._is_transient)
        if self._ownership.live(named) is None:
            await self.room.make(principal)
        session = Session(named, self.limits.session)
        session.config = config
        log = EventLog(incarnation or new_incarnation())
        fence = Fence(self.id, 1, log.incarnation)
        make = partial(self._actor, session, log, principal, fence, opened=False)
        actor = await self._ownership.begin(named, make)
        if actor is None:
            start = None if incarnation is None else Position(incarnation, 0, Nonce(0))
            return await self.attach(named, principal, start, chain)
        cursor = actor.feed.attach(0, chain)
        return Attachment(self, actor, cursor, resumed=incarnation is not None, preamble=[])

    async def attach(
        self,
        session_id: SessionId,
        principal: PrincipalId,
        position: Position | None,
        chain: ChainId,
        *,
        repeat: bool = False,
        whole: bool = False,
        watches: bool = True,
    ) -> Attachment:
        """Attach to a session, from *position*; None: from as far back as the log goes.

        With *repeat*, the entry at *position* is read once more: the client has seen only some of its
        frames. A position that can't be used is no error: it starts over with a snapshot, and says so.
        Without *watches* it is for a moment, to look or to act, as who stops an answer does: it counts as no
        connection, and is had on a node that shuts down, too, where something has been said in the session.

        Raises:
            SessionNotFound: There is none of that id, or it is another principal's.
            TooManyConnections: It has as many connections as it may, and none of the same chain, whose
                oldest would make room: it may be long dead, without anybody having noticed.
            TooManySessions: It isn't here, and its principal has as many here as one may, and none at rest.
            NodeFull: It isn't here, and the node holds as many sessions or bytes as it may.
            NodeDraining: The node is shutting down.

        """
        here = self._ownership.live(session_id)
        if self.is_draining and (watches or (here is not None and not here.is_opened)):
            raise NodeDraining
        actor = await self._found(session_id, position, principal)
        if actor.principal != principal:
            raise SessionNotFound
        is_full = watches and actor.feed.watching >= self.limits.connections_per_session
        if is_full and not actor.feed.displace(chain):
            raise TooManyConnections
        log, session = actor.log, actor.session
        new_cursor = partial(actor.feed.attach, chain=chain, watches=watches)
        actor.last_active = self._clock.monotonic()
        if position is None and (whole or log.floor == 0):
            return Attachment(self, actor, new_cursor(log.floor), resumed=True, preamble=[])
        if position is not None and log.check(position) is Verdict.HELD:
            seq = position.seq - 1 if repeat else position.seq
            if seq >= log.floor:
                return Attachment(self, actor, new_cursor(seq), resumed=True, preamble=[])
        # Start over, from how things stand.
        cursor = new_cursor(session.applied)
        return Attachment(self, actor, cursor, resumed=position is None, preamble=session.standing())

    async def _found(self, session_id: SessionId, position: Position | None, principal: PrincipalId) -> Actor:
        """Return a session from here, or from the store: as it is by now, as far as *position* needs that."""
        actor = self._ownership.live(session_id)
        if actor is not None and not actor.is_opened:
            await self._ownership.unopened.check(actor)  # the client may have said something elsewhere
            actor = self._ownership.live(session_id)
        if actor is None:
            if self._store.is_shared:
                await self.room.make(principal)
            return await self._tasks.wholly(self._ownership.load(session_id))
        if not (self._store.is_shared and actor.is_opened):
            return actor
        if position is not None and (verdict := actor.log.check(position)) in _UNHEARD_OF:
            # This node may not have heard of what the client has seen.
            await actor.catch_up(is_patient=verdict is Verdict.FUTURE)
            actor = self._ownership.live(session_id)
            return await self._tasks.wholly(self._ownership.load(session_id)) if actor is None else actor
        if actor.is_owner:
            self._ownership.look(actor)  # whoever comes may have said something on a node that died of it
        return actor

    async def erase(self, session_id: SessionId) -> None:
        """Delete a session: see :meth:`Erasing.erase`. Whoever asks has to know whose it is."""
        await self._tasks.wholly(self._ownership.erasing.erase(session_id))

    @property
    def has_others(self) -> bool:
        """Whether there may be other nodes that hold the same sessions."""
        return self._store.is_shared

    @property
    def has_successors(self) -> bool:
        """Whether other nodes are there for those that are sent away; at first also those that end, too."""
        return self.is_handing_over or (self._store.is_shared and self._cluster.has_others)

    def detached(self, actor: Actor) -> None:
        """Note that a connection has left *actor*."""
        actor.last_active = self._clock.monotonic()
        self._touch(actor)
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
            node=self.id,
            principal=principal,
            store=self._store,
            find_committer=lambda: self._committers.of(self._outages.part_of(session.id)),
            fence=fence,
            responder=self._responder,
            clock=self._clock,
            limits=self.limits.actor,
            find_outage=lambda: self._outages.of(session.id),
            spawn=self._tasks.spawn,
            on_change=self._on_change,
            on_response=self._on_response,
            on_refusal=self._on_refusal,
            on_run=self._on_run,
            on_owner=self._ownership.on_owner,
            is_leaving=lambda: self.is_handing_over,
            opened=opened,
            is_owner=is_owner,
        )

    # A store that is out of reach.

    @property
    def is_store_lost(self) -> bool:
        """Whether the store failed when it was last asked."""
        return self._outages.is_any_on or self._cluster.is_cut_off

    @property
    def unsaved(self) -> int:
        """How many sessions go on without the store."""
        return sum(not actor.feed.is_durable for actor in self.hub) if self._outages.is_any_on else 0

    def _on_change(self, actor: Actor) -> None:
        self.hub.account(actor)
        self._listing.note(actor)
        self._touch(actor)
        self._ownership.settle(actor)

    def _touch(self, actor: Actor) -> None:
        if self.is_draining:
            self._touched.add(actor)
        self._changed.set()

    def now(self) -> float:
        """Return the time by the node's clock, in seconds."""
        return self._clock.monotonic()

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Call *callback* in *delay* seconds."""
        self._clock.call_later(delay, callback)

    @property
    def commits_waiting(self) -> int:
        """How many sessions wait for the store to write what they have produced."""
        return len(self._committers)

    # Forgetting.

    def _begin_sweep(self) -> None:
        if self._tasks.is_open:
            self._sweeper = self._clock.call_later(self.limits.sweep_interval, self._begin_sweep)
            self._tasks.spawn(self.sweep())

    async def sweep(self) -> None:
        """Forget the sessions that have been idle for too long."""
        now = self._clock.monotonic()
        for actor in self.hub:
            limit = self.limits.rest(is_shared=self._store.is_shared, is_empty=not actor.is_opened)
            if actor.feed.ended is not None and not len(actor.feed):
                self._ownership.bury(actor)
            elif actor.is_opened and actor.outage.is_on:
                pass  # it couldn't be told, and who comes back could be given the session by nobody
            elif actor.is_dropped or now - actor.last_active >= limit:
                await self._give_up(actor)

    # Shutting down.

    def begin_drain(self) -> None:
        """Take no new work, and let connections go.

        Where other nodes are there to go to, they end soon, one after another, also while a response runs:
        it is followed from there. Otherwise as soon as their sessions have nothing left to say. Whether there
        are any is looked at after a moment, and again and again: several nodes may be told to end at once.
        """
        self.draining_since = self.now()
        self.is_draining = self._ownership.is_leaving = True
        self._withdraw()
        if self.limits.handover_delay:
            self._clock.call_later(self.limits.handover_delay, self._hand_over)
        else:
            self._hand_over()
        for actor in self.hub:
            actor.feed.publish()

    def _hand_over(self) -> None:
        """Begin to send what is here to other nodes, if there are any that stay."""
        is_time = self.now() - self.draining_since >= self.limits.handover_delay
        if not self.is_draining or self.is_handing_over or not is_time:
            return
        self.is_handing_over = self._store.is_shared and self._cluster.has_others
        if self.is_handing_over:
            self.departures.begin(self.hub.connections)
            for actor in self.hub:
                actor.feed.publish()
        self._changed.set()

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
            self._tasks.spawn(self._cluster.withdraw(is_draining=self.is_draining))

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
                self._tasks.spawn(self._ownership.leave(actor))
            elif actor.is_owner:
                actor.interrupt()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.actor.run.stop_timeout + _TELLING_TIMEOUT):
                await self.settled()

    @property
    def is_settled(self) -> bool:
        """Whether nothing runs, nobody is connected, and what other nodes can have is theirs."""
        if self._store.is_shared and (len(self.hub) or len(self._ownership.returns)):
            return False  # first: it is asked often, and the rest walks through all
        return not (self.hub.is_busy or self.hub.connections)

    async def settled(self) -> None:
        """Wait for that while the node drains. One task at a time may."""
        task = asyncio.current_task()
        assert task is not None
        seen_all = float("-inf")
        while not self.is_settled:
            self._changed.clear()
            touched, self._touched = self._touched, set()
            if self.now() - seen_all >= _LOOKED_AT_ALL:  # else a departure would cost as much as all sessions
                self._hand_over()
                touched, seen_all = set(self.hub), self.now()
                self._clock.call_later(_LOOKED_AT_ALL, self._changed.set)
            for actor in touched:
                if not self.hub.holds(actor):
                    continue
                actor.feed.publish()
                if actor.feed.ended is not None and not len(actor.feed):
                    self._ownership.bury(actor)
                elif self._store.is_shared and (actor.is_idle or self._is_for_the_next(actor)):
                    await self._give_up(actor)
                    if task.cancelling():  # the store's client may take a cancellation for its own, and go on
                        raise asyncio.CancelledError
            if not (self._changed.is_set() or self.is_settled):
                await self._changed.wait()

    def _is_for_the_next(self, actor: Actor) -> bool:
        return self.is_handing_over and not len(actor.feed) and actor.is_for_the_next

    async def _give_up(self, actor: Actor) -> None:
        """Forget *actor*, or try again in a while: somebody else is to find it free."""
        try:
            if self._is_for_the_next(actor):
                await self._ownership.leave(actor)
            else:
                await self._ownership.forget(actor)
        except StoreUnavailable:
            self._clock.call_later(_GIVEN_UP_AGAIN, lambda: self._touch(actor))

    def __repr__(self) -> str:
        return f"<Node {self.id} {len(self.hub)} sessions>"
