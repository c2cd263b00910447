"""A store with a network in between: calls take a while, and fail when told to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

from unbroken.sessions.backends.base import (
    NOBODY,
    Append,
    Fence,
    Opened,
    Page,
    Receipt,
    SessionStore,
    Snapshot,
)
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.backends.walk import Stretch
from unbroken.sessions.entries import Entry, InputKey, Submitted
from unbroken.sessions.errors import StoreBusy, StoreError, StoreUnavailable
from unbroken.sessions.event_log import Position
from unbroken.sessions.finished import FinishedTurn
from unbroken.sessions.ids import Incarnation, NodeId, SessionId

__all__ = ["DistantStore"]


class DistantStore:
    """Wraps a store. Before and after each call, other tasks get to run, a random number of times.

    Fault verbs: :meth:`fail_next_append`, :attr:`is_out`, :attr:`is_busy`, :attr:`half_moved`,
    :attr:`loses_answers`, :attr:`is_late`, :attr:`are_inputs_late`.
    """

    def __init__(self, inner: SessionStore, seed: int = 0) -> None:
        self.inner = inner
        self._random = random.Random(seed)
        self._failure: StoreError | None = None
        self.is_out = False
        """Whether nothing reaches it."""
        self.is_busy = False
        """Whether so much is asked of it that nothing has its turn."""
        self.half_moved: set[SessionId] = set()
        """Of which some is on one server and the rest on another: nothing of these is read or written."""
        self._found_half_moved: set[SessionId] = set()
        self.is_late = False
        """Whether writes are on their way for so long that nobody believes that they still come."""
        self._late: list[Sequence[Append]] = []
        self.are_inputs_late = False
        """Likewise, inputs."""
        self._late_inputs: list[tuple[SessionId, Submitted, Position]] = []
        self.loses_answers = False
        """Whether what is asked for is done, and nobody hears of it."""

    def fail_next_append(self, failure: StoreError) -> None:
        self._failure = failure

    def heal(self) -> None:
        """Take back a failure that hasn't happened yet."""
        self._failure = None

    def part_of(self, session_id: SessionId) -> str:
        return "half moved" if session_id in self.half_moved & self._found_half_moved else ""

    def _is_half_moved(self, session_id: SessionId | None) -> bool:
        if session_id is None or session_id not in self.half_moved:
            return False
        self._found_half_moved.add(session_id)
        return True

    async def _travel(self, session_id: SessionId | None = None) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        if self.is_out or self._is_half_moved(session_id):
            raise StoreUnavailable
        if self.is_busy:
            raise StoreBusy

    async def _return(self) -> None:
        await self._travel()
        if self.loses_answers:
            raise StoreUnavailable

    async def walk(self, place: str = "") -> AsyncGenerator[Stretch, None]:
        """Walk through all sessions, of a store in memory."""
        assert isinstance(self.inner, MemoryStore)
        async for stretch in self.inner.walk(place):
            yield stretch

    async def create(self, session_id: SessionId, node: NodeId, incarnation: Incarnation) -> Fence:
        await self._travel(session_id)
        result = await self.inner.create(session_id, node, incarnation)
        await self._return()
        return result

    async def acquire(self, session_id: SessionId, node: NodeId, *, seen: Fence | None = None) -> Opened:
        await self._travel(session_id)
        result = await self.inner.acquire(session_id, node, seen=seen)
        await self._return()
        return result

    @property
    def is_shared(self) -> bool:
        return self.inner.is_shared

    async def inspect(self, session_id: SessionId) -> Opened:
        await self._travel(session_id)
        result = await self.inner.inspect(session_id)
        await self._return()
        return result

    async def follow(self, session_id: SessionId, node: NodeId) -> Opened:
        await self._travel(session_id)
        opened = await self.inner.follow(session_id, node)
        await self._return()
        return opened

    async def unfollow(self, session_id: SessionId, node: NodeId) -> None:
        await self._travel(session_id)
        await self.inner.unfollow(session_id, node)
        await self._return()

    async def release(self, session_id: SessionId, fence: Fence, *, to: NodeId = NOBODY) -> None:
        await self._travel(session_id)
        await self.inner.release(session_id, fence, to=to)
        await self._return()

    async def submit(self, session_id: SessionId, submitted: Submitted, seen: Position) -> Receipt:
        await self._travel(session_id)
        if self.are_inputs_late:
            self._late_inputs.append((session_id, submitted, seen))
            raise StoreUnavailable
        receipt = await self.inner.submit(session_id, submitted, seen)
        await self._return()
        return receipt

    async def recall(
        self, session_id: SessionId, incarnation: Incarnation, submitted: Submitted
    ) -> Receipt | None:
        await self._travel()
        receipt = await self.inner.recall(session_id, incarnation, submitted)
        await self._return()
        return receipt

    async def append(self, appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
        await self._travel()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            return [failure for _ in appends]
        if self.is_late:
            self._late.append(appends)
            raise StoreUnavailable
        whole = [append for append in appends if not self._is_half_moved(append.session_id)]
        results = iter(await self.inner.append(whole))
        await self._return()
        return [next(results) if append in whole else StoreUnavailable() for append in appends]

    async def deliver(self) -> list[Sequence[Entry] | StoreError]:
        """Let what was late come, and return what became of it: nobody else hears of that."""
        inputs, self._late_inputs = self._late_inputs, []
        for each in inputs:
            await self.inner.submit(*each)
        late, self._late = self._late, []
        return [result for appends in late for result in await self.inner.append(appends)]

    async def read(
        self, session_id: SessionId, after: Position, limit: int, *, node: NodeId = NOBODY
    ) -> Page:
        await self._travel(session_id)
        result = await self.inner.read(session_id, after, limit, node=node)
        await self._return()
        return result

    async def reseed(
        self,
        session_id: SessionId,
        fence: Fence,
        incarnation: Incarnation,
        snapshot: Snapshot,
        keys: Mapping[int, InputKey],
        *,
        keeps_keys: bool = True,
        is_busy: bool = True,
        head: Position | None = None,
        finished: Sequence[FinishedTurn] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> Fence:
        await self._travel(session_id)
        result = await self.inner.reseed(
            session_id,
            fence,
            incarnation,
            snapshot,
            keys,
            keeps_keys=keeps_keys,
            is_busy=is_busy,
            head=head,
            finished=finished,
            metadata=metadata,
        )
        await self._return()
        return result

    async def metadata(self, session_ids: Sequence[SessionId]) -> list[Mapping[str, str] | None]:
        await self._travel()
        result = await self.inner.metadata(session_ids)
        await self._return()
        return result

    async def rejoin(
        self,
        session_id: SessionId,
        fence: Fence,
        after: Position,
        consumed: int,
        entries: Sequence[Entry],
        *,
        is_busy: bool = True,
        finished: Sequence[FinishedTurn] = (),
    ) -> None:
        await self._travel(session_id)
        await self.inner.rejoin(
            session_id, fence, after, consumed, entries, is_busy=is_busy, finished=finished
        )
        await self._return()

    async def busy(
        self, owner: NodeId, limit: int, *, known: Collection[SessionId] = ()
    ) -> list[tuple[SessionId, Fence]]:
        await self._travel()
        result = await self.inner.busy(owner, limit, known=known)
        await self._return()
        return result

    async def owners(self) -> set[NodeId]:
        await self._travel()
        result = await self.inner.owners()
        await self._return()
        return result

    async def compact(self, session_id: SessionId, fence: Fence, floor: int, snapshot: Snapshot) -> None:
        await self._travel(session_id)
        await self.inner.compact(session_id, fence, floor, snapshot)
        await self._return()

    async def keep(self, session_ids: Collection[SessionId]) -> None:
        await self._travel()
        await self.inner.keep(session_ids)
        await self._return()

    async def delete(self, session_id: SessionId, fence: Fence) -> None:
        await self._travel(session_id)
        await self.inner.delete(session_id, fence)
        await self._return()

    async def erase(self, session_id: SessionId) -> None:
        await self._travel(session_id)
        await self.inner.erase(session_id)
        await self._return()
