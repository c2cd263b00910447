"""Sessions in Redis or Valkey. What is guaranteed is the interface's; how, the scripts say.

A write is one call of a script, which fences, numbers and writes in one step.
The writes of many sessions go in one call where they may: all of them on a
single server, those of a bucket in a cluster. A batch's nonce is drawn here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

import msgspec

from unbroken.sessions.backends.base import (
    NOBODY,
    Append,
    Fence,
    Opened,
    Page,
    Receipt,
    Snapshot,
    metadata_in,
)
from unbroken.sessions.backends.redis.channels import Channels
from unbroken.sessions.backends.redis.connection import Client, server_of, unavailable
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.news import News
from unbroken.sessions.backends.redis.noted import noted, noted_of
from unbroken.sessions.backends.redis.outbox import Packing, RedisOutbox
from unbroken.sessions.backends.redis.packing import packed, unpacked
from unbroken.sessions.backends.redis.parts import Parts
from unbroken.sessions.backends.redis.reading import Reading, Readings
from unbroken.sessions.backends.redis.replies import (
    are_whole,
    check,
    failure_of,
    fence_in,
    name_of,
    proof_of,
    rest_of,
    size_of,
    text_of,
)
from unbroken.sessions.backends.redis.scripts import Caller, Scripts
from unbroken.sessions.backends.redis.trouble import Trouble
from unbroken.sessions.entries import (
    Deltas,
    Entry,
    InputKey,
    Submitted,
    numbered,
    width,
)
from unbroken.sessions.errors import (
    Fenced,
    LostTail,
    MessageIdReused,
    SessionGone,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from unbroken.sessions.event_log import Position
from unbroken.sessions.finished import FinishedTurn
from unbroken.sessions.format import FORMAT_1, Formats
from unbroken.sessions.ids import Incarnation, NodeId, Nonce, SessionId

__all__ = ["RedisStore"]

_INDEXES_AT_ONCE: Final = 16
"""Of 256, that one script reads: it keeps all others waiting meanwhile."""


_READS_PATIENCE: Final = 4
"""By how much longer than for an answer a call waits for its turn: when all clients of a node that has gone
come here at once, most of them wait, and would come again if they were refused.
"""
_TURNS: Final = 11
"""Where among what an append says of a session there are the turns that have ended."""

_WRITES_PATIENCE: Final = 8
"""The same for a write: in a cluster, there may be one for each bucket."""


class RedisStore:
    """A :class:`~unbroken.sessions.backends.base.SessionStore` in Redis.

    Args:
        client: How it is reached. The caller's, to close.
        keys: What things are called there.
        bounds: What a session may take.
        formats: In which it is read and written; None: in this release's alone.
        trouble: Told of calls that fail.
        connections: Calls at once.
        patience: Seconds after which a call is given up. Calls wait some times that for their turn.
        is_cluster: Whether only keys of one bucket may be written in one call.
        outbox: Where turns that end go. None: nowhere.

    """

    is_shared: Final = True
    """See :attr:`SessionStore.is_shared`."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        bounds: Bounds,
        *,
        formats: Formats | None = None,
        trouble: Trouble | None = None,
        is_cluster: bool = False,
        connections: int = 16,
        patience: float = 2.0,
        outbox: RedisOutbox | None = None,
    ) -> None:
        self._outbox = outbox
        # Its methods are of both worlds, says redis-py.
        self._client: Any = client
        caller = cast(Caller, client)
        which = partial(server_of, client)
        # Answers that are being written don't wait behind a storm of sessions that are being read.
        writers = max(1, connections // 4)
        self._scripts = Scripts(
            caller, max(1, connections - writers), patience * _READS_PATIENCE, server_of=which
        )
        # Who writes asks again by himself, and others would have to wait for it.
        self._writes = Scripts(caller, writers, patience * _WRITES_PATIENCE, server_of=which, again=())
        self._keys = keys
        self._bounds = bounds
        self._formats = formats or Formats(FORMAT_1)
        self._trouble = trouble or Trouble()
        self._is_cluster = is_cluster
        self._parts = Parts(client)
        self._news = News(Channels(client, keys))
        self._readings = Readings(self._read, self._read_together)
        self._draw = random.Random().getrandbits  # noqa: S311 - a nonce tells branches apart, no more

    def part_of(self, session_id: SessionId) -> str:
        """See :meth:`Parted.part_of`."""
        return self._parts.of(self._keys.meta(session_id))

    async def aclose(self) -> None:
        """Read nothing, and tell nobody anything more. The client stays open."""
        await self._readings.aclose()
        await self._news.aclose()

    async def _call(self, name: str, keys: Sequence[str], *args: Any) -> Any:
        return await self._call_by(self._scripts, name, keys, *args)

    async def _call_by(self, scripts: Scripts, name: str, keys: Sequence[str], *args: Any) -> Any:
        try:
            return await scripts.call(name, list(keys), *args)
        except Exception as exc:
            error = unavailable(exc)
            if error is None:
                raise
            self._parts.note(keys[0], exc)
            self._trouble.note(error)
            raise error from None  # what it quotes may be an address with a password

    async def create(self, session_id: SessionId, node: NodeId, incarnation: Incarnation) -> Fence:
        """See :meth:`SessionStore.create`."""
        keys = self._keys.session(session_id)
        done = await self._call("create", keys, session_id, node, incarnation, self._bounds.lifetime)
        check(done, session_id)
        if not done:
            raise StoreError(f"session {session_id} exists already")
        return Fence(node, 1, incarnation)

    async def acquire(self, session_id: SessionId, node: NodeId, *, seen: Fence | None = None) -> Opened:
        """See :meth:`SessionStore.acquire`."""
        before = seen or Fence(NodeId("-"), 0, Incarnation(""))
        found = await self._call(
            "acquire",
            self._keys.session(session_id),
            session_id,
            node,
            before.node,
            before.token,
            before.incarnation,
            self._bounds.lifetime,
        )
        check(found, session_id)
        former, followers = text_of(found[10]), text_of(found[11])
        if former:
            self._news.tell((former, *followers.split()), session_id)
        elif followers:
            self._news.tell(followers.split(), session_id)
        return self._opened(found)

    async def inspect(self, session_id: SessionId) -> Opened:
        """See :meth:`SessionStore.inspect`."""
        return await self.follow(session_id, NOBODY)

    async def follow(self, session_id: SessionId, node: NodeId) -> Opened:
        """See :meth:`SessionStore.follow`."""
        meta, _, _, snapshot, _ = self._keys.session(session_id)
        found = await self._call("inspect", [meta, snapshot], node, self._bounds.followers)
        if found is None:
            raise SessionGone(session_id)
        check(found, session_id)
        return self._opened(found)

    async def unfollow(self, session_id: SessionId, node: NodeId) -> None:
        """See :meth:`SessionStore.unfollow`."""
        # With all keys of a session, as its writes: where some of them are being moved, that tells.
        await self._call("unfollow", self._keys.session(session_id), node)

    async def release(self, session_id: SessionId, fence: Fence, *, to: NodeId = NOBODY) -> None:
        """See :meth:`SessionStore.release`."""
        meta, _, _, _, busy = self._keys.session(session_id)
        found = await self._call("release", [meta, busy], session_id, *proof_of(fence), to)
        if found is None:
            raise Fenced(session_id)
        self._news.tell((*text_of(found[0]).split(), to), session_id)

    async def submit(self, session_id: SessionId, submitted: Submitted, seen: Position) -> Receipt:
        """See :meth:`SessionStore.submit`."""
        nonce = Nonce(self._draw(32))
        name, digest = name_of(submitted.key)
        found = await self._call(
            "submit",
            self._keys.session(session_id),
            session_id,
            seen.incarnation,
            name,
            digest,
            nonce,
            self._formats.encode_body(submitted),
            self._bounds.dedupe_window,
            self._bounds.lifetime,
            self._bounds.waiting_inputs,
            seen.seq,
            seen.nonce,
        )
        if found == b"REUSED":
            raise MessageIdReused
        if found == b"FULL":
            raise StoreBusy("too many inputs wait for an answer")
        check(found, session_id)
        if not found[0]:
            return Receipt(found[1], duplicate=True, entry=None)
        self._news.tell((text_of(found[2]), *text_of(found[3]).split()), session_id)
        return Receipt(found[1], duplicate=False, entry=Entry(found[1], nonce, submitted))

    async def recall(
        self, session_id: SessionId, incarnation: Incarnation, submitted: Submitted
    ) -> Receipt | None:
        """See :meth:`SessionStore.recall`."""
        if submitted.key is None:
            return None
        meta, _, names, _, _ = self._keys.session(session_id)
        found = await self._call("recall", [meta, names], incarnation, *name_of(submitted.key))
        if found == b"REUSED":
            raise MessageIdReused
        check(found, session_id)
        return None if found is None else Receipt(found, duplicate=True, entry=None)

    async def append(self, appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
        """See :meth:`SessionStore.append`."""
        calls = list(self._calls((each.session_id, sum(map(size_of, each.bodies))) for each in appends))
        if len(calls) == 1:
            return await self._append(appends)
        results: dict[int, Sequence[Entry] | StoreError] = {}
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._append([appends[i] for i in call])) for call in calls]
        for call, task in zip(calls, tasks, strict=True):
            results.update(zip(call, task.result(), strict=True))
        return [results[index] for index in range(len(appends))]

    def _calls(self, sessions: Iterable[tuple[SessionId, int]]) -> Iterable[list[int]]:
        """Yield which of *sessions*, each with the bytes that are sent of it, go into one call."""
        bounds, groups = self._bounds, dict[int, tuple[list[int], int]]()
        for index, (session_id, sent) in enumerate(sessions):
            group = self._keys.bucket(session_id) if self._is_cluster else 0
            call, size = groups.get(group, ([], 0))
            if len(call) >= bounds.call_sessions or size >= bounds.call_bytes:
                yield call
                call, size = [], 0
            call.append(index)
            groups[group] = call, size + sent
        for call, _ in groups.values():
            yield call

    async def _append(self, appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
        keys: list[str] = []
        asked: list[list[Any]] = []
        nonces: list[Nonce] = []
        encode = self._formats.encode_body
        for append in appends:
            keys += self._keys.session(append.session_id)
        packing = Packing(keys)
        for append in appends:
            nonce = Nonce(self._draw(32))
            nonces.append(nonce)
            written: list[Any] = []
            is_quiet = True  # nothing but pieces
            for body in append.bodies:
                is_quiet &= type(body) is Deltas
                written += (width(body), encode(body).decode())
            fence = append.fence
            asked.append(
                [
                    append.session_id,
                    fence.node,
                    str(fence.token),
                    fence.incarnation,
                    append.seen,
                    str(append.nonce),
                    append.consumed,
                    int(append.is_busy),
                    str(nonce),
                    int(not is_quiet),
                    written,
                    None,
                    None if is_quiet else noted(metadata_in(append.bodies)),
                ]
            )
            if append.finished and self._outbox is not None:
                asked[-1][_TURNS] = packing.add(self._outbox, append.session_id, append.finished)
        try:
            packed = msgspec.msgpack.encode([self._bounds.lifetime, asked, *packing.bounds])
            found = await self._call_by(self._writes, "append", keys, packed, *packing.turns)
        except StoreUnavailable as exc:
            return [exc] * len(appends)
        results = []
        for append, nonce, answer in zip(appends, nonces, found, strict=True):
            results.append(self._appended(append, nonce, answer))
        return results

    def _appended(self, append: Append, nonce: Nonce, answer: Any) -> Sequence[Entry] | StoreError:
        if isinstance(answer, bytes):
            return failure_of(answer, append.session_id)
        seq, followers = answer[0] + 1, answer[1]
        if followers:
            self._news.tell(text_of(followers).split(), append.session_id)
        self._note(append.session_id, append.finished, answer[2])
        return numbered(append.bodies, seq, nonce)

    async def read(
        self, session_id: SessionId, after: Position, limit: int, *, node: NodeId = NOBODY
    ) -> Page:
        """See :meth:`SessionStore.read`."""
        found = await self._readings.read(session_id, after, limit, node)
        check(found, session_id)
        incarnation, owner, token, head, consumed, holder, raw, is_told = found
        entries = [self._entry(each) for each in raw]
        if holder and (rest := rest_of(self._entry(holder), after.seq)) is not None:
            entries.insert(0, rest)
        if not are_whole(entries, after.seq, head):  # a server that evicts keys, or has lost some
            raise LostTail(session_id)
        is_end = (entries[-1].last if entries else after.seq) == head
        fence = Fence(NodeId(text_of(owner)), int(token), Incarnation(text_of(incarnation)))
        return Page(entries, fence, is_end, consumed, bool(is_told))

    def _read_together(self, readings: Sequence[Reading]) -> Iterable[Sequence[Reading]]:
        for call in self._calls((each.session_id, 0) for each in readings):
            yield [readings[index] for index in call]

    async def _read(self, readings: Sequence[Reading]) -> Sequence[Any]:
        bounds = self._bounds
        most = bounds.page_of(len(readings))
        keys: list[str] = []
        asked: list[list[Any]] = []
        for each in readings:
            keys += self._keys.session(each.session_id)[:2]
            after = each.after
            asked.append([after.incarnation, after.seq, str(after.nonce), min(each.limit, most), each.node])
        answers: Sequence[Any] = await self._call(
            "read", keys, msgspec.msgpack.encode([bounds.followers, asked])
        )
        return answers

    async def compact(self, session_id: SessionId, fence: Fence, floor: int, snapshot: Snapshot) -> None:
        """See :meth:`SessionStore.compact`."""
        found = await self._call(
            "compact",
            self._keys.session(session_id),
            *proof_of(fence),
            floor,
            snapshot.seq,
            snapshot.nonce,
            packed(self._formats.encode_state(snapshot.data)),
            self._bounds.lifetime,
        )
        if found != b"OK":
            check(found, session_id)

    async def metadata(self, session_ids: Sequence[SessionId]) -> list[Mapping[str, str] | None]:
        """See :meth:`SessionStore.metadata`."""
        names = list(session_ids)
        calls = [[names[i] for i in call] for call in self._calls((name, 0) for name in names)]
        found = await noted_of(calls, lambda call: self._call("metadata", [*map(self._keys.meta, call)]))
        return [found[name] for name in names]

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
        outbox, turns = self._put(session_id, finished)
        known = [[seq, *name_of(key)] for seq, key in sorted(keys.items())]
        found = await self._call(
            "reseed",
            [*self._keys.session(session_id), *outbox],
            session_id,
            *proof_of(fence),
            incarnation,
            snapshot.seq,
            snapshot.nonce,
            packed(self._formats.encode_state(snapshot.data)),
            self._bounds.lifetime,
            int(keeps_keys),
            msgspec.msgpack.encode(known[-self._bounds.dedupe_window :]),
            int(is_busy),
            *(("", "") if head is None else (head.seq, head.nonce)),
            noted(metadata or {}),
            *turns,
        )
        if found is None:
            raise Fenced(session_id)
        check(found, session_id)
        self._note(session_id, finished, found[2])
        self._news.tell(text_of(found[1]).split(), session_id)
        return Fence(fence.node, found[0], incarnation)

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
        outbox, turns = self._put(session_id, finished)
        written = []
        for entry in entries:
            body = entry.body
            text = self._formats.encode_body(body).decode()
            is_input = int(isinstance(body, Submitted))
            name, digest = name_of(body.key if isinstance(body, Submitted) else None)
            metadata = noted(metadata_in((body,)))
            written.append([entry.seq, width(body), str(entry.nonce), text, name, digest, is_input, metadata])
        found = await self._call(
            "rejoin",
            [*self._keys.session(session_id), *outbox],
            session_id,
            *proof_of(fence),
            after.seq,
            after.nonce,
            consumed,
            self._bounds.lifetime,
            msgspec.msgpack.encode(written),
            int(is_busy),
            *turns,
        )
        check(found, session_id)
        self._note(session_id, finished, found[1])
        self._news.tell(text_of(found[0]).split(), session_id)

    def _put(
        self, session_id: SessionId, finished: Sequence[FinishedTurn]
    ) -> tuple[Sequence[str], Sequence[Any]]:
        """Return the keys and arguments with which a script puts turns into the outbox."""
        if self._outbox is None or not finished:
            return (), ()
        return self._outbox.keys_of(session_id), self._outbox.arguments(finished)

    def _note(self, session_id: SessionId, finished: Sequence[FinishedTurn], lost: int) -> None:
        if self._outbox is not None and finished:
            self._outbox.note(session_id, len(finished), lost)

    async def busy(
        self, owner: NodeId, limit: int, *, known: Collection[SessionId] = ()
    ) -> list[tuple[SessionId, Fence]]:
        """See :meth:`SessionStore.busy`."""
        found: list[tuple[SessionId, Fence]] = []
        for keys in self._indexes():
            is_whole = False
            while not is_whole and len(found) < limit:
                named = await self._call("busy", keys, owner, limit - len(found) + len(known))
                names = [SessionId(each.decode()) for each in named]
                fences, is_whole = await self._fences([each for each in names if each not in known])
                if is_whole:  # else it named some that are no more, instead of others
                    found += [each for each in fences if each[1].node == owner]
        return found[:limit]

    def _indexes(self) -> list[list[str]]:
        """Return the indexes of what has something to do, together as a script may read them."""
        indexes = self._keys.indexes
        size = 1 if self._is_cluster else _INDEXES_AT_ONCE
        return [indexes[start : start + size] for start in range(0, len(indexes), size)]

    async def _fences(self, names: Sequence[SessionId]) -> tuple[list[tuple[SessionId, Fence]], bool]:
        """Return the fences of those sessions; False: some are no more. Their names are forgotten."""
        found: list[tuple[SessionId, Fence]] = []
        for session_id in names:
            meta, _, _, snapshot, busy = self._keys.session(session_id)
            told = await self._call("inspect", [meta, snapshot], NOBODY, self._bounds.followers)
            if told is None or isinstance(told, bytes):
                await self._call("forget", [meta, busy], session_id)
            else:
                found.append((session_id, fence_in(told)))  # its state may be a later release's
        return found, len(found) == len(names)

    async def owners(self) -> set[NodeId]:
        """See :meth:`SessionStore.owners`."""
        found: set[bytes] = set()
        for keys in self._indexes():
            found.update(await self._call("owners", keys))
        return {NodeId(each.decode()) for each in found}

    async def keep(self, session_ids: Collection[SessionId]) -> None:
        """See :meth:`SessionStore.keep`."""
        names = list(session_ids)
        calls = [[names[i] for i in call] for call in self._calls((name, 0) for name in names)]
        # Each by itself: what one server of a cluster doesn't do isn't left undone by the others.
        done = await asyncio.gather(*map(self._keep, calls), return_exceptions=True)
        for each in done:
            if each is not None:
                raise each

    async def _keep(self, session_ids: Sequence[SessionId]) -> None:
        keys = [key for each in session_ids for key in self._keys.session(each)]
        await self._call("keep", keys, self._bounds.lifetime)

    async def delete(self, session_id: SessionId, fence: Fence) -> None:
        """See :meth:`SessionStore.delete`."""
        if not await self._call("delete", self._keys.session(session_id), session_id, *proof_of(fence)):
            raise Fenced(session_id)

    async def erase(self, session_id: SessionId) -> None:
        """See :meth:`SessionStore.erase`."""
        keys = [*self._keys.session(session_id), self._keys.suspicion(session_id)]
        lasts = max(self._bounds.deleted, self._bounds.lifetime)
        owner, followers = await self._call("erase", keys, session_id, lasts)
        self._news.tell((text_of(owner), *text_of(followers).split()), session_id)

    def _opened(self, found: Sequence[Any]) -> Opened:
        head, consumed, floor, floor_nonce, seq, nonce, data = found[3:10]
        snapshot = None
        if seq is not None:
            snapshot = Snapshot(int(seq), Nonce(int(nonce)), self._formats.decode_state(unpacked(data)))
        return Opened(
            fence_in(found), int(floor), Nonce(int(floor_nonce)), int(head), int(consumed), snapshot
        )

    def _entry(self, raw: Sequence[Any]) -> Entry:
        number, fields = raw
        seq = int(number.partition(b"-")[0])
        return Entry(seq, Nonce(int(fields[1])), self._formats.decode_body(fields[3]))
