"""Sessions in this process's memory: nothing survives it.

It numbers, fences and remembers exactly as a shared store does, so that what
holds on one node holds in a cluster. No call ever suspends.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from unbroken.sessions.account import KEY_COST
from unbroken.sessions.backends.base import (
    NOBODY,
    Append,
    Fence,
    Opened,
    Page,
    Receipt,
    Snapshot,
    metadata_in,
    recalled,
)
from unbroken.sessions.backends.memory_outbox import MemoryOutbox
from unbroken.sessions.backends.walk import Stretch
from unbroken.sessions.entries import Body, Deltas, Entry, InputKey, ResponseDone, Submitted, numbered
from unbroken.sessions.errors import Fenced, LostTail, SessionDeleted, SessionGone, StoreError, Unseen
from unbroken.sessions.event_log import EventLog, Position, Slice, Verdict
from unbroken.sessions.finished import FinishedTurn
from unbroken.sessions.ids import Incarnation, NodeId, Nonce, SessionId

__all__ = ["MemoryStore"]

_DELETED: Final = 10_000
"""Sessions that were deleted, and are known to be: of more, the one that was deleted first is forgotten."""

_STRETCH: Final = 1000
"""Sessions in one stretch of a walk."""


@dataclass(slots=True)
class _Stored:
    log: EventLog
    owner: NodeId
    number: int
    """Later ones have higher ones."""
    token: int = 1
    consumed: int = 0
    last_input: int = 0
    last_output: int = 0
    is_busy: bool = False
    followers: set[NodeId] = field(default_factory=set)
    snapshot: Snapshot | None = None
    keys: OrderedDict[str, tuple[int, bytes]] = field(default_factory=OrderedDict)
    keys_bytes: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)

    def admits(self, fence: Fence) -> bool:
        return (
            self.owner == fence.node
            and self.token == fence.token
            and self.log.incarnation == fence.incarnation
        )

    @property
    def has_work(self) -> bool:
        return self.is_busy or self.last_input > self.consumed

    @property
    def fence(self) -> Fence:
        return Fence(self.owner, self.token, self.log.incarnation)

    @property
    def opened(self) -> Opened:
        log = self.log
        floor_nonce = log.nonce_at(log.floor)
        return Opened(self.fence, log.floor, floor_nonce, log.head, self.consumed, self.snapshot)


class MemoryStore:
    """A :class:`~unbroken.sessions.backends.base.SessionStore` in memory.

    Args:
        dedupe_window: How many of a session's latest input keys are remembered.
        tell: Told of what nodes are to be told of, where several share this store.
        outbox: Where turns that end go. None: nowhere.

    """

    def __init__(
        self,
        *,
        dedupe_window: int = 1024,
        tell: Callable[[NodeId, SessionId], None] | None = None,
        outbox: MemoryOutbox | None = None,
    ) -> None:
        self._outbox = outbox
        self._sessions: dict[SessionId, _Stored] = {}
        self._count = 0  # of all that there were
        self._deleted: dict[SessionId, None] = {}  # the latest last
        self._dedupe_window = dedupe_window
        self._tell = tell
        # Nonces prove nothing to anyone: they need not be unguessable, and one is drawn for each write.
        self._draw = random.Random().getrandbits  # noqa: S311 - as said

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def is_shared(self) -> bool:
        """See :attr:`SessionStore.is_shared`."""
        return self._tell is not None

    async def create(self, session_id: SessionId, node: NodeId, incarnation: Incarnation) -> Fence:
        """See :meth:`SessionStore.create`."""
        fence = Fence(node, 1, incarnation)
        self._check_alive(session_id)
        stored = self._sessions.get(session_id)
        if stored is None:
            self._sessions[session_id] = self._begun(EventLog(incarnation), node)
        elif stored.fence != fence:
            raise StoreError(f"session {session_id} exists already")
        return fence

    async def acquire(self, session_id: SessionId, node: NodeId, *, seen: Fence | None = None) -> Opened:
        """See :meth:`SessionStore.acquire`."""
        stored = self._known(session_id)
        if stored.owner not in (node, NOBODY) and not (seen is not None and stored.admits(seen)):
            raise Fenced(session_id)
        stored.followers.discard(node)
        if stored.owner != node:
            former = stored.owner
            self._pass_on(session_id, stored, node)
            self._announce(session_id, stored, former)
        return stored.opened

    async def inspect(self, session_id: SessionId) -> Opened:
        """See :meth:`SessionStore.inspect`."""
        return self._known(session_id).opened

    async def follow(self, session_id: SessionId, node: NodeId) -> Opened:
        """See :meth:`SessionStore.follow`."""
        stored = self._known(session_id)
        stored.followers.add(node)
        return stored.opened

    async def unfollow(self, session_id: SessionId, node: NodeId) -> None:
        """See :meth:`SessionStore.unfollow`."""
        if (stored := self._sessions.get(session_id)) is not None:
            stored.followers.discard(node)

    async def release(self, session_id: SessionId, fence: Fence, *, to: NodeId = NOBODY) -> None:
        """See :meth:`SessionStore.release`."""
        stored = self._sessions.get(session_id)
        if stored is None or not stored.admits(fence):
            raise Fenced(session_id)
        self._pass_on(session_id, stored, to if to in stored.followers else NOBODY)
        if to != NOBODY:
            self._announce(session_id, stored, to)

    def _pass_on(self, session_id: SessionId, stored: _Stored, owner: NodeId) -> None:
        stored.owner = owner
        stored.token += 1
        self._announce(session_id, stored)

    def _announce(self, session_id: SessionId, stored: _Stored, *others: NodeId) -> None:
        if self._tell is not None:
            for node in (*stored.followers, *others):
                if node != NOBODY:
                    self._tell(node, session_id)

    async def submit(self, session_id: SessionId, submitted: Submitted, seen: Position) -> Receipt:
        """See :meth:`SessionStore.submit`."""
        stored = self._find(session_id, seen.incarnation)
        key = submitted.key
        if (receipt := recalled(key, stored.keys)) is not None:
            return receipt
        if seen.seq < stored.log.floor or stored.log.check(seen) is not Verdict.HELD:
            raise LostTail(session_id)
        (entry,) = self._write(stored, [submitted])
        stored.last_input = entry.seq
        self._announce(session_id, stored, stored.owner)
        if key is not None:
            self._remember(stored, key, entry.seq)
        return Receipt(entry.seq, duplicate=False, entry=entry)

    async def recall(
        self, session_id: SessionId, incarnation: Incarnation, submitted: Submitted
    ) -> Receipt | None:
        """See :meth:`SessionStore.recall`."""
        return recalled(submitted.key, self._find(session_id, incarnation).keys)

    async def append(self, appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
        """See :meth:`SessionStore.append`."""
        return self.append_now(appends)

    def append_now(self, appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
        """See :meth:`Immediate.append_now`."""
        return [self._append(each) for each in appends]

    def _append(self, append: Append) -> Sequence[Entry] | StoreError:
        stored = self._sessions.get(append.session_id)
        if stored is None:
            is_deleted = append.session_id in self._deleted
            return (SessionDeleted if is_deleted else SessionGone)(append.session_id)
        if not stored.admits(append.fence):
            return Fenced(append.session_id)
        log = stored.log
        if append.seen != log.head:  # nearly always it is
            if not log.floor <= append.seen < log.head or log.nonce_at(append.seen) != append.nonce:
                return LostTail(append.session_id)
        elif append.nonce != log.head_nonce:
            return LostTail(append.session_id)
        if stored.last_output > append.seen:
            return Unseen(append.session_id)
        if append.consumed > stored.consumed:
            stored.consumed = append.consumed
        stored.is_busy = append.is_busy
        entries = self._write(stored, append.bodies)
        if entries:
            stored.last_output = log.head
        if append.finished:
            self._put(stored, append.finished)
        if stored.followers:
            self._announce(append.session_id, stored)
        return entries

    async def read(
        self, session_id: SessionId, after: Position, limit: int, *, node: NodeId = NOBODY
    ) -> Page:
        """See :meth:`SessionStore.read`."""
        stored = self._find(session_id, after.incarnation)
        log = stored.log
        if after.seq < log.floor:
            raise SessionGone(session_id)
        if log.check(after) is not Verdict.HELD:
            raise LostTail(session_id)
        entries: list[Entry] = []
        for record in log.read(after.seq, limit):
            if isinstance(record, Slice):
                entries.extend(_batches(record))
            else:
                entries.append(record)
        is_end = (entries[-1].last if entries else after.seq) == log.head
        return Page(entries, stored.fence, is_end, stored.consumed, node in stored.followers)

    async def compact(self, session_id: SessionId, fence: Fence, floor: int, snapshot: Snapshot) -> None:
        """See :meth:`SessionStore.compact`."""
        stored = self._find(session_id, fence.incarnation)
        if not stored.admits(fence):
            raise Fenced(session_id)
        kept = stored.snapshot
        if kept is not None and kept.seq > snapshot.seq and kept.is_of(stored.log):
            return
        if not snapshot.is_of(stored.log):
            raise LostTail(session_id)
        stored.snapshot = snapshot
        stored.log.forget(min(floor, snapshot.seq))

    async def metadata(self, session_ids: Sequence[SessionId]) -> list[Mapping[str, str] | None]:
        """See :meth:`SessionStore.metadata`."""
        found = map(self._sessions.get, session_ids)
        return [None if stored is None else stored.metadata for stored in found]

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
        """See :meth:`SessionStore.reseed`."""
        self._check_alive(session_id)
        stored = self._sessions.get(session_id)
        if stored is None:
            stored = self._sessions[session_id] = self._begun(EventLog(incarnation), fence.node)
        elif not stored.admits(fence):
            raise Fenced(session_id)
        elif head is not None and stored.log.position(stored.log.head) != head:
            raise Unseen(session_id)
        stored.log = EventLog(incarnation, floor=snapshot.seq, floor_nonce=snapshot.nonce)
        stored.last_output = snapshot.seq
        if not keeps_keys:
            stored.keys.clear()
            stored.keys_bytes = 0
        for seq, key in keys.items():
            self._remember(stored, key, seq)
        stored.snapshot = snapshot
        stored.metadata = metadata or {}
        stored.is_busy = is_busy
        stored.last_input = stored.consumed = 0  # the snapshot knows which wait
        stored.token += 1
        self._put(stored, finished)
        self._announce(session_id, stored)
        return stored.fence

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
        """See :meth:`SessionStore.rejoin`."""
        stored = self._known(session_id)
        if not stored.admits(fence):
            raise Fenced(session_id)
        if stored.log.head != after.seq or stored.log.check(after) is not Verdict.HELD:
            raise LostTail(session_id)
        for entry in entries:
            self._keep(stored, entry)
            body = entry.body
            if type(body) is Submitted:
                stored.last_input = entry.seq
                if body.key is not None:
                    self._remember(stored, body.key, entry.seq)
            else:
                stored.last_output = entry.last
        stored.consumed = max(stored.consumed, consumed)
        stored.is_busy = is_busy
        self._put(stored, finished)
        self._announce(session_id, stored)

    async def busy(
        self, owner: NodeId, limit: int, *, known: Collection[SessionId] = ()
    ) -> list[tuple[SessionId, Fence]]:
        """See :meth:`SessionStore.busy`."""
        return [
            (session_id, stored.fence)
            for session_id, stored in self._sessions.items()
            if stored.owner == owner and stored.has_work and session_id not in known
        ][:limit]

    async def owners(self) -> set[NodeId]:
        """See :meth:`SessionStore.owners`."""
        return {stored.owner for stored in self._sessions.values() if stored.has_work}

    async def keep(self, session_ids: Collection[SessionId]) -> None:
        """See :meth:`SessionStore.keep`."""

    async def delete(self, session_id: SessionId, fence: Fence) -> None:
        """See :meth:`SessionStore.delete`."""
        stored = self._sessions.get(session_id)
        if stored is None:
            return
        if not stored.admits(fence):
            raise Fenced(session_id)
        del self._sessions[session_id]

    async def erase(self, session_id: SessionId) -> None:
        """See :meth:`SessionStore.erase`."""
        stored = self._sessions.pop(session_id, None)
        self._deleted.pop(session_id, None)
        self._deleted[session_id] = None
        if len(self._deleted) > _DELETED:
            del self._deleted[next(iter(self._deleted))]
        if stored is not None:
            self._announce(session_id, stored, stored.owner)

    def _begun(self, log: EventLog, owner: NodeId) -> _Stored:
        self._count += 1
        return _Stored(log, owner, self._count)

    def _check_alive(self, session_id: SessionId) -> None:
        if session_id in self._deleted:
            raise SessionDeleted(session_id)

    async def walk(self, place: str = "") -> AsyncGenerator[Stretch, None]:
        """Yield what is behind *place*, in the order in which it came: see :data:`WalkThrough`."""
        begin = int(place or 0)
        rest = [
            (stored.number, session_id)
            for session_id, stored in self._sessions.items()
            if stored.number > begin
        ]
        rest.sort()  # as they were, but for those whose log was begun anew
        for first in range(0, len(rest), _STRETCH):
            page = rest[first : first + _STRETCH]
            yield Stretch(tuple(session_id for _, session_id in page), str(page[-1][0]))

    def keys_bytes(self, session_id: SessionId) -> int:
        """See :meth:`Resident.keys_bytes`."""
        stored = self._sessions.get(session_id)
        return 0 if stored is None else stored.keys_bytes

    def _write(self, stored: _Stored, bodies: Sequence[Body]) -> list[Entry]:
        """Number *bodies*, with one nonce for the batch, and add them to the log."""
        entries = numbered(bodies, stored.log.head + 1, Nonce(self._draw(32)))
        for entry in entries:
            self._keep(stored, entry)
        return entries

    def _put(self, stored: _Stored, finished: Sequence[FinishedTurn]) -> None:
        if self._outbox is not None:
            self._outbox.put(finished, is_attended=bool(stored.followers))

    def _keep(self, stored: _Stored, entry: Entry) -> None:
        stored.log.append(entry)
        body = entry.body
        if type(body) is Deltas:
            return
        if type(body) is ResponseDone:
            stored.log.pack(body.response_id, body.output)
        elif (metadata := metadata_in((body,))) is not None:
            stored.metadata = metadata

    def _remember(self, stored: _Stored, key: InputKey, seq: int) -> None:
        if key.name not in stored.keys:
            stored.keys_bytes += KEY_COST + len(key.name)
        stored.keys[key.name] = (seq, key.digest)
        while len(stored.keys) > self._dedupe_window:
            name, _ = stored.keys.popitem(last=False)
            stored.keys_bytes -= KEY_COST + len(name)

    def _known(self, session_id: SessionId) -> _Stored:
        stored = self._sessions.get(session_id)
        if stored is None:
            self._check_alive(session_id)
            raise SessionGone(session_id)
        return stored

    def _find(self, session_id: SessionId, incarnation: Incarnation) -> _Stored:
        stored = self._known(session_id)
        if stored.log.incarnation != incarnation:
            raise SessionGone(session_id)
        return stored


def _batches(piece: Slice) -> list[Entry]:
    """Return a slice as entries again: one for each run of pieces with the same nonce."""
    entries: list[Entry] = []
    start = 0
    for index in range(1, len(piece.parts) + 1):
        if index == len(piece.parts) or piece.nonces[index] != piece.nonces[start]:
            body = Deltas(
                piece.response_id,
                piece.item_id,
                list(piece.parts[start:index]),
                piece.ordinal + start,
                piece.output_index,
                piece.content_index,
                piece.call_id,
                piece.kind,
            )
            entries.append(Entry(piece.seq + start, piece.nonces[start], body))  # type: ignore[arg-type]
            start = index
    return entries
