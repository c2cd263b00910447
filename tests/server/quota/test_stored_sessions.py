"""How many sessions somebody may have stored."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from unbroken.server.auth.principal import STRANGERS, Principal
from unbroken.server.fair_names import FairNames
from unbroken.server.quota.plans import Plans
from unbroken.server.quota.stored_sessions import StoredSessions
from unbroken.server.quota_settings import PlanQuota
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.backends.memory_index import MemoryIndex
from unbroken.sessions.errors import Refusal, StoreUnavailable
from unbroken.sessions.ids import NodeId, SessionId, new_incarnation, new_session_id

ALICE, BOB = Principal("alice"), Principal("bob", plan="small")


class World:
    """A bound, and those who begin sessions; nobody forgets to list them."""

    def __init__(self, most: int, plans: Plans | None = None) -> None:
        self.index, self.store, self.clock = MemoryIndex(), MemoryStore(), FakeClock()
        self.names = FairNames()
        self.bound = StoredSessions(
            self.index, self.store, self.clock, most=most, plans=plans, name_of=self.names.of
        )
        self.asked = 0
        admit = self.index.admit

        async def counted(*args: Any) -> int:
            self.asked += 1
            return await admit(*args)

        self.index.admit = counted  # type: ignore[method-assign, assignment]

    async def begin(self, principal: Principal = ALICE, times: int = 1) -> SessionId:
        session_id = SessionId("")
        for _ in range(times):
            session_id = new_session_id(principal.id)
            await self.bound.admit(principal, session_id)
            await self.store.create(session_id, NodeId("a"), new_incarnation())
            await self.index.note(principal.id, {session_id: int(1000 * self.clock.time())})
            self.clock.advance(0.001)
        return session_id

    async def is_refused(self, principal: Principal = ALICE) -> bool:
        try:
            await self.begin(principal)
        except Refusal as refusal:
            assert refusal.code == "too_many_stored_sessions"
            assert "Delete some" in refusal.message
            return True
        return False


async def test_there_are_as_many_as_may_be_and_others_have_their_own() -> None:
    world = World(3)
    await world.begin(times=3)
    assert await world.is_refused()
    await world.begin(BOB, times=3)
    assert await world.is_refused(BOB)


async def test_an_application_s_key_that_names_no_user_is_bound_by_its_plan_alone() -> None:
    plans = Plans({"small": PlanQuota(sessions=3)})
    world = World(2, plans)
    await world.begin(Principal("key:backend"), times=5)
    await world.begin(Principal("key:other", plan="small"), times=3)
    assert await world.is_refused(Principal("key:other", plan="small"))
    await world.begin(Principal("user:alice"), times=2)
    assert await world.is_refused(Principal("user:alice"))


async def test_those_that_begin_at_once_are_counted_before_any_has_begun() -> None:
    world = World(3)
    names = [new_session_id(ALICE.id) for _ in range(9)]
    results = await asyncio.gather(
        *(world.bound.admit(ALICE, name) for name in names), return_exceptions=True
    )
    assert [type(result) for result in results] == 3 * [type(None)] + 6 * [Refusal]
    for name, result in zip(names, results, strict=True):
        if result is None:  # which asks again, as its node was out of reach
            await world.bound.admit(ALICE, name)
    world.clock.advance(61)  # and has never begun
    assert not await world.is_refused()


async def test_what_is_deleted_makes_room_at_once() -> None:
    world = World(3)
    await world.begin(times=2)
    last = await world.begin()
    assert await world.is_refused()
    await world.store.erase(last)
    await world.index.drop(ALICE.id, [last])
    await world.begin()
    assert await world.is_refused()


async def test_what_has_ended_by_itself_is_found_to_have() -> None:
    """Nobody tells the index of that: who is at the bound has it looked up, once in a while."""
    world = World(200)
    first = await world.begin()
    await world.begin(times=198)
    last = await world.begin()
    assert await world.is_refused()
    for gone in (first, last):
        await world.store.erase(gone)
    assert await world.is_refused(), "it was looked up just now"
    world.clock.advance(61)
    await world.begin()
    world.clock.advance(61)
    await world.begin()
    assert await world.is_refused()


async def test_a_plan_may_allow_fewer_and_never_more() -> None:
    quotas = {"default": PlanQuota(), "small": PlanQuota(sessions=2), "large": PlanQuota(sessions=9)}
    world = World(4, Plans(quotas))
    await world.begin(BOB, times=2)
    assert await world.is_refused(BOB)
    await world.begin(times=4)
    assert await world.is_refused()
    large = Principal("carol", plan="large")
    await world.begin(large, times=4)
    assert await world.is_refused(large)


@pytest.mark.parametrize("mode", ["off", "shadow"])
async def test_a_plan_that_does_not_hold_refuses_nobody(mode: Any) -> None:
    plans = Plans({"default": PlanQuota(sessions=1)}, {"default": mode})
    world = World(0, plans)
    await world.begin(times=5)
    assert world.asked == 0


async def test_strangers_of_one_address_share() -> None:
    world = World(3)
    for number in range(3):
        stranger = Principal(f"s{number}", STRANGERS)
        world.names.note_stranger(stranger.id, b"\x01")
        await world.begin(stranger)
    for address, is_refused in ((b"\x01", True), (b"\x02", False), (None, False)):
        other = Principal(f"at {address!r}", STRANGERS)
        world.names.note_stranger(other.id, address)
        assert await world.is_refused(other) is is_refused


async def test_who_is_far_from_the_bound_is_not_counted_each_time() -> None:
    world = World(640)
    await world.begin(times=11)
    assert world.asked == 1
    await world.begin()
    world.clock.advance(11)
    await world.begin()
    assert world.asked == 3
    await world.begin(times=480 - 13)
    world.asked = 0
    await world.begin(times=160)
    assert 150 <= world.asked <= 160
    assert await world.is_refused()


async def test_where_it_can_not_be_counted_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1)
    await world.begin()

    async def gone(*_: Any) -> int:
        raise StoreUnavailable

    monkeypatch.setattr(world.index, "admit", gone)
    assert not await world.is_refused()


async def test_what_is_not_stored_is_not_counted() -> None:
    world = World(1)
    await world.begin()
    await world.bound.admit(ALICE, new_session_id(ALICE.id, transient=True))


async def test_a_crowd_does_not_find_out_one_after_another_that_it_can_not_be_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, asked, failing, calls = World(1), asyncio.Event(), asyncio.Event(), 0
    await world.begin()

    async def gone(*_: Any) -> int:
        nonlocal calls
        calls += 1
        asked.set()
        await failing.wait()
        raise StoreUnavailable

    monkeypatch.setattr(world.index, "admit", gone)
    crowd = [asyncio.create_task(world.bound.admit(ALICE, new_session_id(ALICE.id))) for _ in range(20)]
    await asked.wait()
    failing.set()
    await asyncio.gather(*crowd)
    assert calls == 1
