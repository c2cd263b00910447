"""While the shared ledger is out of reach, each node counts alone; nothing is settled twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
import structlog

from tests.fakes.clock import FakeClock
from tests.server.quota.ledger_contract import SCOPES, USER, LedgerContract, record
from unbroken.server.quota.base import Amount, Decision, Ledger, Standing
from unbroken.server.quota.memory import MemoryLedger
from unbroken.server.quota.sheltered import ShelteredLedger
from unbroken.sessions.errors import StoreBusy, StoreUnavailable

LIMITS = {"u": {"rm": 2}}


class FailingLedger(MemoryLedger):
    """A shared ledger, with each tenant in a part of its own. Fault verbs: set *is_gone*, or *part_gone*."""

    is_gone = False
    part_gone: str | None = None
    is_busy = False
    """Whether nothing is done, for want of a turn."""
    is_mute = False
    """Whether what is asked for is done, and nobody hears of it."""
    asked = 0
    is_frozen = False
    """Whether nobody is answered, ever; then somebody *is_waiting*."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.is_waiting = asyncio.Event()

    async def reserve(self, *args: Any, **kwargs: Any) -> Decision:
        await self._reach(*args)
        return await super().reserve(*args, **kwargs)

    async def hold(self, *args: Any, **kwargs: Any) -> Decision:
        await self._reach(*args)
        return await super().hold(*args, **kwargs)

    async def settle(self, *args: Any, **kwargs: Any) -> bool:
        await self._reach(*args)
        first = await super().settle(*args, **kwargs)
        if self.is_mute:
            raise StoreUnavailable("mute")
        return first

    async def release(self, *args: Any, **kwargs: Any) -> None:
        await self._reach(*args)
        await super().release(*args, **kwargs)

    async def look(self, *args: Any, **kwargs: Any) -> list[Mapping[str, int]]:
        await self._reach(*args)
        return await super().look(*args, **kwargs)

    async def standings(self, *args: Any, **kwargs: Any) -> tuple[Standing, ...]:
        await self._reach(*args)
        return await super().standings(*args, **kwargs)

    def part_of(self, tenant: str) -> str:
        return tenant

    async def _reach(self, tenant: str, *_: Any) -> None:
        self.asked += 1
        await asyncio.sleep(0)  # as any call over a network would
        if self.is_frozen:
            self.is_waiting.set()
            await asyncio.Event().wait()
        if self.is_busy:
            raise StoreBusy
        if self.is_gone or self.part_of(tenant) == self.part_gone:
            raise StoreUnavailable("gone")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shared(clock: FakeClock) -> FailingLedger:
    return FailingLedger(clock)


class TestShelteredLedger(LedgerContract):
    @pytest.fixture
    def nodes(self, clock: FakeClock, shared: FailingLedger) -> list[Ledger]:
        return [ShelteredLedger(shared, clock, lambda: None) for _ in range(4)]


async def ask(node: ShelteredLedger, turn: str, tenant: str = "acme") -> Decision:
    return await node.reserve(tenant, turn, SCOPES, LIMITS, Amount(10), lifetime=300)


async def test_each_node_holds_the_limits_alone(clock: FakeClock, shared: FailingLedger) -> None:
    alone: list[str] = []
    nodes = [ShelteredLedger(shared, clock, lambda: alone.append("")) for _ in range(2)]
    shared.is_gone = True
    granted = [(await ask(node, f"{i}{n}")).denied is None for i, node in enumerate(nodes) for n in range(3)]

    assert granted == [True, True, False] * 2
    assert len(alone) == 6
    with pytest.raises(StoreUnavailable):
        await nodes[0].look("acme", [USER])


async def test_one_that_is_strict_lets_nobody_in_and_what_runs_go_on(
    clock: FakeClock, shared: FailingLedger
) -> None:
    node = ShelteredLedger(shared, clock, lambda: None, is_strict=True)
    await ask(node, "a")
    shared.is_gone = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await ask(node, "b")
    assert (await node.hold("acme", "a", SCOPES, LIMITS, Amount(30), lifetime=300)).denied is None
    await node.settle("acme", "a", SCOPES, Amount(20), record("a", 20))
    shared.is_gone = False
    await told(node, clock)

    looked = (await shared.look("acme", [USER]))[0]
    assert (looked["td"], looked["rd"], looked["turns"]) == (20, 1, 0)


async def test_a_node_that_is_busy_does_not_count_alone(clock: FakeClock, shared: FailingLedger) -> None:
    """Each would grant as much as all together may."""
    alone: list[str] = []
    node = ShelteredLedger(shared, clock, lambda: alone.append(""))
    shared.is_busy = True
    with pytest.raises(StoreBusy):
        await ask(node, "a")
    with pytest.raises(StoreBusy):
        await node.hold("acme", "b", SCOPES, LIMITS, Amount(30), lifetime=300)
    assert (node.is_alone, alone) == (False, [])
    await node.settle("acme", "b", SCOPES, Amount(20), record("b", 20))
    shared.is_busy = False
    await told(node, clock)

    assert (await shared.look("acme", [USER]))[0]["td"] == 20


async def test_who_waited_behind_calls_that_nobody_answered_is_counted_alone(
    clock: FakeClock, shared: FailingLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it looked, this node asked too much; what it waited for has turned out to be an outage."""
    alone: list[str] = []
    node = ShelteredLedger(shared, clock, lambda: alone.append(""))
    reserve, goes_on = shared.reserve, asyncio.Event()

    async def waits(*args: Any, **kwargs: Any) -> Decision:
        await goes_on.wait()
        raise StoreBusy

    monkeypatch.setattr(shared, "reserve", waits)
    waiting = asyncio.create_task(ask(node, "late"))
    await asyncio.sleep(0)
    monkeypatch.setattr(shared, "reserve", reserve)
    shared.is_gone = True
    await ask(node, "early")
    goes_on.set()

    assert (await waiting).denied is None
    assert len(alone) == 2


async def told(node: ShelteredLedger, clock: FakeClock) -> None:
    """Return when the others have been told everything, with nobody asking for anything."""
    while node.unsettled or node.unreleased:
        clock.advance(1)
        for _ in range(10):
            await asyncio.sleep(0)


async def test_what_was_used_meanwhile_the_others_are_told_when_it_is_back(
    clock: FakeClock, shared: FailingLedger
) -> None:
    """Before, during and after: each turn counts once, wherever it was let in, held, and settled."""
    node = ShelteredLedger(shared, clock, lambda: None)
    for turn in ("a", "b"):
        await ask(node, turn)
    shared.is_gone = True
    await node.hold("acme", "b", SCOPES, LIMITS, Amount(30), lifetime=300)  # went on meanwhile
    for turn, used in (("a", 7), ("b", 29)):
        assert await node.settle("acme", turn, SCOPES, Amount(used), record(turn, used))
    await ask(node, "alone")  # began and ended meanwhile
    await node.settle("acme", "alone", SCOPES, Amount(100), record("alone", 100))
    await ask(node, "across")
    assert (node.unsettled, node.is_alone) == (3, True)
    shared.is_gone = False
    await told(node, clock)
    await node.settle("acme", "across", SCOPES, Amount(1000), record("across", 1000))
    assert not await node.settle("acme", "across", SCOPES, Amount(1000), record("across", 1000))

    looked = (await shared.look("acme", [USER]))[0]
    assert (looked["td"], looked["rd"], looked["turns"]) == (1136, 4, 0)
    assert [each.response_id for each in await node.records("acme", 9)] == ["across", "alone", "b", "a"]
    assert not node.is_alone


async def test_a_request_whose_budget_lapsed_meanwhile_is_counted_once(
    clock: FakeClock, shared: FailingLedger
) -> None:
    node = ShelteredLedger(shared, clock, lambda: None)
    await ask(node, "a")
    shared.is_gone = True
    clock.advance(301)
    await node.hold("acme", "a", SCOPES, LIMITS, Amount(30), lifetime=300)
    await node.settle("acme", "a", SCOPES, Amount(25), record("a", 25))
    shared.is_gone = False
    await told(node, clock)

    looked = (await shared.look("acme", [USER]))[0]
    assert (looked["td"], looked["rd"], looked["turns"]) == (25, 1, 0)


async def test_one_finds_out_whether_it_is_back_and_nobody_else_waits(
    clock: FakeClock, shared: FailingLedger
) -> None:
    node = ShelteredLedger(shared, clock, lambda: None)
    shared.is_gone = True
    await ask(node, "a")
    clock.advance(5)
    shared.asked = 0
    await asyncio.gather(*(ask(node, str(n)) for n in range(20)))

    assert shared.asked == 1


async def test_nobody_waits_until_the_others_have_been_told(clock: FakeClock, shared: FailingLedger) -> None:
    node = ShelteredLedger(shared, clock, lambda: None)
    shared.is_gone = True
    for turn in range(50):
        await node.settle("acme", str(turn), SCOPES, Amount(1), None)
    shared.is_gone = False
    clock.now += 5  # and no timer has fired yet
    shared.asked = 0
    await ask(node, "next")
    assert (shared.asked, node.unsettled) == (1, 50)
    await node.aclose()
    assert node.unsettled == 0
    assert (await shared.look("acme", [USER]))[0]["td"] == 60


@pytest.mark.parametrize("hours", [0.2, 0.6, 3])
async def test_what_may_have_been_settled_is_never_settled_again_that_nobody_knows_of(
    clock: FakeClock, shared: FailingLedger, hours: float
) -> None:
    """However long it is away; and what was surely not settled is not lost to that."""
    node = ShelteredLedger(shared, clock, lambda: None)
    shared.is_mute = True
    await node.settle("acme", "a", SCOPES, Amount(100), record("a", 100))
    shared.is_mute, shared.is_gone = False, True
    await node.settle("acme", "b", SCOPES, Amount(10), record("b", 10))
    clock.now += hours * 3600
    shared.is_gone = False
    await told(node, clock)

    assert [each.response_id for each in await node.records("acme", 9)] == ["b", "a"]
    assert (await shared.look("acme", [USER]))[0]["td"] == 110


async def test_what_is_left_at_the_end_is_said_to_be_lost(clock: FakeClock, shared: FailingLedger) -> None:
    node = ShelteredLedger(shared, clock, lambda: None)
    shared.is_gone = True
    await node.settle("acme", "a", SCOPES, Amount(1), record("a", 1))
    with structlog.testing.capture_logs() as logs:
        await node.aclose()

    assert [entry["turns"] for entry in logs if entry["event"] == "usage lost"] == [1]


async def cut_off(node: ShelteredLedger, shared: FailingLedger) -> None:
    """Have somebody settle a turn, and be cancelled before there is an answer."""
    shared.is_frozen = True
    settling = asyncio.create_task(node.settle("acme", "a", SCOPES, Amount(7), record("a", 7)))
    await shared.is_waiting.wait()
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling


async def test_what_was_cut_off_while_it_was_settled_is_tried_once_more_at_the_end(
    clock: FakeClock, shared: FailingLedger
) -> None:
    node = ShelteredLedger(shared, clock, lambda: None)
    await ask(node, "a")
    await cut_off(node, shared)
    assert node.unsettled == 1
    shared.is_frozen = False
    with structlog.testing.capture_logs() as logs:
        await node.aclose()

    assert logs == []
    assert [each.response_id for each in await node.records("acme", 9)] == ["a"]
    assert (await shared.look("acme", [USER]))[0]["td"] == 7


async def test_what_is_cut_off_at_the_end_too_is_said_to_be_lost(
    clock: FakeClock, shared: FailingLedger
) -> None:
    node = ShelteredLedger(shared, clock, lambda: None)
    await cut_off(node, shared)
    shared.is_waiting.clear()
    with structlog.testing.capture_logs() as logs:
        closing = asyncio.create_task(node.aclose())
        await shared.is_waiting.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

    assert [entry["turns"] for entry in logs if entry["event"] == "usage lost"] == [1]


async def test_a_ledger_that_failed_is_not_asked_for_a_while(clock: FakeClock, shared: FailingLedger) -> None:
    node = ShelteredLedger(shared, clock, lambda: None)
    shared.is_gone = True
    await ask(node, "a")
    shared.is_gone = False
    await ask(node, "b")
    assert not shared.knows("acme", "b")
    clock.advance(5)
    await ask(node, "c")
    assert shared.knows("acme", "c")


async def test_a_part_that_is_gone_is_no_outage_for_the_tenants_of_the_others(
    clock: FakeClock, shared: FailingLedger
) -> None:
    nodes = [ShelteredLedger(shared, clock, lambda: None) for _ in range(2)]
    shared.part_gone = "acme"
    with structlog.testing.capture_logs() as logs:
        assert (await ask(nodes[0], "a")).denied is None
        granted = [(await ask(node, f"{i}", "other")).denied is None for i, node in enumerate(nodes * 2)]
        assert granted == [True, True, False, False], "together"
        shared.part_gone = None
        clock.advance(5)
        await ask(nodes[0], "b")
    assert [(entry["event"], entry["part"]) for entry in logs] == [
        ("quotas hold on this node alone", "acme"),
        ("quotas hold on all nodes again", "acme"),
    ]
    assert not nodes[0].is_alone


async def test_what_is_of_a_part_that_is_gone_has_nothing_else_wait(
    clock: FakeClock, shared: FailingLedger
) -> None:
    node = ShelteredLedger(shared, clock, lambda: None)
    shared.is_gone = True
    for tenant in ("acme", "other"):
        await node.settle(tenant, "a", SCOPES, Amount(7), record("a", 7))
    shared.is_gone, shared.part_gone = False, "acme"
    for _ in range(3):
        clock.advance(5)
        for _ in range(10):
            await asyncio.sleep(0)
    assert ((await shared.look("other", [USER]))[0]["td"], node.unsettled) == (7, 1)

    shared.part_gone = None
    await told(node, clock)
    assert (await shared.look("acme", [USER]))[0]["td"] == 7


async def test_a_tenant_that_another_part_has_by_now_is_asked_for_there(
    clock: FakeClock, shared: FailingLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover in a cluster: the name of the server that is gone is never heard of again."""
    node = ShelteredLedger(shared, clock, lambda: None)
    shared.part_gone = "acme"
    await ask(node, "a")
    monkeypatch.setattr(shared, "part_of", lambda _: "2nd")
    await ask(node, "b")

    assert shared.knows("acme", "b")
    assert not node.is_alone


async def turns(shared: FailingLedger) -> int:
    return (await MemoryLedger.look(shared, "acme", [USER]))[0]["turns"]


@pytest.mark.parametrize("is_local", [False, True])
async def test_what_was_given_back_during_an_outage_is_given_back_by_the_others_too(
    clock: FakeClock, shared: FailingLedger, is_local: bool
) -> None:
    """Not only after 300 seconds: until then it would be a turn at once that nobody has."""
    node = ShelteredLedger(shared, clock, lambda: None)
    await ask(node, "a")
    shared.is_gone = True
    if is_local:  # it went on, by this node's count
        await node.hold("acme", "a", SCOPES, LIMITS, Amount(10), lifetime=300)
    await node.release("acme", "a")
    await node.release("acme", "a")
    assert (await turns(shared), node.unreleased) == (1, 1)
    shared.is_gone = False
    await told(node, clock)

    assert set((await shared.look("acme", [USER]))[0].values()) == {0}


async def test_what_was_asked_for_again_since_is_not_given_back(
    clock: FakeClock, shared: FailingLedger
) -> None:
    """Its client sent it once more, under the same name."""
    node = ShelteredLedger(shared, clock, lambda: None)
    await ask(node, "a")
    shared.is_gone = True
    await node.release("acme", "a")
    shared.is_gone = False
    clock.advance(5)
    await ask(node, "a")
    await told(node, clock)
    clock.advance(10)
    for _ in range(10):
        await asyncio.sleep(0)

    assert await turns(shared) == 1
    await node.aclose()


async def test_what_has_lapsed_is_not_given_back_once_more(clock: FakeClock, shared: FailingLedger) -> None:
    node = ShelteredLedger(shared, clock, lambda: None)
    await ask(node, "a")
    shared.is_gone = True
    await node.release("acme", "a")
    clock.advance(301)
    shared.is_gone, shared.asked = False, 0
    await node.aclose()

    assert (node.unreleased, shared.asked) == (0, 0)


async def test_what_waits_to_be_given_back_is_bounded(
    clock: FakeClock, shared: FailingLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.server.quota.sheltered._UNSETTLED", 3)
    node = ShelteredLedger(shared, clock, lambda: None)
    shared.is_gone = True
    for number in range(5):
        await node.release("acme", str(number))
    assert node.unreleased == 3
    await node.aclose()
