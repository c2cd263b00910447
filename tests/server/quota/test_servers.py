"""The ledger on other servers than the one Valkey: a cluster, Redis, and one with a user of few rights."""

from __future__ import annotations

import asyncio
import gc
import re
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.crc import key_slot

from tests.fakes.clock import FakeClock
from tests.fakes.valkey import Server, redis_binary
from tests.fakes.valkey_cluster import ValkeyCluster
from tests.server.quota.ledger_contract import SCOPES, LedgerContract, record
from unbroken.server.quota.base import Amount, Ledger
from unbroken.server.quota.redis import RedisLedger
from unbroken.server.quota.sheltered import ShelteredLedger
from unbroken.sessions.backends.redis.connection import Address, connect

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
(RULE,) = re.findall(r"^ACL SETUSER unbroken .*$", OPERATIONS.read_text(), re.MULTILINE)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")).running() as servers:
        yield servers


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("redis"), redis_binary()).running() as server:
        yield server


@pytest.mark.slow
class TestLedgerOnACluster(LedgerContract):
    @pytest_asyncio.fixture
    async def nodes(self, servers: ValkeyCluster, clock: FakeClock) -> AsyncIterator[list[Ledger]]:
        servers.flush()
        clients = [connect(Address(servers.url), name="test") for _ in range(4)]
        yield [RedisLedger(client, "test", now=clock.monotonic) for client in clients]
        for client in clients:
            await client.aclose()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # connections that the client forgets
            gc.collect()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_server_that_is_gone_ends_the_quotas_of_its_own_tenants_alone(
    tmp_path: Path, clock: FakeClock
) -> None:
    with ValkeyCluster(tmp_path, "--cluster-require-full-coverage", "no").running() as servers:
        lost, limits = servers.servers[0], {"u": {"rm": 1}}
        client = connect(Address(servers.url, timeout=0.5), name="test")
        shared, alone = RedisLedger(client, "test"), list[str]()
        node = ShelteredLedger(shared, clock, lambda: alone.append(""))
        tenants = [f"tenant{number}" for number in range(20)]
        theirs = [each for each in tenants if servers.server_of(shared._base(each)) is lost]
        try:
            for tenant in tenants:
                assert (
                    await node.reserve(tenant, "a", SCOPES, limits, Amount(), lifetime=300)
                ).denied is None
            lost.kill()
            denied = {
                tenant
                for tenant in [*theirs, *tenants]
                if (await node.reserve(tenant, "b", SCOPES, limits, Amount(), lifetime=300)).denied
            }
        finally:
            await client.aclose()
        assert denied == set(tenants) - set(theirs)
        assert len(alone) == 2 * len(theirs)


@pytest.mark.slow
async def test_what_is_half_moved_ends_the_quotas_of_its_own_tenants_alone(
    servers: ValkeyCluster, clock: FakeClock
) -> None:
    servers.flush()
    client = connect(Address(servers.url, timeout=0.5), name="test")
    shared, alone, limits = RedisLedger(client, "test"), list[str](), {"u": {"rm": 1}}
    node = ShelteredLedger(shared, clock, lambda: alone.append(""))
    tenants = [f"tenant{number}" for number in range(20)]
    torn, key = tenants[0], shared._base(tenants[0]) + "o"
    source = servers.server_of(key)
    near = [each for each in tenants[1:] if servers.server_of(shared._base(each)) is source]
    assert near
    target = next(server for server in servers.servers if server is not source)
    loop, slot = asyncio.get_running_loop(), key_slot(key.encode())

    async def ask(turn: str) -> set[str]:
        """Return who was refused."""
        return {
            tenant
            for tenant in (torn, *near)
            if (await node.reserve(tenant, turn, SCOPES, limits, Amount(), lifetime=300)).denied
        }

    def come() -> None:
        assert asyncio.run_coroutine_threadsafe(ask("b"), loop).result() == set(near)

    try:
        assert await ask("a") == set()
        await asyncio.to_thread(servers.move, [slot], source, target, halfway=come)
        assert len(alone) == 1
        clock.advance(60)
        assert torn in await ask("c"), "what it had used has moved with it"
    finally:
        await client.aclose()
    await asyncio.to_thread(servers.move, [slot], target, source, halfway=lambda: None)


@pytest.mark.slow
class TestLedgerOnRedis(LedgerContract):
    @pytest_asyncio.fixture
    async def nodes(self, redis: Server, clock: FakeClock) -> AsyncIterator[list[Ledger]]:
        redis.command("FLUSHALL")
        clients = [connect(Address(redis.url), name="test") for _ in range(4)]
        yield [RedisLedger(client, "test", now=clock.monotonic) for client in clients]
        for client in clients:
            await client.aclose()


async def test_the_user_that_the_docs_name_may_do_all_of_it(valkey: Server) -> None:
    valkey.command(*RULE.split())
    client = connect(Address(valkey.url.replace("redis://", "redis://unbroken:password@")), name="test")
    ledger = RedisLedger(client, "unbroken")
    limits = {"u": {"rm": 9, "cd": 9}}
    try:
        for turn in ("a", "b", "c"):
            await ledger.reserve("acl", turn, SCOPES, limits, Amount(5, 2), lifetime=-1)  # lapsed at once
            await ledger.hold("acl", turn, SCOPES, limits, Amount(6, 3), lifetime=300)
        await ledger.settle("acl", "a", SCOPES, Amount(3, 1), record("a", 3, cost=1))
        await ledger.release("acl", "b")
        looked = (await ledger.look("acl", SCOPES))[1]
        assert (looked["td"], looked["cd"], looked["turns"]) == (9, 4, 1)
        assert len(await ledger.records("acl", 9)) == 1
        assert len(await ledger.records("acl", 9, "alice")) == 1
    finally:
        await client.aclose()
        valkey.command("ACL", "DELUSER", "unbroken")
