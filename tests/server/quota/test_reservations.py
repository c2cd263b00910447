"""What a turn has reserved: how long it has it, and how it comes to more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.server.quota.gating import ALICE, SESSION, World
from unbroken.server.plan_tables import Mode
from unbroken.server.quota.base import Amount, Decision, Scope
from unbroken.server.quota.memory import MemoryLedger
from unbroken.server.quota.refusal import QuotaRefusal
from unbroken.sessions.entries import CreateResponse
from unbroken.sessions.errors import Refusal, StoreBusy
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.items import ResponseRequest, Usage
from unbroken.sessions.responder import Finish, Working


async def test_a_turn_that_runs_for_long_keeps_its_budget() -> None:
    world = World()
    await world.reserve()
    async for _ in world.metered([Working()] * 20):
        world.clock.advance(100)
        assert (await world.used())["turns"] == 1


async def test_what_waits_for_long_behind_a_turn_keeps_its_budget_and_its_place() -> None:
    """Turns at once are those that run or wait: nobody takes the place of one that has waited for long."""
    world = World(turns=2)
    await world.reserve()
    await world.reserve(response_id=ResponseId("resp_2"))
    world.waiting = [ResponseId("resp_2")]
    async for _ in world.metered([Working()] * 20):
        world.clock.advance(60)
        await world.gate.settled()
        with pytest.raises(QuotaRefusal, match="run or wait"):
            await world.reserve(response_id=ResponseId("resp_3"))

    world.waiting = []
    world.clock.advance(301)
    assert (await world.used())["turns"] == 0, "nobody holds it any more"


async def test_what_waits_behind_many_short_turns_keeps_its_place() -> None:
    """Each is too short to renew anything; together they aren't."""
    world = World(turns=2)
    await world.reserve()
    await world.reserve(response_id=ResponseId("resp_2"))
    world.waiting = [ResponseId("resp_2")]
    for _ in range(5):
        async for _piece in world.metered([Working()] * 9):
            world.clock.advance(10)
            await world.gate.settled()

    assert (await world.used())["turns"] == 2


@pytest.mark.parametrize("asks", ["renewal", "loosen"])
async def test_what_is_given_back_while_it_is_being_held_leaves_no_turn_behind(asks: str) -> None:
    """It was merged into another while the call was under way: nobody would end it again."""
    world = World(turns=5)
    await world.reserve()
    waits = CreateResponse(ResponseId("resp_2"), ResponseRequest())
    await world.reserve(response_id=waits.response_id)
    world.waiting = [waits.response_id]
    asker, keep = world.gate.asker(ALICE, None), world.ledger.keep
    assert asker is not None
    is_asked, goes_on = asyncio.Event(), asyncio.Event()

    async def late(*args: Any, **kwargs: Any) -> None:
        is_asked.set()
        await goes_on.wait()
        await keep(*args, **kwargs)

    world.ledger.keep = late  # type: ignore[method-assign]
    if asks == "renewal":
        await world.answer("x")
    else:
        asker.loosen(world.session, waits)
    await is_asked.wait()
    await world.ledger.release("acme", f"{SESSION}:{waits.response_id}")
    goes_on.set()
    await world.gate.settled()

    assert (await world.used())["turns"] == 1


async def test_a_turn_that_lapsed_while_it_waited_does_not_begin_beyond_the_limit() -> None:
    """Nobody could hold it: its nodes were away. Others have taken its place since."""
    world = World(turns=1)
    await world.reserve()
    world.clock.advance(301)
    await world.reserve(response_id=ResponseId("resp_2"))

    assert await world.answer("x") == [Finish("quota_exceeded")]
    assert not world.asked
    assert (await world.used())["turns"] == 1


async def test_a_second_attempt_begins_though_the_first_one_s_place_was_not_given_back_yet() -> None:
    world = World(turns=1)
    await world.reserve(response_id=ResponseId("resp_0"))

    assert [piece async for piece in world.metered(["x"], attempt=2)] == ["x"]


@pytest.mark.parametrize(
    ("seconds", "text", "calls"),
    [(0, "", 0), (30, "", 1), (0, "y" * 4000, 1)],
    ids=["", "long ago", "too little"],
)
async def test_who_has_reserved_enough_here_is_not_asked_again(seconds: int, text: str, calls: int) -> None:
    """One call less before the first word. It is good for one attempt."""
    world = World(tokens_per_day=10**6)
    asked: list[Amount] = []
    hold = world.ledger.hold

    async def counted(tenant: str, turn: str, scopes: Any, limits: Any, amount: Amount, **rest: Any) -> Any:
        asked.append(amount)
        return await hold(tenant, turn, scopes, limits, amount, **rest)

    world.ledger.hold = counted  # type: ignore[method-assign]
    await world.reserve()
    world.clock.advance(seconds)
    await world.answer("x", text=text)
    assert len(asked) == calls
    await world.answer("x", text=text)
    assert len(asked) == calls + 1


async def test_a_turn_that_has_budget_left_is_not_cut_short_for_want_of_more() -> None:
    """Others have taken the rest; it renews what it has, and says what it may."""
    world = World(tokens_per_day=2000)
    await world.reserve()
    await world.ledger.settle("acme", "other", (Scope("u", ALICE.id),), Amount(10_000), None)
    said = []
    async for piece in world.metered(["four"] * 1000):
        said.append(piece)
        world.clock.advance(1)

    assert said[-1] == Finish("quota_exceeded")
    assert 499 <= len(said) - 1 <= 500, "a fourth of the limit was reserved"


class BusyLedger(MemoryLedger):
    """One that this node asks too much of, while it *is_busy*."""

    is_busy = False

    async def reserve(self, *args: Any, **kwargs: Any) -> Decision:
        if self.is_busy:
            raise StoreBusy
        return await super().reserve(*args, **kwargs)

    async def hold(self, *args: Any, **kwargs: Any) -> Decision:
        if self.is_busy:
            raise StoreBusy
        return await super().hold(*args, **kwargs)


def busy_world(mode: Mode) -> tuple[World, BusyLedger]:
    world = World(mode=mode, ledger=BusyLedger, tokens_per_day=10**6)
    assert isinstance(world.ledger, BusyLedger)
    return world, world.ledger


def decided(world: World, outcome: str) -> float:
    labels = {"outcome": outcome}
    return world.metrics.registry.get_sample_value("unbroken_quota_decisions_total", labels) or 0.0


@pytest.mark.parametrize("mode", ["on", "shadow"])
async def test_a_node_that_is_busy_ends_no_answer_that_runs(mode: Mode) -> None:
    """Neither where more is to be held, nor before a further round of tools. It is counted at its end."""
    world, ledger = busy_world(mode)
    await world.reserve()
    ledger.is_busy = True
    said = await world.answer_in_rounds(("hi", ["x" * 8000]), ("y" * 4000, ["z"]))
    assert said == ["x" * 8000, "z"]
    assert world.rounds == 2
    assert decided(world, "busy") == 3, "either prompt, and what was said"

    await world.end("completed", Usage(1000, 2001))
    assert (await world.used())["td"] == 3001


async def test_a_node_that_is_busy_asks_whoever_comes_to_ask_again() -> None:
    world, ledger = busy_world("on")
    ledger.is_busy = True
    with pytest.raises(Refusal, match="Send this again") as caught:
        await world.reserve()
    assert caught.value.code == "store_unavailable"
