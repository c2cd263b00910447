"""Which parts of a node's store can be reached: probed where they can't, and told of once they can.

A store of one server has one part. Of one that is divided among several, each part has sessions of its
own, and may be out of reach while the others answer: a server, or what is on its way from one to another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

import structlog

from unbroken.sessions.backends.base import Parted, SessionStore
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import NodeDraining, StoreBusy, StoreUnavailable
from unbroken.sessions.ids import NodeId, SessionId
from unbroken.sessions.outage import Outage

__all__ = ["Outages"]

_PROBE_INTERVAL: Final = 0.5
"""Seconds between two looks whether the store is back."""

_LOOKED_UP_AT_ONCE: Final = 64
"""Sessions whose part is looked up before anything else gets its turn."""

_PARTS_UNREAD: Final = 64
"""Parts of which it is known what couldn't be had last."""


class Outages:
    """The outages of a node's store, by part.

    Args:
        node: The node.
        store: Asked whether it is back.
        clock: Where time comes from.
        patience: See :class:`Outage`.
        is_strict: Likewise.
        spawn: Starts a task of the node's.
        noted_by: Names the sessions here that note in an outage what becomes of their calls.
        on_back: Called with a part that can be reached again.

    """

    def __init__(
        self,
        node: NodeId,
        store: SessionStore,
        clock: Clock,
        *,
        patience: float,
        is_strict: bool,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        noted_by: Callable[[Outage], Iterable[SessionId]],
        on_back: Callable[[str], Awaitable[None]],
    ) -> None:
        self._node = node
        self._store = store
        self._part_of = store.part_of if isinstance(store, Parted) else None
        self._clock = clock
        self._patience = patience
        self._is_strict = is_strict
        self._spawn = spawn
        self._noted_by = noted_by
        self._on_back = on_back
        # Of those that a session is of, or that are probed: servers come and go.
        self._parts = WeakValueDictionary[str, Outage]()
        self._probed: dict[str, Outage] = {}
        self._unread: dict[str, SessionId] = {}  # of each part, what couldn't be had last

    def part_of(self, session_id: SessionId) -> str:
        """Return the part of the store that holds a session."""
        return "" if self._part_of is None else self._part_of(session_id)

    def of(self, session_id: SessionId) -> Outage:
        """Return what notes whether the part of a session can be reached: the same for all that hold it."""
        part = self.part_of(session_id)
        if (outage := self._parts.get(part)) is None:
            outage = self._parts[part] = Outage(
                self._clock,
                patience=self._patience,
                is_strict=self._is_strict,
                on_begin=partial(self._began, part),
            )
        return outage

    def of_part(self, part: str) -> Outage | None:
        """Return what notes whether *part* can be reached; None: nobody asks it for anything."""
        return self._parts.get(part)

    def note_unread(self, session_id: SessionId, why: StoreUnavailable) -> None:
        """Note that a session that isn't here couldn't be had. If another one couldn't before, and none could
        since, that isn't its fault.
        """
        if isinstance(why, StoreBusy):  # of that session, or of here
            return
        part = self.part_of(session_id)
        if self._unread.get(part, session_id) != session_id:
            self.of(session_id).note_failure(session_id, why)
        elif len(self._unread) >= _PARTS_UNREAD:
            self._unread.clear()
        self._unread[part] = session_id

    def note_read(self, session_id: SessionId) -> None:
        """Note that one could be had."""
        self._unread.pop(self.part_of(session_id), None)

    @property
    def is_any_on(self) -> bool:
        """Whether any part failed when it was last asked."""
        return any(outage.is_on for outage in self._probed.values())

    def _began(self, part: str, session_id: SessionId) -> None:
        structlog.get_logger().error("store out of reach", node_id=self._node, part=part or None)
        if part not in self._probed:  # else the next probe of the outage before is on its way
            self._probed[part] = self._parts[part]
            self._probe_later(part, session_id)

    def _probe_later(self, part: str, session_id: SessionId, *, is_bug_told: bool = False) -> None:
        def begin() -> None:
            with suppress(NodeDraining):
                self._spawn(self._probe(part, session_id, is_bug_told))

        self._clock.call_later(_PROBE_INTERVAL, begin)

    async def _probe(self, part: str, session_id: SessionId, is_bug_told: bool) -> None:
        """Ask the store whether it is back. Whatever a session owes it is written then."""
        try:
            # To be read isn't enough, nor is what another server says. It does nothing: nobody is called so.
            await self._store.unfollow(session_id, NodeId(f"probe:{self._node}"))
        except StoreUnavailable as exc:
            if self.part_of(session_id) != part:
                self.of(session_id).note_failure(session_id, exc)
                await self._probe_another(part)
                return
            self._probe_later(part, session_id, is_bug_told=is_bug_told)
            return
        except Exception as exc:  # noqa: BLE001 - the boundary: nobody else would find out that it is over
            if not is_bug_told:
                structlog.get_logger().error(
                    "probe failed", node_id=self._node, part=part or None, exc_info=exc
                )
            self._probe_later(part, session_id, is_bug_told=True)
            return
        if self.part_of(session_id) != part:
            await self._probe_another(part)
            return
        structlog.get_logger().info("store back", node_id=self._node, part=part or None)
        await self._end(part)

    async def _probe_another(self, part: str) -> None:
        """Go on with another session: of the one that was asked for, a part that has it no more says nothing.

        It has been moved, or only half of it. A part that has nothing of what is here keeps nobody waiting.
        """
        for number, session_id in enumerate(self._noted_by(self._probed[part])):
            if self.part_of(session_id) == part:
                self._probe_later(part, session_id)
                return
            if number % _LOOKED_UP_AT_ONCE == 0:
                await asyncio.sleep(0)
        structlog.get_logger().info("store has nothing there", node_id=self._node, part=part or None)
        await self._end(part)

    async def _end(self, part: str) -> None:
        outage = self._probed.pop(part)
        outage.note_success()
        await self._on_back(part)
