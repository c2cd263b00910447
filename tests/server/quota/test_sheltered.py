"""While the shared ledger is out of reach, each node counts alone; nothing is settled twice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from tests.server.quota.ledger_contract import SCOPES, USER, LedgerContract, record
from unbroken.server.quota.base import Amount, Decision, Ledger
from unbroken.server.quota.memory import MemoryLedger
from unbroken.server.quota.sheltered import ShelteredLedger
from unbroken.sessions.errors import StoreUnavailable

LIMITS = {"u": {"rm": 2}}


class FailingLedger(MemoryLedger):
    """A shared ledger. Fault verb: set *is_gone*."""

    is_gone = False

    def _book(self, tenant: str) -> Any:
        if self.is_gone:
            raise StoreUnavailable("gone")
        return super()._book(tenant)


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


async def ask(node: ShelteredLedger, turn: str) -> Decision:
    return await node.reserve("acme", turn, SCOPES, LIMITS, Amount(10), lifetime=300)


async def test_each_node_holds_the_limits_alone(clock: FakeClock, shared: FailingLedger) -> None:
    alone: list[str] = []
    nodes = [ShelteredLedger(shared, clock, lambda: alone.append("")) for _ in range(2)]
    shared.is_gone = True
    granted = [(await ask(node, f"{i}{n}")).denied is None for i, node in enumerate(nodes) for n in range(3)]

    assert granted == [True, True, False] * 2
    assert len(alone) == 6
    with pytest.raises(StoreUnavailable):
        await nodes[0].look("acme", [USER])


async def test_what_could_not_be_settled_is_settled_when_it_is_back(
    clock: FakeClock, shared: FailingLedger
) -> None:
    node = ShelteredLedger(shared, clock, lambda: None)
    await ask(node, "a")
    shared.is_gone = True
    assert await node.settle("acme", "a", SCOPES, Amount(7), record("a", 7))
    assert (node.unsettled, node.is_alone) == (1, True)
    await ask(node, "alone")
    await node.settle("acme", "alone", SCOPES, Amount(100), None)
    shared.is_gone = False
    clock.advance(6)
    await ask(node, "b")

    looked = (await shared.look("acme", [USER]))[0]
    # 7 of a, 10 of b, nothing of what was granted alone.
    assert (looked["td"], looked["rd"], looked["turns"]) == (17, 2, 1)
    assert (node.unsettled, node.is_alone) == (0, False)


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
