"""How a session that went on without its store comes back to it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog
from msgspec import Struct

from unbroken.sessions.backends.base import Fence, SessionStore
from unbroken.sessions.entries import Entry, Submitted
from unbroken.sessions.errors import Fenced, LostTail, SessionDeleted, SessionGone, Unseen
from unbroken.sessions.event_log import EventLog, Position
from unbroken.sessions.ids import NodeId, SessionId, new_incarnation
from unbroken.sessions.replica import Replica
from unbroken.sessions.ring import Anew, Ring

__all__ = ["Settled", "is_still_of", "settle"]

_READ_LIMIT: Final = 4096

_LOOKS: Final = 8
"""How often what others have written is read again, because they have written more."""


class Settled(Struct, frozen=True):
    """What became of what was written alone."""

    fence: Fence
    rest: Ring
    """What came meanwhile, and isn't in the store yet."""
    log: EventLog | None = None
    """Set: the log was begun anew."""
    foreign: list[Submitted] = []
    """Inputs that others had written to a log that was begun anew: they have to follow, behind *rest*."""

    @property
    def is_all(self) -> bool:
        """Whether the store holds everything."""
        return self.log is None and not self.rest.entries


async def is_still_of(store: SessionStore, session_id: SessionId, node: NodeId) -> bool:
    """Return whether a session that *node* owned still is its own: the store names it, or knows of nothing.

    Raises:
        SessionDeleted: It is nobody's any more.
        StoreUnavailable: It can't be reached.

    """
    try:
        return (await store.inspect(session_id)).fence.node == node
    except SessionDeleted:
        raise
    except SessionGone:
        return True


async def settle(store: SessionStore, replica: Replica, fence: Fence, ring: Ring) -> Settled:
    """Have the store take what is in *ring*: behind what it holds, or else as a new log.

    May be called again with *ring* after it failed. As long as it isn't done, *ring* may grow.

    Raises:
        Fenced: Another node owns the session.
        SessionDeleted: It was deleted meanwhile.
        StoreUnavailable: It is still out of reach. What was asked for may have been done.

    """
    if ring.anew is None:
        rest = await _give_back(store, replica, fence, ring)
        if rest is not None:
            return Settled(fence, rest)
    return await _begin_anew(store, replica, fence, ring)


async def _give_back(store: SessionStore, replica: Replica, fence: Fence, ring: Ring) -> Ring | None:
    """Have the store take what is in *ring* so far, and return the rest: what came meanwhile.

    None: the store has lost what it had confirmed, which incarnation it was of, or when it became the
    owner's, among that. Or it holds more than the owner knows.
    """
    entries, turns = list(ring.entries), list(ring.finished)
    place = _behind(entries, ring, replica.log)
    session_id = replica.session.id
    try:
        await store.rejoin(
            session_id,
            fence,
            ring.after,
            ring.consumed,
            entries,
            is_busy=replica.session.is_running,
            finished=turns,
        )
    except LostTail:
        try:  # or only the answer was lost
            await store.read(session_id, place, 1)
        except (LostTail, SessionGone):
            return None
    except SessionGone:
        return None
    except Fenced:
        if not await is_still_of(store, session_id, fence.node):
            raise
        return None
    return ring.confirm(len(entries), place, turns=len(turns))


def _behind(entries: Sequence[Entry], ring: Ring, log: EventLog) -> Position:
    if not entries:
        return ring.after
    return Position(log.incarnation, entries[-1].last, entries[-1].nonce)


async def _begin_anew(store: SessionStore, replica: Replica, fence: Fence, ring: Ring) -> Settled:
    """Have the store hold the session as it is here, with what others have written."""
    for _ in range(_LOOKS):
        if ring.anew is None:
            found = await _foreign(store, replica, ring)
            foreign, head = found or ([], None)
            ring.anew = Anew(new_incarnation(), foreign, keeps_keys=found is not None, head=head)
        with suppress(Unseen):  # others have written more: else that would be lost, and its names known
            return await _reseed(store, replica, fence, ring, ring.anew)
        ring.anew = None
    ring.anew = Anew(new_incarnation(), [], keeps_keys=False)
    return await _reseed(store, replica, fence, ring, ring.anew)


async def _reseed(store: SessionStore, replica: Replica, fence: Fence, ring: Ring, anew: Anew) -> Settled:
    session, snapshot = replica.session, replica.snapshot()
    place = Position(anew.incarnation, snapshot.seq, snapshot.nonce)
    keys = {seq: key for seq, key in replica.keys().items() if seq <= snapshot.seq}
    turns = len(ring.finished)
    # With its log, the store may have lost what its outbox held of the turns before.
    finished = [*replica.ended_of_late, *ring.finished]

    async def reseed(proof: Fence) -> Fence:
        return await store.reseed(
            session.id,
            proof,
            anew.incarnation,
            snapshot,
            keys,
            keeps_keys=anew.keeps_keys,
            is_busy=session.is_busy or bool(anew.foreign),
            head=anew.head,
            finished=finished,
            metadata=session.config.metadata or {},
        )

    try:
        fence = await reseed(fence)
    except Fenced:
        found = await store.inspect(session.id)
        if found.fence.node != fence.node:
            raise
        if found.fence.incarnation == anew.incarnation:  # only the answer was lost
            fence, place = found.fence, place._replace(seq=found.floor, nonce=found.floor_nonce)
            turns = 0  # what has ended since wasn't with what was done: all of it comes once more
        else:  # by a store that has lost how it became this node's
            fence = await reseed(found.fence)
    structlog.get_logger().warning("log begun anew", session_id=session.id, inputs=len(anew.foreign))
    log = EventLog(place.incarnation, floor=place.seq, floor_nonce=place.nonce)
    late = [entry for entry in ring.entries if entry.seq > place.seq]  # what came meanwhile
    for entry in late:
        log.append(entry)
    rest = ring.confirm(len(ring.entries) - len(late), place, turns=turns)
    return Settled(fence, rest, log, anew.foreign)


async def _foreign(
    store: SessionStore, replica: Replica, ring: Ring
) -> tuple[list[Submitted], Position] | None:
    """Return the inputs in the store's log that aren't in *replica*'s, and where it ends; None: they can't
    be told.
    """
    log = replica.log
    for place in (ring.after, log.position(log.floor)):
        with suppress(LostTail, SessionGone):
            entries, end = await _behind_place(store, replica.session.id, place)
            foreign = [
                entry.body for entry in entries if isinstance(entry.body, Submitted) and not log.holds(entry)
            ]
            return foreign, end
    return None


async def _behind_place(
    store: SessionStore, session_id: SessionId, place: Position
) -> tuple[list[Entry], Position]:
    entries: list[Entry] = []
    is_end = False
    while not is_end:
        page = await store.read(session_id, place, _READ_LIMIT)
        is_end = page.is_end
        if page.entries:
            entries += page.entries
            place = Position(place.incarnation, entries[-1].last, entries[-1].nonce)
    return entries, place
