from __future__ import annotations

import pytest

from tests.fakes.clock import FakeClock
from tests.server.quota.ledger_contract import TENANT, LedgerContract, record
from unbroken.server.quota.base import Amount, Ledger
from unbroken.server.quota.memory import MemoryLedger


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def nodes(self, clock: FakeClock) -> list[Ledger]:
        return [MemoryLedger(clock)] * 4


async def test_a_record_of_a_user_goes_when_it_goes_for_the_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.server.quota.book.RECORDS", 3)
    monkeypatch.setattr("unbroken.server.quota.book.RECORDS_OF_USER", 2)
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
