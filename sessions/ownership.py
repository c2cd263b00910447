"""Which sessions a node owns, which it only follows, and how that changes.

- A session that nobody owns, or whose owner is dead, is taken by the node that a connection comes to.
- One that is owned elsewhere is followed: its log is read, its connections are
  shown what the owner writes, and the owner is told of the wish to own it. The
  owner passes it on when nothing runs and it has no connections of its own.
- A dead node's sessions are taken by those that follow them, and the ones with
  something to do that nobody follows by whoever comes first; likewise what nobody owns, after a while,
  and what a store that has lost something says to be a node's that knows nothing of it.
- One that is idle is released after a while, so that it costs its node nothing.

Taking is a compare-and-set in the store. Whatever this node believes of
others, the store's fence keeps a session's outputs from having two authors.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from itertools import chain
from typing import Any, Final

import structlog

from unbroken.sessions.actor import Actor, MakeActor
from unbroken.sessions.backends.base import NOBODY, Fence, Opened, SessionStore
from unbroken.sessions.backends.cluster import Cluster
from unbroken.sessions.caps import Caps
from unbroken.sessions.clock import Clock
from unbroken.sessions.erasing import Erasing
from unbroken.sessions.errors import (
    CursorLost,
    Fenced,
    LostTail,
    NodeDraining,
    SessionGone,
    SessionNotFound,
    StoreBusy,
    StoreError,
    StoreUnavailable,
    UnknownFormat,
)
from unbroken.sessions.event_log import EventLog
from unbroken.sessions.gates import Gates
from unbroken.sessions.hub import Hub
from unbroken.sessions.ids import NodeId, SessionId
from unbroken.sessions.keeping import Keeping
from unbroken.sessions.outages import Outages
from unbroken.sessions.poll_order import PollOrder
from unbroken.sessions.returns import Returns
from unbroken.sessions.search import Search
from unbroken.sessions.session import Session, SessionLimits
from unbroken.sessions.unopened import Unopened
from unbroken.sessions.wishes import Wishes

__all__ = ["Ownership"]

_READ_LIMIT: Final = 4096

_LOADS: Final = 5
"""How often a session is loaded anew when it changes hands, or is compacted, at that very moment."""

_VERIFIED_AT_ONCE: Final = 64
"""Sessions that are compared with the store before anything else gets its turn."""

_BLIND: Final = 10.0
"""Seconds after which those who are connected to a session that is followed are sent away, if the store is
out of reach: its owner may be well, and say more and more that isn't seen here.
"""

_SILENT: Final = frozenset(2**n for n in range(1, 16))
"""Polls without a piece of a response that runs elsewhere, after which its owner is told once more that it is
waited for: it may not know that it is the owner. A model that thinks for long isn't asked for all the while.
"""

_PASSED_OVER: Final = 64
"""Dead nodes that one which drains remembers, for the case that it stays after all."""

_SEARCHED_AFTER: Final = 30
"""Polls after which sessions are looked for that have something to do and no owner, or a dead one: a node
that drained may have left them, and nobody may have followed them.
"""

_FIRST_SEARCH: Final = 4
"""Polls after which that is done first: those who knew that a node had died may have died with it, before
this one was there.
"""


class Ownership:
    """A node's part in who owns what: what the node is told of, as a Neighbour of others, comes here."""

    def __init__(
        self,
        node: NodeId,
        *,
        store: SessionStore,
        cluster: Cluster,
        hub: Hub,
        caps: Caps,
        clock: Clock,
        limits: SessionLimits,
        lifetime: float,
        make: MakeActor,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        outages: Outages,
        on_change: Callable[[], None],
        on_kept: Callable[[Actor], None],
    ) -> None:
        self._node = node
        self._store = store
        self._cluster = cluster
        self._hub = hub
        self._caps = caps
        self._limits = limits
        self._make = make
        self._spawn = spawn
        self._polls = 0
        self._order = PollOrder()
        self._outages = outages
        self._keeping = Keeping(store, clock, spawn=spawn, lifetime=lifetime, on_kept=on_kept)
        self._wishes = Wishes(cluster, spawn, self._wants)
        self._gates = Gates()
        self._moving = self._gates.through
        self.returns: Final = Returns(
            node,
            store,
            clock,
            moving=self._moving,
            is_live=lambda session_id: self.live(session_id) is not None,
            spawn=spawn,
            on_done=on_change,
        )
        """What is the node's by the store alone."""
        self.unopened: Final = Unopened(
            store, hub, moving=self._moving, spawn=spawn, on_gone=self.returns.add
        )
        """What is empty here, and may not be elsewhere."""
        self.erasing: Final = Erasing(store, hub, self._moving)
        self._search = Search(
            node,
            store=store,
            cluster=cluster,
            clock=clock,
            known=lambda: {actor.session.id for actor in hub if actor.feed.ended is None and actor.is_opened},
            at_work=lambda: {actor.session.id for actor in hub if actor.is_owner and actor.session.is_busy},
            look=self._look_at,
            load=self.load,
            may_take=lambda: not self.is_leaving,
            spawn=spawn,
        )
        self.is_leaving = False
        """Whether this node gives its sessions up, and takes none."""
        self._passed_over: deque[NodeId] = deque(maxlen=_PASSED_OVER)  # that died while it did so

    # Sessions come.

    async def load(self, session_id: SessionId) -> Actor:
        """Return the session that the store holds and this node doesn't run yet: owned, or followed.

        While its part of the store is out of reach that isn't asked: all who come would wait, and for long.

        Raises:
            SessionNotFound: There is none.
            StoreUnavailable: The store can't be reached.
            UnknownFormat: It was written by a later release. It is nobody's then, for others to take.
            NodeDraining: The node leaves, and has just given it up.

        """
        if (actor := self.live(session_id)) is not None:
            await self.unopened.check(actor)
        outage = self._outages.of(session_id)
        async with self._moving(session_id):
            if (actor := self.live(session_id)) is not None:
                return actor
            self._hub.clear(session_id)  # what had to be given up
            if outage.is_on:
                raise StoreUnavailable
            try:
                actor = await self._load(session_id)
            except (SessionGone, Fenced, LostTail):
                raise SessionNotFound from None
            except UnknownFormat as exc:
                log = structlog.get_logger()
                log.error("session can't be read", session_id=session_id, node_id=self._node, reason=str(exc))
                self._search.shun(session_id)
                try:
                    await self.returns.give(session_id)
                except StoreUnavailable:
                    self.returns.add(session_id)
                raise
            except StoreUnavailable as exc:  # by the store it may be this node's by now
                self._outages.note_unread(session_id, exc)
                self.returns.add(session_id)
                raise
            self._outages.note_read(session_id)
            return actor

    async def begin(self, session_id: SessionId, make: Callable[[], Actor]) -> Actor | None:
        """Have what *make* makes, a session that is empty; None: one of that id has come here meanwhile."""
        async with self._moving(session_id):  # it may be just coming
            if self.live(session_id) is not None:
                return None
            self._hub.clear(session_id)  # what had to be given up
            actor = make()
            self._hub.add(actor)
            return actor

    def live(self, session_id: SessionId) -> Actor | None:
        """Return the session that this node runs or follows; None: it doesn't, or had to give it up."""
        actor = self._hub.get(session_id)
        return None if actor is None or actor.feed.ended is not None else actor

    async def _load(self, session_id: SessionId) -> Actor:
        actor = await self._replica(session_id)
        actor.is_dropped = self.is_leaving and not actor.is_owner  # whoever comes, comes for a moment
        self._hub.add(actor)
        if not actor.is_dropped:
            actor.look()  # what has come since it was read, with nobody here to be told
        log = structlog.get_logger()
        log.debug("session loaded", session_id=session_id, node_id=self._node, is_owner=actor.is_owner)
        if not actor.is_owner:
            await self._cluster.watch(actor.fence.node)
            self._wishes.add(actor.fence.node, session_id)  # what they are told by may be out of reach
        return actor

    async def _replica(self, session_id: SessionId) -> Actor:
        for _ in range(_LOADS - 1):
            with suppress(SessionGone, LostTail):
                return await self._read(session_id, await self._open(session_id))
        return await self._read(session_id, await self._open(session_id))

    async def _open(self, session_id: SessionId) -> Opened:
        """Acquire the session, or else follow it."""
        if not self._store.is_shared:
            return await self._store.acquire(session_id, self._node)
        opened = await self._store.follow(session_id, self._node)  # so that nothing is missed from here on
        if self.is_leaving and opened.fence.node == self._node:
            self.returns.add(session_id)  # the store hasn't heard yet that it was left
            raise NodeDraining
        if await self._is_still_free(opened.fence):
            with suppress(Fenced):  # somebody else was faster
                opened = await self._store.acquire(session_id, self._node, seen=opened.fence)
        return opened

    def _is_free(self, fence: Fence) -> bool:
        if self.is_leaving:
            return False
        return fence.node in (NOBODY, self._node) or self._cluster.is_lost(fence.node)

    async def _is_still_free(self, fence: Fence) -> bool:
        if not self._is_free(fence):
            return False
        return fence.node in (NOBODY, self._node) or await self._cluster.is_still_lost(fence.node)

    async def _read(self, session_id: SessionId, opened: Opened) -> Actor:
        """Rebuild the session from its snapshot and its log.

        A snapshot of what the log doesn't hold is of a branch that the store has lost: a release that didn't
        compare them may have left it. It is all that is known of what the log has forgotten, so the owner
        goes on from it, as a new log: whoever saw the old one starts over.
        """
        fence, snapshot = opened.fence, opened.snapshot
        if snapshot is None:
            session = Session(session_id, self._limits)
        else:
            session = Session.restore(session_id, self._limits, snapshot.data)
        log = EventLog(fence.incarnation, floor=opened.floor, floor_nonce=opened.floor_nonce)
        is_end = False
        while not is_end:
            page = await self._store.read(session_id, log.position(log.head), _READ_LIMIT)
            is_end = page.is_end
            for entry in page.entries:
                log.append(entry)
                if entry.seq > session.applied:
                    session.apply(entry)
        session.consume(opened.consumed)
        if session.principal is None:
            raise SessionGone(session_id)
        is_owner = fence.node == self._node
        is_lost = snapshot is not None and not snapshot.is_of(log)
        if is_lost and not is_owner:
            raise StoreBusy  # of this session: its owner sets it right
        if snapshot is not None and snapshot.seq > log.head:
            log = EventLog(fence.incarnation, floor=snapshot.seq, floor_nonce=snapshot.nonce)
        actor = self._make(session, log, session.principal, fence, opened=True, is_owner=is_owner)
        if log.deleted_at > log.floor:
            actor.forget_deleted()  # whoever had it before was lost, or left, too soon
        if is_lost:
            structlog.get_logger().warning("snapshot not of its log", session_id=session_id)
            actor.begin_anew()
        return actor

    def _wants(self, owner: NodeId, session_id: SessionId) -> bool:
        actor = self.live(session_id)
        return not (self.is_leaving or actor is None or actor.is_owner) and actor.fence.node == owner

    # Ownership changes.

    def on_owner(self, actor: Actor) -> None:
        """See to what follows from a change of a session's owner, as far as it is known here."""
        self._hub.account(actor)  # its responses are that one's
        with suppress(NodeDraining):
            if actor.is_owner:
                return
            if self._is_free(actor.fence):
                self._spawn(self._take(actor))
            else:
                self._spawn(self._follow(actor))

    async def _take(self, actor: Actor) -> None:
        """Become the owner of a session that is followed, unless somebody else is faster."""
        session_id = actor.session.id
        async with self._moving(session_id):
            if actor.is_owner or self.live(session_id) is not actor or not self._is_free(actor.fence):
                return
            with suppress(StoreUnavailable):  # the next poll tries again
                if not await self._is_still_free(actor.fence):
                    return  # likewise: it follows then
                try:
                    opened = await self._store.acquire(session_id, self._node, seen=actor.fence)
                except (Fenced, SessionGone):
                    actor.look()
                    return
                if not actor.can_go_on(opened):  # it was cut off for long
                    actor.let_go(CursorLost())
                    self._hub.remove(actor)
                    with suppress(SessionNotFound, SessionGone, Fenced, LostTail, UnknownFormat):
                        await self._load(session_id)
                    return
                actor.promote(opened)
                self._hub.account(actor)  # its responses are this node's
                structlog.get_logger().info("session taken", session_id=session_id, node_id=self._node)

    async def _follow(self, actor: Actor) -> None:
        """Be told of what happens to a session that is another node's."""
        session_id = actor.session.id
        async with self._moving(session_id):  # who takes it meanwhile follows it no more
            if actor.is_owner or self.live(session_id) is not actor:
                return
            with suppress(StoreUnavailable, SessionGone):
                opened = await self._store.follow(session_id, self._node)
                owner = opened.fence.node
                if owner != self._node:
                    await self._cluster.watch(owner)
        actor.look()

    def settle(self, actor: Actor) -> None:
        """Pass a session on to the node that would rather have it, if nothing keeps it here.

        One that nobody comes back to is forgotten then.
        """
        if actor.is_dropped and actor.is_idle and self._hub.holds(actor):
            with suppress(NodeDraining):
                self._spawn(self.forget(actor))
        elif actor.wanted_by is not None and self._can_go(actor):
            with suppress(NodeDraining):
                self._spawn(self._pass_on(actor, actor.wanted_by))

    @staticmethod
    def _can_go(actor: Actor) -> bool:
        return actor.is_owner and actor.is_opened and actor.is_idle and actor.feed.ended is None

    async def _pass_on(self, actor: Actor, to: NodeId) -> None:
        """Give up a session that is idle, to *to*."""
        async with self._moving(actor.session.id):
            if self._hub.get(actor.session.id) is not actor or not self._can_go(actor):
                return
            self._hub.remove(actor)  # whoever connects in this moment loads it anew
            try:
                await self._store.release(actor.session.id, actor.fence, to=to)
            except Fenced:
                pass
            except StoreUnavailable as exc:
                self._owe(actor, exc, to)
            finally:
                actor.let_go(CursorLost())  # what it still waits for must not wake it, beside another one

    # Sessions go.

    async def forget(self, actor: Actor) -> None:
        """Forget a session, unless it isn't idle (any more). One that others may hold stays in the store.

        Raises:
            StoreUnavailable: This node leaves, and couldn't give the session up: it still has it.

        """
        session_id = actor.session.id
        async with self._moving(session_id):
            if not actor.is_idle or self._hub.get(session_id) is not actor:
                return
            try:
                await self._forget(actor)
            finally:
                if not self._hub.holds(actor):
                    actor.let_go(CursorLost())  # as in _pass_on

    async def _forget(self, actor: Actor) -> None:
        if not actor.is_opened:
            self._hub.remove(actor)
        elif self.is_leaving:  # nobody else comes here
            with suppress(Fenced):
                await self._give_up(actor)
            self._hub.remove(actor)
        elif actor.outage.is_on:  # whoever needs its room isn't kept waiting for a store that is gone
            self._hub.remove(actor)
            self.returns.add(actor.session.id)
        else:
            self._hub.remove(actor)  # whoever connects in this moment loads it anew
            try:
                await self._give_up(actor)
            except Fenced:
                pass
            except StoreUnavailable as exc:
                self._owe(actor, exc)
            except (LostTail, SessionGone):  # the store has lost what is here
                self._hub.add(actor)
                actor.look()

    async def _give_up(self, actor: Actor) -> None:
        session_id = actor.session.id
        if not self._store.is_shared:
            await self._store.delete(session_id, actor.fence)
        elif actor.is_owner:
            # A node that leaves has its clients on their way to another one.
            if not self.is_leaving or actor.owes_forgetting:
                await actor.shrink()
            await self._store.release(session_id, actor.fence)
        else:
            await self._store.unfollow(session_id, self._node)
            await self.returns.give(session_id)  # it may have been passed on to this node, which hasn't heard

    def _owe(self, actor: Actor, why: StoreUnavailable, to: NodeId = NOBODY) -> None:
        """Have the store be told later that a session was given up here: it may not have heard of it."""
        actor.find_part()  # which may only be known by this failure
        actor.outage.note_failure(actor.session.id, why)
        self.returns.add(actor.session.id, to)

    def bury(self, actor: Actor) -> None:
        """Forget a session that this node couldn't go on with: what the store holds is for others to take.

        But not what was a bug here: the same would happen there. It stays with this node until somebody asks.
        """
        self._hub.remove(actor)
        if not (self._store.is_shared and actor.is_opened):
            return
        if isinstance(actor.feed.ended, CursorLost | NodeDraining | StoreError):
            self.returns.add(actor.session.id)
        else:
            self._search.shun(actor.session.id)

    async def leave(self, actor: Actor) -> None:
        """Give up a session with what runs in it, for another node to go on."""
        session_id = actor.session.id
        async with self._moving(session_id):
            if self._hub.get(session_id) is not actor or not actor.is_owner:
                return
            actor.let_go(NodeDraining())
            self._hub.remove(actor)
            try:
                await self._store.release(session_id, actor.fence)
            except Fenced:
                pass
            except StoreUnavailable:
                self.returns.add(session_id)

    # What other nodes tell.

    def on_news(self, session_ids: Iterable[SessionId]) -> None:
        """See :meth:`Neighbour.on_news`."""
        for session_id in session_ids:
            if (actor := self._hub.get(session_id)) is not None:
                self.look(actor)
            else:
                self.returns.add(session_id)

    def on_wish(self, session_id: SessionId, by: NodeId) -> None:
        """See :meth:`Neighbour.on_wish`."""
        actor = self.live(session_id)
        if actor is None:
            self.returns.add(session_id, by)
        elif actor.is_owner:
            actor.wanted_by = by
            self.look(actor)  # it may have missed an input that is waited for there
            self.settle(actor)

    def on_lost(self, node: NodeId) -> None:
        """See :meth:`Neighbour.on_lost`."""
        structlog.get_logger().warning("node lost", lost=node, node_id=self._node)
        for actor in self._hub:
            if not actor.is_owner and actor.fence.node == node:
                self.on_owner(actor)
        if self.is_leaving:
            self._passed_over.append(node)
        else:
            self._search.adopt_soon(node)

    def stay(self) -> None:
        """Take sessions again, also those of nodes that died meanwhile: nobody tells of them twice."""
        self.is_leaving = False
        while self._passed_over:
            self._search.adopt_soon(self._passed_over.popleft())

    def on_gap(self) -> None:
        """See :meth:`Neighbour.on_gap`."""
        self._caps.renew()
        with suppress(NodeDraining):
            self._spawn(self.verify())

    async def verify(self, part: str | None = None) -> None:
        """Compare what is here with the store, which was out of reach, and may have lost something.

        With *part*, that part of it alone.
        """
        outage = None if part is None else self._outages.of_part(part)
        for number, actor in enumerate(self._hub):
            if actor.feed.ended is not None or not actor.is_opened or outage not in (None, actor.outage):
                continue
            if outage is not None:
                actor.find_part()  # what was half moved is whole again, and with the rest of its server
            self._verify(actor)
            if number % _VERIFIED_AT_ONCE == 0:
                await asyncio.sleep(0)
        if self._store.is_shared:
            self._search.begin_soon()

    def _verify(self, actor: Actor) -> None:
        if not actor.is_owner:
            actor.note_blindness()
            self.look(actor)
            self._look_after(actor)
        elif actor.feed.is_durable:
            self.look(actor)
        else:
            with suppress(NodeDraining):
                actor.rejoin()

    def on_poll(self) -> None:
        """See :meth:`Neighbour.on_poll`."""
        self._polls += 1
        if self._polls % _SEARCHED_AFTER == _FIRST_SEARCH:
            self._search.begin()
        followed: list[Actor] = []
        owned: list[Actor] = []
        empty: list[Actor] = []
        for actor in self._hub:
            if actor.feed.ended is not None:
                continue
            if actor.is_opened:
                (owned if actor.is_owner else followed).append(actor)
            elif len(actor.feed):
                empty.append(actor)
        self.unopened.poll(empty)
        self._keeping.poll(chain(owned, followed))
        seeing: list[Actor] = []
        for actor in followed:
            if actor.outage.lasts_for(_BLIND) and not actor.find_part():
                actor.let_go(StoreUnavailable())
                continue
            actor.note_poll()
            actor.note_blindness()
            self._look_after(actor)
            seeing.append(actor)
        for actor in chain(self._order.followed(seeing), self._order.owned(owned)):
            if actor.feed.ended is not None:
                continue
            if actor.outage.is_on and actor.find_part():
                self._verify(actor)  # its part may be well
            elif not (actor.is_owner or actor.is_told):
                self.on_owner(actor)  # it registers again, and looks: that was lost, or came to nothing
            else:
                self.look(actor)

    def _look_at(self, session_id: SessionId) -> None:
        if (actor := self.live(session_id)) is not None:
            self.look(actor)

    def _look_after(self, actor: Actor) -> None:
        """See to a session that is followed, in case that something told about it was lost."""
        if self._is_free(actor.fence):  # nobody took it, or the store couldn't be reached
            self.on_owner(actor)
        elif actor.session.has_inputs or (actor.session.is_running and actor.silence in _SILENT):
            # Its owner may not know of them; or, if nothing comes, that it is the owner.
            self._wishes.add(actor.fence.node, actor.session.id)

    def look(self, actor: Actor) -> None:
        """Have what others have written of a session be read, if there may be others."""
        if not self._store.is_shared:
            return
        if not actor.is_opened:
            self.unopened.check_soon(actor)
            return
        with suppress(NodeDraining):
            actor.look()
