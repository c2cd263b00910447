"""How a session begins in its store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unbroken.sessions.backends.base import NOBODY, Append, Fence, SessionStore
from unbroken.sessions.clock import Clock, pause
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

_SAID_WITHIN: Final = 0.25
"""Seconds that whoever else has begun a log has for its first entry: they write it at once."""


async def begin(
    store: SessionStore,
    session_id: SessionId,
    fence: Fence,
    opened: SessionOpened,
    clock: Clock,
    *,
    was_tried: bool,
) -> tuple[Fence, Sequence[Entry]]:
    """Have *store* hold the session, and return its owner's fence, and what its log holds then.

    May be called again after it failed, with *was_tried*: what was written, and only its answer lost, isn't
    written twice. One that another node has begun, and whose log is still empty, is taken from that: it may
    have died of it, and nobody could begin the session any more. Should it live, it is fenced. Where that
    log is of another life, as of a session that is known by its client's name alone, it gets a moment first.

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
        fence = await _take(store, session_id, fence, clock, exc)
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


async def _take(
    store: SessionStore, session_id: SessionId, fence: Fence, clock: Clock, why: StoreError
) -> Fence:
    """Return the proof of a session that somebody else began, and only of one in which there is nothing."""
    try:
        try:
            page = await store.read(session_id, Position(fence.incarnation, 0, Nonce(0)), 1)
        except SessionDeleted:
            raise
        except SessionGone:  # in this life
            return await _replace(store, session_id, fence, clock)
        if page.entries or page.fence.incarnation != fence.incarnation:
            raise CursorLost from why
        return (await store.acquire(session_id, fence.node, seen=page.fence)).fence
    except (StoreUnavailable, SessionDeleted):
        raise
    except StoreError as exc:
        raise CursorLost from exc


async def _replace(store: SessionStore, session_id: SessionId, fence: Fence, clock: Clock) -> Fence:
    """Begin a log in place of an empty one of another life, which has nothing to lose. May be repeated.

    Who has come here knows a place in this life, and none in that.
    """
    found = await store.inspect(session_id)
    if not found.head and found.fence.node not in (NOBODY, fence.node):
        await pause(clock, _SAID_WITHIN)  # else two that begin it at once would take it from each other
        seen, found = found.fence, await store.inspect(session_id)
        if found.fence != seen:
            raise CursorLost
    if not found.head:
        found = await store.acquire(session_id, fence.node, seen=found.fence)
    if found.head:  # by now, it may be
        raise CursorLost
    await store.delete(session_id, found.fence)
    return await store.create(session_id, fence.node, fence.incarnation)
