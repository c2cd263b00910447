"""How a session is deleted that something may run in.

What runs is cancelled first, as by its client: whoever owns the session, its log says so, and it is paid for
as far as it went. What still runs then is ended where it runs, as soon as its node is told.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from unbroken.sessions.entries import CancelResponse, Submitted
from unbroken.sessions.errors import (
    NodeFull,
    SessionError,
    SessionNotFound,
    TooManySessions,
)
from unbroken.sessions.ids import ChainId, PrincipalId, SessionId, belongs_to, new_chain_id
from unbroken.sessions.node import Attachment, Node

__all__ = ["delete"]

_STOPPING: Final = 5.0
"""Seconds that what runs gets to stop, before the session is deleted all the same: agents clean up."""


async def delete(node: Node, session_id: SessionId, principal: PrincipalId) -> None:
    """Cancel what runs in a session of *principal*'s, and delete it.

    Raises:
        SessionNotFound: There is none, or it is another's.
        NodeDraining: The node is shutting down, and has just given it up.
        StoreUnavailable: It may have been done.
        UnknownFormat: A later release has written it.

    """
    chain = new_chain_id()
    try:
        # It watches nothing: also where as many do as may, what runs is cancelled first.
        attachment = await node.attach(session_id, principal, None, chain, watches=False)
    except (NodeFull, TooManySessions):  # that keeps nobody from making room
        if not belongs_to(session_id, principal):
            raise SessionNotFound from None
    else:
        try:
            with suppress(TimeoutError, SessionError):
                async with asyncio.timeout(_STOPPING):
                    await _stop(attachment, chain)
        finally:
            attachment.close()
    await node.erase(session_id)


async def _stop(attachment: Attachment, chain: ChainId) -> None:
    """Cancel all that runs or waits, and wait for its end."""
    session, cursor = attachment.session, attachment.cursor
    is_new = asyncio.Event()
    cursor.listen(is_new.set)
    try:
        for response_id in reversed(tuple(session.responses)):  # else the next one would begin
            await attachment.submit(Submitted(CancelResponse(response_id), chain))
        while session.responses:
            is_new.clear()
            while cursor.take(512):
                pass
            await is_new.wait()
    finally:
        cursor.listen(None)
