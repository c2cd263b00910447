"""Telling nodes that sessions have something new: hints, sent together, and lost without harm."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from unbroken.sessions.backends.redis.channels import Channels
from unbroken.sessions.backends.redis.connection import ERRORS
from unbroken.sessions.ids import NodeId, SessionId

__all__ = ["MESSAGE_SESSIONS", "MOST_WAITING", "News"]

MESSAGE_SESSIONS: Final = 256
"""Sessions that one message names: some ten kilobytes. A subscriber that is slow holds few of them."""

MOST_WAITING: Final = 10_000
"""Sessions, counted for each node that is told, that wait to be told of. One beyond costs a poll instead."""


class News:
    """What is to be told to whom. One task sends it while there is something, in batches."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._waiting: dict[NodeId, set[SessionId]] = {}
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def tell(self, nodes: Iterable[str], session_id: SessionId) -> None:
        """Tell *nodes* soon that a session has something new."""
        for node in nodes:
            if not node or self._count >= MOST_WAITING or self._is_closed:
                continue
            waiting = self._waiting.setdefault(NodeId(node), set())
            if session_id not in waiting:
                waiting.add(session_id)
                self._count += 1
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting, self._count = self._waiting, {}, 0
                for node, session_ids in waiting.items():
                    with suppress(*ERRORS):  # it finds out by itself
                        await self._tell(node, list(session_ids))
        finally:
            self._task = None

    async def _tell(self, node: NodeId, session_ids: list[SessionId]) -> None:
        for first in range(0, len(session_ids), MESSAGE_SESSIONS):
            await self._channels.tell(node, " ".join(session_ids[first : first + MESSAGE_SESSIONS]))

    async def aclose(self) -> None:
        """Drop what waits, and tell nothing more."""
        self._is_closed = True
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
