"""Group commit: what many sessions have to write goes to the store together.

A store that is asked over a network is asked for all sessions that have
something, one call at a time; what arrives meanwhile forms the next call. No
timer holds anything back. A store that answers without waiting is asked for
each session by itself, without a task: for the first piece of a burst in the
very step in which the responder produced it, for the rest a few times in a
hundredth of a second, since most of what a write costs it costs once.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeAlias
from weakref import WeakValueDictionary

import structlog

from unbroken.sessions.backends.base import Append, Immediate, SessionStore
from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.entries import Entry
from unbroken.sessions.errors import NodeDraining, StoreError

__all__ = ["Committer", "Committers", "Writer"]

_AppendNow: TypeAlias = Callable[[Sequence[Append]], list[Sequence[Entry] | StoreError]]


class Writer(Protocol):
    """Who has something to write. Neither method raises."""

    is_scheduled: bool
    """The committer's own note."""

    def next_append(self) -> Append | None:
        """Return what to write next; None: there is nothing now."""

    def committed(self, result: Sequence[Entry] | StoreError) -> bool:
        """Take in what became of the last append, and return whether there may be another now."""


class Committer:
    """Writes for its writers. Each has at most one write in flight.

    Args:
        store: Where to.
        spawn: Starts a task that its owner, the node, will wait for.
        clock: Where time comes from.
        patience: Seconds that a write which isn't urgent waits for others, where the store
            answers without waiting. A distant store makes them wait anyway.
        gathering: Seconds from the answer of a distant store to a call that wrote for several sessions
            to the next call: a call costs it and us about the same for one session as for ten.

    """

    def __init__(
        self,
        store: SessionStore,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        clock: Clock,
        *,
        patience: float = 0.0,
        gathering: float = 0.0,
    ) -> None:
        self._store = store
        self._append_now = store.append_now if isinstance(store, Immediate) else None
        self._spawn = spawn
        self._clock = clock
        self.patience: Final = patience
        self._gathering = gathering
        self._scheduled: list[Writer] = []
        self._is_due = False  # whether what is scheduled will be looked at without further ado
        self._held: list[Writer] = []  # those that can wait for a moment; may be scheduled, too
        self._timer: Timer | None = None
        self._is_closed = False
        # What is logged on the way of many sessions must not bear the ids of the one that came first.
        self._context = contextvars.Context()

    def __len__(self) -> int:
        """How many writers wait to be asked; one that is held and scheduled counts twice."""
        return len(self._scheduled) + len(self._held)

    def close(self) -> None:
        """Write nothing more. What has been asked of the store may still take effect."""
        self._is_closed = True
        self._scheduled.clear()
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()

    def schedule(self, writer: Writer) -> None:
        """Ask *writer* soon what there is to write, once however often it is scheduled until then.

        Raises:
            NodeDraining: The node has been left: nothing is written any more.

        """
        if writer.is_scheduled:
            return
        if self._is_closed:
            raise NodeDraining
        if not self._is_due:
            if self._append_now is None:
                self._spawn(self._write_on())
            else:
                asyncio.get_running_loop().call_soon(self._write_now, context=self._context)
            self._is_due = True
        writer.is_scheduled = True
        self._scheduled.append(writer)

    def hold(self, writer: Writer) -> None:
        """Ask *writer* what there is to write when others may have something, too.

        Raises:
            NodeDraining: The node has been left: nothing is written any more.

        """
        if self._append_now is None or not self.patience or self._is_closed:
            self.schedule(writer)
            return
        self._held.append(writer)
        if self._timer is None:
            self._timer = self._clock.call_later(self.patience, partial(self._context.run, self._write_held))

    def _write_held(self) -> None:
        self._timer = None
        held, self._held = self._held, []
        for writer in held:
            self.write(writer)

    def write(self, writer: Writer) -> None:
        """Ask *writer* at once, where the store answers without waiting; else soon.

        Raises:
            NodeDraining: The node has been left: nothing is written any more.

        """
        append_now = None if self._is_closed else self._append_now
        if append_now is None or writer.is_scheduled:
            self.schedule(writer)
            return
        while (append := writer.next_append()) is not None:
            if not writer.committed(self._answer(append_now, append)):
                break

    def _answer(self, append_now: _AppendNow, append: Append) -> Sequence[Entry] | StoreError:
        try:
            return append_now([append])[0]
        except Exception as exc:  # noqa: BLE001 - as in _append
            return self._failed(exc)

    def _failed(self, exc: Exception) -> StoreError:
        structlog.get_logger().error("store failed", exc_info=exc)
        return StoreError(type(exc).__name__)

    def _write_now(self) -> None:
        scheduled, self._scheduled = self._scheduled, []
        self._is_due = False
        for writer in scheduled:
            writer.is_scheduled = False
            self.write(writer)

    async def _write_on(self) -> None:
        try:
            while self._scheduled:
                scheduled, self._scheduled = self._scheduled, []
                asked: list[tuple[Writer, Append]] = []
                for writer in scheduled:
                    writer.is_scheduled = False
                    if (append := writer.next_append()) is not None:
                        asked.append((writer, append))
                if asked:
                    results = await self._append([append for _, append in asked])
                    for (writer, _), result in zip(asked, results, strict=True):
                        if writer.committed(result):
                            self.schedule(writer)
                    if len(asked) > 1 and self._gathering:
                        await asyncio.sleep(self._gathering)
        finally:
            self._is_due = False

    async def _append(self, appends: list[Append]) -> Sequence[Sequence[Entry] | StoreError]:
        try:
            return await self._store.append(appends)
        except StoreError as exc:
            return [exc] * len(appends)
        except Exception as exc:  # noqa: BLE001 - the boundary: its sessions must not be left waiting
            return [self._failed(exc)] * len(appends)


class Committers:
    """One for each part of a store: a part that answers late holds none of the others up.

    Args:
        store: Where.
        spawn: Starts a task of the node's.
        clock: Where time comes from.
        patience: See :class:`Committer`.
        gathering: Likewise.

    """

    def __init__(
        self,
        store: SessionStore,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        clock: Clock,
        *,
        patience: float = 0.0,
        gathering: float = 0.0,
    ) -> None:
        self._make = partial(Committer, store, spawn, clock, patience=patience, gathering=gathering)
        # Of those that a session has, or that write: servers come and go.
        self._parts = WeakValueDictionary[str, Committer]()
        self._is_closed = False

    def of(self, part: str) -> Committer:
        """Return the one of a part of the store: the same for as long as anybody holds it."""
        if (committer := self._parts.get(part)) is None:
            committer = self._parts[part] = self._make()
            if self._is_closed:
                committer.close()
        return committer

    def __len__(self) -> int:
        """How many writers wait in all."""
        return sum(map(len, self._parts.values()))

    def close(self) -> None:
        """Write nothing more: see :meth:`Committer.close`."""
        self._is_closed = True
        for committer in self._parts.values():
            committer.close()
