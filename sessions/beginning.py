"""How a session begins in its store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unbroken.sessions.backends.base import Append, Fence, SessionStore
from unbroken.sessions.entries import Entry, SessionOpened
from unbroken.sessions.errors import (
    CursorLost,
    Fenced,
    LostTail,
    SessionDeleted,
    SessionGone,
    StoreError,
    StoreUnavailable,
    Unseen,
)
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import Nonce, SessionId

__all__ = ["begin"]

_READ_LIMIT: Final = 4096


async def begin(
    store: SessionStore, session_id: SessionId, fence: Fence, opened: SessionOpened, *, was_tried: bool
) -> tuple[Fence, Sequence[Entry]]:
    """Have *store* hold the session, and return its owner's fence, and what its log holds then.

    May be called again after it failed, with *was_tried*: what was written, and only its answer lost, isn't
    written twice. One that another node has begun, and whose log is still empty, is taken from that: it may
    have died of it, and nobody could begin the session any more. Should it live, it is fenced.

    Raises:
        StoreUnavailable: It may have been written.
        CursorLost: Another node has begun it, or takes it at this moment: its client was there, too, before
            it said anything.
        SessionDeleted: It was begun before, and deleted.
        StoreError: It could not be written.
        UnknownFormat: Another node has begun it, of a later release.

    """
    try:
        await store.create(session_id, fence.node, fence.incarnation)
    except (StoreUnavailable, SessionDeleted):
        raise
    except StoreError as exc:
        fence = await _take(store, session_id, fence, exc)
    try:
        if was_tried:
            page = await store.read(session_id, Position(fence.incarnation, 0, Nonce(0)), _READ_LIMIT)
            if page.entries:
                return fence, page.entries
        (result,) = await store.append([Append(session_id, fence, 0, Nonce(0), 0, [opened], is_busy=False)])
        if isinstance(result, StoreError):
            raise result
    except SessionDeleted:
        raise
    except (Fenced, LostTail, SessionGone, Unseen) as exc:
        raise CursorLost from exc
    return fence, result


async def _take(store: SessionStore, session_id: SessionId, fence: Fence, why: StoreError) -> Fence:
    """Return the proof of a session of the same incarnation that somebody else began, and only that."""
    try:
        page = await store.read(session_id, Position(fence.incarnation, 0, Nonce(0)), 1)
        if page.entries or page.fence.incarnation != fence.incarnation:
            raise CursorLost from why
        return (await store.acquire(session_id, fence.node, seen=page.fence)).fence
    except (StoreUnavailable, SessionDeleted):
        raise
    except StoreError as exc:
        raise CursorLost from exc
