"""The store is a Valkey Cluster: a primary dies, and slots move from server to server, under answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.chaos.talks import PEOPLE, Talks, talks
from tests.fakes.valkey_cluster import ValkeyCluster
from tests.sessions.backends.redis.acl import allow
from unbroken.sessions.backends.redis.keys import Keys

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@asynccontextmanager
async def talks_over(folder: Path, servers: ValkeyCluster) -> AsyncIterator[Talks]:
    """Have people talk over *servers*, whose nodes are the user of few rights of the docs."""
    for server in [*servers.servers, *servers.replicas]:
        allow(server, "unbroken", in_cluster=True)
    async with talks(folder, servers.url) as seen:
        yield seen


def forbidden(servers: ValkeyCluster, *dead: object) -> list[bytes]:
    """Return what servers have refused the user."""
    living = [each for each in [*servers.servers, *servers.replicas] if each not in dead]
    return [log for server in living if (log := server.command("ACL", "LOG")) != b"*0\r\n"]


async def test_a_failover_costs_no_word_and_is_told(tmp_path: Path) -> None:
    """The primary that dies has sessions, and all that nodes tell each other."""
    cluster = ValkeyCluster(tmp_path / "servers", "--cluster-require-full-coverage", "no", replicas=2)
    with cluster.running() as servers:
        primary = servers.server_of(Keys("unbroken").nodes)
        async with talks_over(tmp_path, servers) as seen:
            primary.kill()
            await asyncio.to_thread(servers.wait_until_promoted, servers.replica_of(primary))
            await seen.crowd.all_answered()
            assert await seen.violations(may_lose=True) == []

        assert seen.outages(), "those whose server it was were told"
        assert all(told[-1] for told in seen.outages()), "and that it was over"
        assert len(seen.outages()) < PEOPLE, "those of the other servers weren't"
        assert seen.turns() == {"completed"}
        assert forbidden(servers, primary) == []


async def test_a_failover_that_was_asked_for_costs_no_word_and_no_node(tmp_path: Path) -> None:
    """Its primary has all that nodes tell each other, and stays, as a replica. Nodes that end hand over."""
    cluster = ValkeyCluster(tmp_path / "servers", replicas=3)
    with cluster.running() as servers:
        primary = servers.server_of(Keys("unbroken").nodes)
        async with talks_over(tmp_path, servers) as seen:
            assert servers.replica_of(primary).command("CLUSTER", "FAILOVER") == b"+OK\r\n"
            await asyncio.to_thread(servers.wait_until_promoted, servers.replica_of(primary))
            for _ in range(8):  # by then all have judged who is dead
                await seen.crowd.all_answered()
            assert await seen.violations(may_lose=False) == []

        assert all(told[-1] for told in seen.outages())
        assert seen.turns() == {"completed"}
        assert seen.deaths() == []
        assert forbidden(servers) == []


async def test_slots_that_move_under_answers_cost_no_word(tmp_path: Path) -> None:
    with ValkeyCluster(tmp_path / "servers").running() as servers:
        source = servers.server_of(Keys("unbroken").nodes)
        (target, _) = [server for server in servers.servers if server is not source]
        async with talks_over(tmp_path, servers) as seen:
            slots = servers.slots_in_use(source)
            halfway = asyncio.run_coroutine_threadsafe
            loop = asyncio.get_running_loop()
            moved = await asyncio.to_thread(
                servers.move,
                slots,
                source,
                target,
                halfway=lambda: halfway(seen.crowd.all_answered(), loop).result(),
            )
            await seen.crowd.all_answered()
            assert moved > 0
            assert servers.slots_in_use(source) == []
            await asyncio.to_thread(servers.move_whole, slots, target, source)
            await seen.crowd.all_answered()
            assert await seen.violations(may_lose=False) == []

        assert seen.outages(), "those whose slots were half moved for so long were told"
        assert all(told[-1] for told in seen.outages())
        assert seen.turns() == {"completed"}
        assert forbidden(servers) == []
