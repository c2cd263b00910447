"""One at a time where a session comes, goes or changes hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from unbroken.sessions.ids import SessionId

__all__ = ["Gates"]


@dataclass(slots=True)
class _Gate:
    """A lock, and how many tasks hold it or wait for it: it is forgotten with the last of them."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Gates:
    """A node's, one for each session that somebody is about to load, take, pass on or forget."""

    def __init__(self) -> None:
        self._gates: dict[SessionId, _Gate] = {}

    def __len__(self) -> int:
        """How many are in use."""
        return len(self._gates)

    @asynccontextmanager
    async def through(self, session_id: SessionId) -> AsyncIterator[None]:
        """Let one task at a time through, in the order in which they come."""
        gate = self._gates.setdefault(session_id, _Gate())
        gate.users += 1
        try:
            async with gate.lock:
                yield
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[session_id]
