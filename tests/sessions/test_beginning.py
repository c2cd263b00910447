"""Logs that two begin: one that is empty has nothing to lose, and one that isn't stays."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.fakes.clock import FakeClock
from tests.sessions.conversation import settle
from unbroken.sessions.backends.base import Append, Fence
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.beginning import begin
from unbroken.sessions.entries import Entry, SessionOpened
from unbroken.sessions.errors import CursorLost, Fenced, SessionDeleted, StoreError
from unbroken.sessions.ids import Incarnation, NodeId, Nonce, PrincipalId, SessionId
from unbroken.sessions.items import SessionConfig

SESSION = SessionId("sess_1")
ONE, TWO = NodeId("node_1"), NodeId("node_2")
OPENED = SessionOpened(PrincipalId("alice"), SessionConfig("model"), 1)


def fence_of(node: NodeId, incarnation: str) -> Fence:
    return Fence(node, 1, Incarnation(incarnation))


def begun_by_two(store: MemoryStore, clock: FakeClock) -> asyncio.Task[tuple[Fence, Sequence[Entry]]]:
    return asyncio.create_task(begin(store, SESSION, fence_of(TWO, "two"), OPENED, clock, was_tried=False))


async def say(store: MemoryStore, fence: Fence) -> StoreError | list[Entry]:
    (result,) = await store.append([Append(SESSION, fence, 0, Nonce(0), 0, [OPENED], is_busy=False)])
    return result if isinstance(result, StoreError) else list(result)


async def test_an_empty_log_of_another_life_is_taken_when_its_owner_has_had_a_moment() -> None:
    store, clock = MemoryStore(), FakeClock()
    first = await store.create(SESSION, ONE, Incarnation("one"))
    beginning = asyncio.create_task(
        begin(store, SESSION, fence_of(TWO, "two"), OPENED, clock, was_tried=False)
    )
    await settle()
    assert not beginning.done()
    clock.advance(1)

    fence, entries = await beginning

    assert (fence, len(entries)) == (fence_of(TWO, "two"), 1)
    assert isinstance(await say(store, first), Fenced)


async def test_who_says_something_in_that_moment_keeps_it() -> None:
    store, clock = MemoryStore(), FakeClock()
    first = await store.create(SESSION, ONE, Incarnation("one"))
    beginning = asyncio.create_task(
        begin(store, SESSION, fence_of(TWO, "two"), OPENED, clock, was_tried=False)
    )
    await settle()
    assert not isinstance(await say(store, first), StoreError)
    clock.advance(1)

    with pytest.raises(CursorLost):
        await beginning
    found = await store.inspect(SESSION)
    assert found.head == 1
    assert found.fence.incarnation == "one"


async def test_one_s_own_empty_log_of_another_life_is_begun_anew_at_once() -> None:
    store = MemoryStore()
    await store.create(SESSION, ONE, Incarnation("one"))
    fence, _ = await begin(store, SESSION, fence_of(ONE, "two"), OPENED, FakeClock(), was_tried=False)
    assert fence == fence_of(ONE, "two")


async def test_what_was_deleted_meanwhile_is_not_begun_anew() -> None:
    store, clock = MemoryStore(), FakeClock()
    await store.create(SESSION, ONE, Incarnation("one"))
    beginning = asyncio.create_task(
        begin(store, SESSION, fence_of(TWO, "two"), OPENED, clock, was_tried=False)
    )
    await settle()
    await store.erase(SESSION)
    clock.advance(1)
    with pytest.raises(SessionDeleted):
        await beginning
