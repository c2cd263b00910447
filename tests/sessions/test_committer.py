from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from tests.sessions.conversation import settle
from unbroken.sessions.backends.base import Append, Fence
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.committer import Committer, Committers
from unbroken.sessions.entries import Entry, ItemDeleted
from unbroken.sessions.errors import NodeDraining, SessionGone, StoreError
from unbroken.sessions.ids import Incarnation, ItemId, NodeId, Nonce, SessionId

NODE = NodeId("node_a")
LIFE = Incarnation("0a0a0a0a")


class GatedStore(MemoryStore):
    """A store behind a network: a call is answered when the test lets it be."""

    append_now = None  # type: ignore[assignment]  # it has to be waited for

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[SessionId]] = []
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def append(self, appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
        self.calls.append([each.session_id for each in appends])
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [self._append(each) for each in appends]


class Clerk:
    """A writer with a stack of things to write."""

    def __init__(self, name: str) -> None:
        self.session_id = SessionId(name)
        self.fence = Fence(NODE, 1, LIFE)
        self.is_scheduled = False
        self.waiting: list[str] = []
        self.asked = 0
        self.results: list[Sequence[Entry] | StoreError] = []

    def next_append(self) -> Append | None:
        self.asked += 1
        if not self.waiting:
            return None
        bodies = [ItemDeleted(ItemId(name)) for name in self.waiting]
        self.waiting.clear()
        return Append(self.session_id, self.fence, 0, Nonce(0), 0, bodies)

    def committed(self, result: Sequence[Entry] | StoreError) -> bool:
        self.results.append(result)
        return True


class Office:
    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.tasks: set[asyncio.Task[None]] = set()
        self.committer = Committer(store, self.spawn, FakeClock())

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def clerk(self, name: str) -> Clerk:
        await self.store.create(SessionId(name), NODE, LIFE)
        return Clerk(name)

    def hand(self, clerk: Clerk, *names: str) -> None:
        clerk.waiting += names
        self.committer.schedule(clerk)


@pytest.fixture
async def gated() -> AsyncIterator[Office]:
    office = Office(GatedStore())
    yield office
    for task in office.tasks:
        task.cancel()
    if office.tasks:
        await asyncio.wait(office.tasks)


def gate_of(office: Office) -> GatedStore:
    assert isinstance(office.store, GatedStore)
    return office.store


async def test_what_waits_is_written_in_one_call_and_what_comes_meanwhile_in_the_next(gated: Office) -> None:
    store = gate_of(gated)
    a, b, c = [await gated.clerk(name) for name in "abc"]
    gated.hand(a, "1")
    gated.hand(b, "1")
    await settle()
    for clerk in (c, a, a, b):
        gated.hand(clerk, "2")
    await settle()
    assert store.calls == [["a", "b"]], "one call in flight, whatever else there is"
    store.gate.set()
    await settle()

    assert store.calls == [["a", "b"], ["c", "a", "b"]]
    assert [len(clerk.results) for clerk in (a, b, c)] == [2, 2, 1]
    assert not gated.tasks, "an idle committer has no task"
    gated.hand(a, "3")
    await settle()
    assert store.calls[2:] == [["a"]]


async def test_one_session_s_refusal_is_its_own(gated: Office) -> None:
    store = gate_of(gated)
    store.gate.set()
    known, unknown = await gated.clerk("known"), Clerk("unknown")
    gated.hand(known, "1")
    gated.hand(unknown, "1")
    await settle()

    assert not isinstance(known.results[0], StoreError)
    assert isinstance(unknown.results[0], SessionGone)


@pytest.mark.parametrize("failure", [StoreError("gone"), RuntimeError("a bug")])
async def test_a_call_that_fails_is_told_to_all_it_was_for(gated: Office, failure: Exception) -> None:
    store = gate_of(gated)
    store.failure = failure
    store.gate.set()
    a, b = await gated.clerk("a"), await gated.clerk("b")
    gated.hand(a, "1")
    gated.hand(b, "1")
    await settle()

    assert all(isinstance(clerk.results[0], StoreError) for clerk in (a, b))
    store.failure = None
    gated.hand(a, "2")
    await settle()
    assert not isinstance(a.results[1], StoreError), "it goes on"


async def test_a_store_in_memory_is_written_to_without_a_task() -> None:
    office = Office(MemoryStore())
    clerk = await office.clerk("a")
    office.hand(clerk, "1")
    office.hand(clerk, "2")
    assert clerk.results == [], "but not in the step of who schedules"
    await settle()
    assert len(clerk.results) == 1

    clerk.waiting.append("3")
    office.committer.write(clerk)
    assert len(clerk.results) == 2, "unless that is asked for"
    assert not office.tasks


async def test_nothing_is_written_after_the_end(gated: Office) -> None:
    for office in (gated, Office(MemoryStore())):
        clerk = await office.clerk("a")
        office.hand(clerk, "1")
        office.committer.close()
        await settle()

        assert clerk.results == []
        clerk.is_scheduled = False
        for ask in (office.committer.schedule, office.committer.write):
            with pytest.raises(NodeDraining):
                ask(clerk)


async def test_nothing_is_written_after_the_end_to_a_part_that_comes_then(gated: Office) -> None:
    committers = Committers(gated.store, gated.spawn, FakeClock())
    committers.close()
    with pytest.raises(NodeDraining):
        committers.of("another").schedule(await gated.clerk("a"))


async def test_a_store_in_memory_that_fails_fails_the_session_it_was_for_and_no_other() -> None:
    class Broken(MemoryStore):
        def append_now(self, appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
            if appends[0].session_id == "bad":
                raise TypeError("a bug")
            return super().append_now(appends)

    office = Office(Broken())
    clerks = [await office.clerk(name) for name in ("good", "bad", "late")]
    for clerk in clerks:
        office.hand(clerk, "1")
    await settle()

    assert [isinstance(clerk.results[0], StoreError) for clerk in clerks] == [False, True, False]
    assert not any(clerk.is_scheduled for clerk in clerks)
    office.hand(clerks[2], "2")
    await settle()
    assert len(clerks[2].results) == 2


@pytest.mark.parametrize("patience", [0.0, 1.0])
async def test_what_is_written_for_many_bears_the_ids_of_none(patience: float) -> None:
    """Log lines take the ids that their context has: it must not be that of who came first."""
    ident: contextvars.ContextVar[str] = contextvars.ContextVar("ident", default="nobody's")
    seen: list[str] = []

    class Watched(Clerk):
        def next_append(self) -> Append | None:
            seen.append(ident.get())
            return super().next_append()

    clock = FakeClock()
    office = Office(MemoryStore())
    office.committer = Committer(office.store, office.spawn, clock, patience=patience)
    ident.set("mine")
    office.committer.hold(Watched("a"))
    await settle()
    clock.advance(2)

    assert set(seen) == {"nobody's"}
