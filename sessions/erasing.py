"""A node's part in deleting sessions for good: in the store, which remembers it, and here.

Other nodes that have such a session are told by the store.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.hub import Hub
from unbroken.sessions.ids import SessionId

__all__ = ["Erasing"]


class Erasing:
    """Erases sessions.

    Args:
        store: Where they are.
        hub: The node's.
        moving: Keeps a session from being loaded or taken meanwhile.

    """

    def __init__(
        self,
        store: SessionStore,
        hub: Hub,
        moving: Callable[[SessionId], AbstractAsyncContextManager[None]],
    ) -> None:
        self._store = store
        self._hub = hub
        self._moving = moving

    async def erase(self, session_id: SessionId) -> None:
        """Erase a session, whoever owns it: its connections are told, here and elsewhere. May be repeated.

        Raises:
            StoreUnavailable: It may have been done.

        """
        async with self._moving(session_id):
            await self._store.erase(session_id)
            if (actor := self._hub.get(session_id)) is not None:
                actor.note_deleted()
                self._hub.remove(actor)
