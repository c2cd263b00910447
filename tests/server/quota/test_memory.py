from __future__ import annotations

import pytest

from tests.fakes.clock import FakeClock
from tests.server.quota.ledger_contract import TENANT, LedgerContract, record
from unbroken.server.quota.base import Amount, Ledger, Scope
from unbroken.server.quota.memory import MemoryLedger


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def nodes(self, clock: FakeClock) -> list[Ledger]:
        return [MemoryLedger(clock)] * 4


async def test_a_record_of_a_user_goes_when_it_goes_for_the_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.server.quota.records.RECORDS", 3)
    monkeypatch.setattr("unbroken.server.quota.records.RECORDS_OF_USER", 2)
    ledger = MemoryLedger(FakeClock())
    shown = []
    for number, user in enumerate(("alice", "bob", "bob", "bob", "alice", "carol")):
        turn = f"{number}"
        await ledger.settle("acme", turn, (TENANT,), Amount(5), record(turn, 5, user))
        shown.append(
            [[each.response_id for each in await ledger.records("acme", 9, who)] for who in ("alice", "bob")]
        )

    assert shown == [
        [["0"], []],
        [["0"], ["1"]],
        [["0"], ["2", "1"]],
        [[], ["3", "2"]],
        [["4"], ["3", "2"]],
        [["4"], ["3"]],
    ]
    assert [each.response_id for each in await ledger.records("acme", 9)] == ["5", "4", "3"]


async def settled(ledger: MemoryLedger, tenant: str, turn: str, user: str = "alice") -> None:
    scopes = (TENANT, Scope("u", user))
    await ledger.reserve(tenant, turn, scopes, {}, Amount(5), lifetime=300)
    await ledger.settle(tenant, turn, scopes, Amount(5), record(turn, 5, user))


async def kept(ledger: MemoryLedger, *tenants: str) -> list[list[str]]:
    return [[each.response_id for each in await ledger.records(tenant, 9)] for tenant in tenants]


async def test_a_record_is_kept_for_a_week_whether_its_tenant_comes_or_not() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock)
    await settled(ledger, "acme", "a")
    clock.advance(6 * 86_400)
    await settled(ledger, "globex", "b")
    clock.advance(86_399)
    assert await kept(ledger, "acme", "globex") == [["a"], ["b"]]
    clock.advance(1)

    assert await kept(ledger, "acme", "globex") == [[], ["b"]]
    assert await ledger.records("acme", 9, "alice") == []
    assert len(ledger._records) == 1


async def test_of_all_tenants_together_so_many_records_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go, whoever's they are."""
    monkeypatch.setattr("unbroken.server.quota.records.RECORDS_IN_MEMORY", 3)
    ledger = MemoryLedger(FakeClock())
    for number, tenant in enumerate(("acme", "globex", "acme", "initech", "initech")):
        await settled(ledger, tenant, str(number))

    assert await kept(ledger, "acme", "globex", "initech") == [["2"], [], ["4", "3"]]
    assert [each.response_id for each in await ledger.records("acme", 9, "alice")] == ["2"]


async def test_what_counts_no_more_is_forgotten_of_those_too_who_do_not_come_again() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock)
    for number in range(20):
        await settled(ledger, f"tenant{number}", "a", f"user{number}")
    clock.advance(27 * 3600)
    for number in range(21):
        await settled(ledger, "other", str(number))

    assert ledger.tenants == 1


async def test_what_still_counts_is_not() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock)
    await settled(ledger, "acme", "a")
    clock.advance(23 * 3600)
    for number in range(5):
        await settled(ledger, "other", str(number))

    assert (await ledger.look("acme", [TENANT]))[0]["td"] == 5


async def test_users_who_do_not_come_again_are_forgotten_while_others_of_their_tenant_come() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock)
    for number in range(300):
        await settled(ledger, "acme", str(number), f"user{number}")
    clock.advance(27 * 3600)
    for number in range(3):
        await settled(ledger, "acme", f"later {number}")

    assert len(ledger._books["acme"]._accounts) == 2, "the tenant, and alice"
