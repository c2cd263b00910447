from __future__ import annotations

import asyncio

import pytest
import structlog

from tests.fakes.clock import FakeClock
from tests.fakes.valkey import Server
from tests.fakes.valkey_fixtures import client, valkey
from tests.server.auth.test_redis_user import RULE
from tests.server.guards.injection.suspicion_contract import ONE, Nodes, SuspicionContract
from unbroken.server.guards.injection.redis import RedisSuspicion
from unbroken.server.guards.injection.suspicion import HALF_LIFE, MemorySuspicion, raised
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.backends.redis.keys import Keys
from unbroken.sessions.ids import SessionId

__all__ = ["client", "valkey"]

KEYS = Keys("test")


class TestMemory(SuspicionContract):
    @pytest.fixture
    def nodes(self) -> Nodes:
        clock = FakeClock()
        suspicion = MemorySuspicion(clock)

        async def advance(_session: SessionId, seconds: float) -> None:
            clock.advance(seconds)

        return Nodes(suspicion, suspicion, advance)


async def test_the_one_that_was_suspected_longest_ago_is_forgotten_first() -> None:
    suspicion = MemorySuspicion(FakeClock(), sessions=2)
    for name in ("a", "b", "a", "c"):
        await suspicion.add(SessionId(name), 1.0)

    assert len(suspicion) == 2
    assert [await suspicion.add(SessionId(name), 0.0) for name in ("a", "c")] == [2.0, 1.0]


class TestRedis(SuspicionContract):
    @pytest.fixture
    def nodes(self, client: Client) -> Nodes:
        clocks = FakeClock(), FakeClock()
        here, there = (RedisSuspicion(client, KEYS, clock, patience=10) for clock in clocks)

        async def advance(session: SessionId, seconds: float) -> None:
            for clock in clocks:
                clock.advance(seconds)
            key = KEYS.suspicion(session)  # Redis' own time can't be moved: what it noted can
            (noted,) = await client.hmget(key, ["since"])
            assert noted is not None
            await client.hset(key, "since", str(float(noted) - seconds))

        return Nodes(here, there, advance)


async def test_what_is_shared_has_an_end(client: Client) -> None:
    await RedisSuspicion(client, KEYS, FakeClock(), patience=10).add(ONE, 0.5)

    assert HALF_LIFE < await client.ttl(KEYS.suspicion(ONE)) < 86_400


async def test_without_redis_a_node_knows_what_it_has_seen_itself_and_does_not_wait_each_time() -> None:
    nobody = connect(Address("redis://127.0.0.1:1/0", timeout=0.5), name="test")
    clock = FakeClock()
    suspicion = RedisSuspicion(nobody, KEYS, clock)
    with structlog.testing.capture_logs() as logs:
        assert await suspicion.add(ONE, 0.5) == 0
        assert await suspicion.add(ONE, 0.5) == 0.5
        assert len(logs) == 1
        clock.advance(6)
        await suspicion.add(ONE, 0.0)
        assert [entry["event"] for entry in logs] == ["suspicion not shared"] * 2
    await nobody.aclose()


async def test_one_that_does_not_answer_holds_nobody_up(valkey: Server, client: Client) -> None:
    suspicion = RedisSuspicion(client, KEYS, FakeClock(), patience=0.05)
    await suspicion.add(ONE, 0.25)
    valkey.freeze()
    try:
        assert await suspicion.add(ONE, 0.5) == 0.25
    finally:
        valkey.thaw()


async def test_two_at_once_both_count(client: Client) -> None:
    suspicion = RedisSuspicion(client, KEYS, FakeClock(), patience=10)
    await asyncio.gather(*(suspicion.add(ONE, 0.1) for _ in range(5)))

    assert await suspicion.add(ONE, 0.0) == pytest.approx(0.5, abs=0.01)


def test_what_was_tried_before_raises_what_is_tried_now() -> None:
    assert raised(0.4, 0.0) == pytest.approx(0.4)
    assert 0.4 < raised(0.4, 1.0) < raised(0.4, 2.0) == raised(0.4, 9.0) < 0.8


async def test_the_user_that_the_docs_name_may_do_it(valkey: Server, client: Client) -> None:
    valkey.command(*RULE.split())
    limited = connect(Address(valkey.url.replace("redis://", "redis://unbroken:password@")), name="test")
    try:
        suspicion = RedisSuspicion(limited, Keys("unbroken"), FakeClock(), patience=10)
        await suspicion.add(ONE, 0.5)
        assert await client.exists(Keys("unbroken").suspicion(ONE)) == 1
    finally:
        await limited.aclose()
        valkey.command("ACL", "DELUSER", "unbroken")
