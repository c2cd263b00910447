from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.clock import FakeClock
from tests.fakes.valkey import Server
from tests.server.quota.ledger_contract import SCOPES, LedgerContract, record
from unbroken.server.quota.base import Amount, Ledger
from unbroken.server.quota.redis import RedisLedger
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.errors import StoreUnavailable


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest_asyncio.fixture
async def clients(valkey: Server) -> AsyncIterator[list[Client]]:
    clients = [connect(Address(valkey.url), name="test") for _ in range(4)]
    await clients[0].flushall()
    yield clients
    for client in clients:
        await client.aclose()


class TestRedisLedger(LedgerContract):
    @pytest.fixture
    def nodes(self, clients: list[Client], clock: FakeClock) -> list[Ledger]:
        return [RedisLedger(client, "test", now=clock.monotonic) for client in clients]


async def test_all_keys_of_a_tenant_are_in_one_slot_and_lapse(clients: list[Client]) -> None:
    ledger = RedisLedger(clients[0], "test")  # by the server's own clock
    for turn in ("a", "b"):
        await ledger.reserve("acme", turn, SCOPES, {"u": {"rm": 5}}, Amount(10, 10), lifetime=300)
    await ledger.settle("acme", "a", SCOPES, Amount(5, 5), record("a", 5))
    keys = [key async for key in clients[0].scan_iter("*")]

    assert len(keys) == 6  # tenant, user, two turns, what is open, records
    assert len({re.fullmatch(rb"test:\{(q:[0-9a-f]{16})\}:.+", key)[1] for key in keys}) == 1  # type: ignore[index]
    assert all([await clients[0].ttl(key) > 0 for key in keys])


async def test_a_server_that_is_gone_is_told_as_such(valkey: Server) -> None:
    client = connect(Address(valkey.url.replace(str(valkey.port), "1")), name="test")
    ledger = RedisLedger(client, "test", patience=1.0)
    with pytest.raises(StoreUnavailable):
        await ledger.look("acme", SCOPES)
    with pytest.raises(StoreUnavailable):
        await ledger.records("acme", 1)
    await client.aclose()
