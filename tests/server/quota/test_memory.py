from __future__ import annotations

import pytest

from tests.fakes.clock import FakeClock
from tests.server.quota.ledger_contract import LedgerContract
from unbroken.server.quota.base import Ledger
from unbroken.server.quota.memory import MemoryLedger


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def nodes(self, clock: FakeClock) -> list[Ledger]:
        return [MemoryLedger(clock)] * 4
