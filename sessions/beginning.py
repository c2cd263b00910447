"""How a session begins in its store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unbroken.sessions.backends.base import Append, Fence, SessionStore
from unbroken.sessions.entries import Entry, SessionOpened
from unbroken.sessions.errors import CursorLost, StoreError, StoreUnavailable
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import Nonce, SessionId

__all__ = ["begin"]

_READ_LIMIT: Final = 4096


async def begin(
    store: SessionStore, session_id: SessionId, fence: Fence, opened: SessionOpened, *, was_tried: bool
) -> Sequence[Entry]:
    """Have *store* hold the session, and return what its log holds then.

    May be called again after it failed, with *was_tried*: what was written, and only its answer lost, isn't
    written twice.

    Raises:
        StoreUnavailable: It may have been written.
        CursorLost: Another node has begun it: its client was there, too, before it said anything.
        StoreError: It could not be written.

    """
    try:
        await store.create(session_id, fence.node, fence.incarnation)
    except StoreUnavailable:
        raise
    except StoreError as exc:
        raise CursorLost from exc
    if was_tried:
        page = await store.read(session_id, Position(fence.incarnation, 0, Nonce(0)), _READ_LIMIT)
        if page.entries:
            return page.entries
    (result,) = await store.append([Append(session_id, fence, 0, Nonce(0), 0, [opened], is_busy=False)])
    if isinstance(result, StoreError):
        raise result
    return result
