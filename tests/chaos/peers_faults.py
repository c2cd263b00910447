"""How peers behave, planted in this server: each scenario of ``peers.py`` has to notice its own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import orjson
import pytest

from tests.sessions.town import Town
from unbroken.server.protocols.realtime.connection import RealtimeConnection
from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.base import Append, Opened, Receipt
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.cursor import Cursor
from unbroken.sessions.entries import Body, CancelResponse, Entry, Submitted
from unbroken.sessions.event_log import Position, Record
from unbroken.sessions.ids import ChainId, NodeId, PrincipalId, SessionId
from unbroken.sessions.node import Attachment, Node
from unbroken.sessions.ownership import Ownership
from unbroken.sessions.session import Session

__all__ = [
    "Fault",
    "attach_behind_the_end",
    "drop_what_comes_from_elsewhere",
    "expect_the_next_number",
    "have_no_fence",
    "hear_of_stop_by_news_alone",
    "listen_once_something_was_said",
    "never_look",
    "read_all_logs",
    "replay_and_go_on_from_there",
    "subscribe_late",
]

Fault: TypeAlias = Callable[[pytest.MonkeyPatch, Town], None]


def subscribe_late(patch: pytest.MonkeyPatch, _: Town) -> None:
    """A subscription takes effect when everything has been said."""

    async def follow(self: MemoryStore, session_id: SessionId, _: NodeId) -> Opened:
        return await self.inspect(session_id)

    patch.setattr(MemoryStore, "follow", follow)


def expect_the_next_number(patch: pytest.MonkeyPatch, _: Town) -> None:
    """Pieces are numbered in each answer anew, and a node expects the number after the last one it saw."""
    records = RealtimeConnection.records
    expected: Counter[int] = Counter()
    numbers: Counter[int] = Counter()

    def numbered(self: RealtimeConnection, given: Sequence[Record]) -> Iterator[bytes]:
        node, me = id(self._encoder), id(self)
        for data in records(self, given):
            kind = orjson.loads(data)["type"]
            if kind == "response.created":
                numbers[me] = 0
            if kind == "response.output_text.delta":
                numbers[me] += 1
                if numbers[me] < expected[node]:
                    continue  # "a duplicate"
                expected[node] = numbers[me] + 1
            yield data

    patch.setattr(RealtimeConnection, "records", numbered)


def replay_and_go_on_from_there(patch: pytest.MonkeyPatch, _: Town) -> None:
    """Whoever comes is shown what there is, and then goes on from where that began."""
    take = Cursor.take
    replayed: defaultdict[int, bool] = defaultdict(bool)

    def twice(self: Cursor, limit: int) -> list[Record]:
        start, found = self.seq, take(self, limit)
        if found and not replayed[id(self)]:
            replayed[id(self)] = True
            self.seq = start
        return found

    patch.setattr(Cursor, "take", twice)


def listen_once_something_was_said(patch: pytest.MonkeyPatch, _: Town) -> None:
    """A stream is announced before its producer listens: a request to be shown it is lost till then."""
    follow = MemoryStore.follow

    async def early(self: MemoryStore, session_id: SessionId, node: NodeId) -> Opened:
        opened = await self.inspect(session_id)
        start = Position(opened.fence.incarnation, opened.floor, opened.floor_nonce)
        page = await self.read(session_id, start, 10_000)
        has_begun = any(hasattr(entry.body, "parts") for entry in page.entries)
        return await follow(self, session_id, node) if has_begun else opened

    patch.setattr(MemoryStore, "follow", early)


def attach_behind_the_end(patch: pytest.MonkeyPatch, _: Town) -> None:
    """Once the stream has ended, nobody is shown any more of it."""
    attach = Node.attach

    async def forgetful(
        self: Node,
        session_id: SessionId,
        principal: PrincipalId,
        position: Position | None,
        chain: ChainId,
        **more: bool,
    ) -> Attachment:
        actor = self.hub.get(session_id) or await self._ownership.load(session_id)
        if not actor.session.responses:
            position = actor.log.position(actor.log.head)
        return await attach(self, session_id, principal, position, chain, **more)

    patch.setattr(Node, "attach", forgetful)


def never_look(patch: pytest.MonkeyPatch, _: Town) -> None:
    """Who follows goes by what it is told alone."""
    patch.setattr(Ownership, "on_poll", lambda _: None)


def read_all_logs(patch: pytest.MonkeyPatch, town: Town) -> None:
    """What all were told is one stream, in which whoever comes looks for its own."""
    load = Ownership.load

    async def sharing(self: Ownership, session_id: SessionId) -> Actor:
        for other in list(town.memory._sessions):
            opened = await town.memory.inspect(other)
            start = Position(opened.fence.incarnation, opened.floor, opened.floor_nonce)
            await town.memory.read(other, start, 10_000)
        return await load(self, session_id)

    patch.setattr(Ownership, "load", sharing)


def drop_what_comes_from_elsewhere(patch: pytest.MonkeyPatch, _: Town) -> None:
    """What a client sends to another node than its session's is relayed to nobody."""
    write = Actor._write_input

    async def unrelayed(self: Actor, submitted: Submitted) -> Receipt:
        if self.is_owner:
            return await write(self, submitted)
        return Receipt(self.session.applied, duplicate=True, entry=None)

    patch.setattr(Actor, "_write_input", unrelayed)


def hear_of_stop_by_news_alone(patch: pytest.MonkeyPatch, town: Town) -> None:
    """Who listens for Stop listens for nothing any more, once that has been silent for a while."""
    cancel = Session._cancel

    def deaf(self: Session, seq: int, command: CancelResponse) -> list[Body]:
        return [] if town.is_silent else cancel(self, seq, command)

    patch.setattr(Session, "_cancel", deaf)


def have_no_fence(patch: pytest.MonkeyPatch, _: Town) -> None:
    """Who had the lease once writes on, behind whatever others have written."""

    def unfenced(self: MemoryStore, append: Append) -> Iterable[Entry]:
        return self._write(self._sessions[append.session_id], append.bodies)

    patch.setattr(MemoryStore, "_append", unfenced)
