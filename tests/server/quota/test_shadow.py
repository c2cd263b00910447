"""In shadow all is counted, and nobody notices: nothing is refused, and no limit is told."""

from __future__ import annotations

import pytest

from tests.fakes.clock import FakeClock
from tests.server.quota.gating import ALICE, World, turn_of
from tests.server.quota.ledger_contract import SCOPES, USER, record
from tests.server.quota.test_reservations import BusyLedger, decided
from tests.server.quota.test_sheltered import LIMITS, FailingLedger, told
from unbroken.server.quota.base import Amount
from unbroken.server.quota.gate import UnknownPrincipal
from unbroken.server.quota.refusal import headers, rate_limits
from unbroken.server.quota.report import own_report
from unbroken.server.quota.sheltered import ShelteredLedger
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.items import ResponseRequest


async def test_limits_that_do_not_hold_are_not_told() -> None:
    world = World(mode="shadow", requests_per_minute=1)
    for number in range(3):
        decision = await world.reserve(response_id=ResponseId(f"resp_{number}"))
        assert rate_limits(decision) == []
    body, standing = await own_report(world.gate, ALICE, None, 5)

    assert headers(standing) == {}
    assert body["usage"]["requests_per_minute"] == {"used": 3}
    assert (decided(world, "granted"), decided(world, "would_deny")) == (1, 2)


async def test_a_ledger_that_can_not_be_asked_refuses_nobody() -> None:
    world = World(mode="shadow", ledger=BusyLedger)
    assert isinstance(world.ledger, BusyLedger)
    world.ledger.is_busy = True
    assert rate_limits(await world.reserve()) == []
    assert decided(world, "would_deny") == 1

    assert await world.answer("x") == ["x"]


@pytest.mark.parametrize("fault", ["is_gone", "is_busy"])
async def test_what_the_others_can_not_be_asked_about_they_are_told_of(fault: str) -> None:
    """Also where it is strict, which refuses whoever is of other plans."""
    clock, alone = FakeClock(), list[str]()
    shared = FailingLedger(clock)
    node = ShelteredLedger(shared, clock, lambda: alone.append(""), is_strict=True)
    setattr(shared, fault, True)
    decision = await node.reserve("acme", "a", SCOPES, LIMITS, Amount(10), lifetime=300, enforce=False)
    assert (decision.denied, len(alone)) == (None, 1)
    await node.settle("acme", "a", SCOPES, Amount(20), record("a", 20))
    setattr(shared, fault, False)
    await told(node, clock)

    looked = (await shared.look("acme", [USER]))[0]
    assert (looked["rd"], looked["td"], looked["turns"]) == (1, 20, 0)


@pytest.mark.parametrize(("plan", "is_refused"), [("default", True), ("trial", False), (None, True)])
async def test_whom_nobody_knows_runs_by_a_plan_in_shadow(plan: str | None, *, is_refused: bool) -> None:
    """By others, where it is strict, it doesn't. Whose it is isn't known; by which plan it came is."""
    world = World(is_strict=True, shadow=("trial",))
    turn = turn_of(plan=plan)
    answer = world.answer_to(turn, ["x"])

    if is_refused:
        with pytest.raises(UnknownPrincipal):
            await anext(answer)
    else:
        assert [piece async for piece in answer] == ["x"]


async def test_a_response_by_a_plan_in_shadow_is_held_for_all_the_same() -> None:
    world = World(mode="shadow", tokens_per_day=10)
    await world.reserve(ResponseRequest())
    assert await world.answer("x" * 4000) == ["x" * 4000]

    assert (await world.used())["td"] > 1000
