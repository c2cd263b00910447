"""How a session that went on without its store comes back to it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from unbroken.sessions.backends.base import Fence, SessionStore
from unbroken.sessions.entries import Entry, Submitted
from unbroken.sessions.errors import LostTail, SessionGone
from unbroken.sessions.event_log import EventLog, Position
from unbroken.sessions.ids import SessionId, new_incarnation
from unbroken.sessions.replica import Replica
from unbroken.sessions.ring import Ring

__all__ = ["begin_anew", "give_back"]

_READ_LIMIT: Final = 4096


async def give_back(store: SessionStore, replica: Replica, fence: Fence, ring: Ring) -> Ring | None:
    """Have the store take what is in *ring* so far, and return the rest: what came meanwhile.

    None: the store has lost what it had confirmed, or holds more than the owner knows.

    Raises:
        Fenced: Another node owns the session.
        StoreUnavailable: It is still out of reach. What was asked for may have been done.

    """
    entries = list(ring.entries)
    place = _behind(entries, ring, replica.log)
    session_id = replica.session.id
    try:
        await store.rejoin(session_id, fence, ring.after, ring.consumed, entries)
    except LostTail:
        try:  # or only the answer was lost
            await store.read(session_id, place, 1)
        except (LostTail, SessionGone):
            return None
    except SessionGone:
        return None
    return ring.confirm(len(entries), place)


def _behind(entries: Sequence[Entry], ring: Ring, log: EventLog) -> Position:
    if not entries:
        return ring.after
    return Position(log.incarnation, entries[-1].last, entries[-1].nonce)


async def begin_anew(
    store: SessionStore, replica: Replica, fence: Fence, ring: Ring
) -> tuple[Fence, EventLog, Ring, list[Submitted]]:
    """Have the store hold the session as it is here.

    Returns the new fence, the log as it is now, what of *ring* the store doesn't hold yet, and the
    inputs that others had written: whoever sent them was told that they are in the log.

    Raises:
        Fenced: Another node owns the session.
        StoreUnavailable: It is out of reach again.

    """
    session = replica.session
    foreign = await _foreign(store, replica, ring)
    snapshot = replica.snapshot()
    keeps_keys = foreign is not None  # else what was sent under them may be lost, and has to be sent again
    keys = {seq: key for seq, key in replica.keys().items() if seq <= snapshot.seq}
    fence = await store.reseed(session.id, fence, new_incarnation(), snapshot, keys, keeps_keys=keeps_keys)
    inputs = foreign or []
    structlog.get_logger().warning("log begun anew", session_id=session.id, inputs=len(inputs))
    log = EventLog(fence.incarnation, floor=snapshot.seq, floor_nonce=snapshot.nonce)
    late = [entry for entry in ring.entries if entry.seq > snapshot.seq]  # inputs that came meanwhile
    for entry in late:
        log.append(entry)
    after = Position(fence.incarnation, snapshot.seq, snapshot.nonce)
    return fence, log, ring.confirm(len(ring.entries) - len(late), after), inputs


async def _foreign(store: SessionStore, replica: Replica, ring: Ring) -> list[Submitted] | None:
    """Return the inputs in the store's log that aren't in *replica*'s; None: they can't be told."""
    log = replica.log
    for place in (ring.after, log.position(log.floor)):
        with suppress(LostTail, SessionGone):
            return [
                entry.body
                for entry in await _behind_place(store, replica.session.id, place)
                if isinstance(entry.body, Submitted)
                and not (log.floor < entry.seq <= log.head and log.nonce_at(entry.seq) == entry.nonce)
            ]
    return None


async def _behind_place(store: SessionStore, session_id: SessionId, place: Position) -> list[Entry]:
    entries: list[Entry] = []
    while page := (await store.read(session_id, place, _READ_LIMIT)).entries:
        entries += page
        place = Position(place.incarnation, page[-1].last, page[-1].nonce)
    return entries
