"""How a session stands by its store, for who only looks at it: nothing is taken, followed or changed."""

from __future__ import annotations

from typing import Final

from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.errors import LostTail, SessionDeleted, SessionGone
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import SessionId
from unbroken.sessions.session import Session, SessionLimits

__all__ = ["look_at"]

_READ_LIMIT: Final = 4096

_LOOKS: Final = 3
"""How often it is read anew when it changes at that very moment."""


async def look_at(store: SessionStore, session_id: SessionId, limits: SessionLimits) -> Session:
    """Return the session as the store holds it.

    Raises:
        SessionGone: There is none, or it has but begun, and nobody knows whose it is.
        LostTail: The store loses something at this moment.
        UnknownFormat: A later release has written it.
        StoreUnavailable: The store can't be reached.

    """
    for _ in range(_LOOKS - 1):
        try:
            return await _read(store, session_id, limits)
        except SessionDeleted:
            raise
        except (SessionGone, LostTail):
            pass
    return await _read(store, session_id, limits)


async def _read(store: SessionStore, session_id: SessionId, limits: SessionLimits) -> Session:
    opened = await store.inspect(session_id)
    snapshot = opened.snapshot
    if snapshot is None:
        session = Session(session_id, limits)
    else:
        session = Session.restore(session_id, limits, snapshot.data)
    place = Position(opened.fence.incarnation, opened.floor, opened.floor_nonce)
    is_end = False
    while not is_end:
        page = await store.read(session_id, place, _READ_LIMIT)
        is_end = page.is_end
        for entry in page.entries:
            place = Position(place.incarnation, entry.last, entry.nonce)
            if entry.seq > session.applied:
                session.apply(entry)
    session.consume(opened.consumed)
    if session.principal is None:
        raise SessionGone(session_id)
    return session
