from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio.client import PubSub

from tests.fakes.valkey import Server
from tests.sessions.backends.cluster_contract import ClusterContract, House
from tests.sessions.backends.store_contract import LIFE, START, asked
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.cluster import Cluster
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.membership import Pace, RedisMembership
from unbroken.sessions.backends.redis.store import RedisStore
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import NodeId, new_node_id, new_session_id

PACE = Pace(beat=0.2, lease=1.2, look=0.05, missing=0.1, poll=0.1, settling=0.6)
"""As it is, only faster. A lease is long enough for a busy machine."""

BY_CHANNEL = Pace(beat=0.4, lease=120.0, look=0.4, missing=0.8, poll=0.1, settling=0.1)
"""Whoever dies is found dead by the channel, or not in a test's time."""


class RedisStreet:
    """Nodes over one Redis, each with connections of its own."""

    def __init__(self, address: Address, pace: Pace = PACE) -> None:
        self._address = address
        self._pace = pace
        self._clients: list[Client] = []
        self._clusters: dict[RedisMembership, Client] = {}
        client = self._client()
        is_cluster = address.kind == "cluster"
        self.redis = RedisStore(client, Keys("test"), Bounds(), is_cluster=is_cluster)
        self.store: SessionStore = self.redis

    def _client(self) -> Client:
        client = connect(self._address, name="test")
        self._clients.append(client)
        return client

    def cluster(self) -> RedisMembership:
        client = self._client()
        cluster = RedisMembership(client, Keys("test"), self._pace)
        self._clusters[cluster] = client
        return cluster

    async def kill(self, cluster: Cluster) -> None:
        """End its tasks and its connections, with no word to anybody."""
        assert isinstance(cluster, RedisMembership)
        tasks, cluster._tasks = cluster._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._clusters[cluster].aclose()

    async def freeze(self, cluster: RedisMembership) -> None:
        """Have it renew nothing any more, while its connections stay."""
        listens, *others = cluster._tasks
        cluster._tasks = [listens]
        for task in others:
            task.cancel()
        await asyncio.wait(others)

    async def aclose(self) -> None:
        for cluster in self._clusters:
            await cluster.leave()
        await self.redis.aclose()
        for client in self._clients:
            await client.aclose()


class TestMembershipOnValkey(ClusterContract):
    @pytest_asyncio.fixture
    async def street(self, valkey: Server) -> AsyncIterator[RedisStreet]:
        valkey.command("FLUSHALL")
        street = RedisStreet(Address(valkey.url))
        yield street
        await street.aclose()


@pytest.mark.slow
class TestMembershipOnRedis7(ClusterContract):
    @pytest_asyncio.fixture
    async def street(self, redis7: Server) -> AsyncIterator[RedisStreet]:
        redis7.command("FLUSHALL")
        street = RedisStreet(Address(redis7.url))
        yield street
        await street.aclose()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own: these tests kill it."""
    with Server(
        tmp_path / "data", None, "--appendonly", "yes", "--appendfsync", "always"
    ).running() as server:
        yield server


@pytest_asyncio.fixture
async def street(server: Server) -> AsyncIterator[RedisStreet]:
    street = RedisStreet(Address(server.url, timeout=0.5))
    yield street
    await street.aclose()


async def test_nobody_joins_what_can_t_be_reached(street: RedisStreet, server: Server) -> None:
    server.kill()
    with pytest.raises(StoreUnavailable):
        await House(street).join()
    server.start()


@pytest.mark.slow
async def test_a_frozen_node_is_found_dead_by_its_lease(street: RedisStreet) -> None:
    a, b = [await House(street).join() for _ in range(2)]
    assert isinstance(a.cluster, RedisMembership)
    await street.freeze(a.cluster)

    await b.listener.until(lambda: b.listener.lost == [a.node])


async def test_a_node_that_never_joined_is_found_dead_when_it_matters(street: RedisStreet) -> None:
    """As one whose Redis was restarted empty, or that died when nobody else was there."""
    a = await House(street).join()
    ghost = new_node_id()
    assert not a.cluster.is_lost(ghost)
    await a.cluster.watch(ghost)

    await a.listener.until(lambda: a.listener.lost == [ghost])


@pytest.mark.slow
@pytest.mark.parametrize("is_empty", [False, True])
async def test_a_restart_of_redis_is_a_gap_and_nobody_s_death(
    street: RedisStreet, server: Server, is_empty: bool
) -> None:
    a, b = [await House(street).join() for _ in range(2)]
    server.kill()
    if is_empty:
        server.forget()
    await a.listener.until(lambda polls=a.listener.polls: a.listener.polls > polls + 3)  # type: ignore[misc]
    server.start()
    for house in (a, b):
        await house.listener.until(lambda house=house: house.listener.gaps > 0)  # type: ignore[misc]

    session_id = new_session_id()  # what is told is heard again
    await street.store.create(session_id, a.node, LIFE)
    await street.store.follow(session_id, b.node)
    await street.store.submit(session_id, asked(), START)
    for house in (a, b):
        await house.listener.until(lambda house=house: session_id in house.listener.news)  # type: ignore[misc]
        looked = house.listener.polls
        await house.listener.until(lambda house=house, looked=looked: house.listener.polls > looked + 3)  # type: ignore[misc]
        assert house.listener.lost == []
        await house.listener.until(lambda house=house: house.cluster.has_others)  # type: ignore[misc]


@pytest.mark.slow
async def test_a_subscription_that_is_cut_is_made_again(street: RedisStreet, server: Server) -> None:
    a = await House(street).join()
    server.command("CLIENT", "KILL", "TYPE", "pubsub")
    await a.listener.until(lambda: a.listener.gaps == 1)

    session_id = new_session_id()
    await a.cluster.wish(a.node, session_id)
    await a.listener.until(lambda: a.listener.wishes == [(session_id, a.node)])


@pytest_asyncio.fixture
async def lane(valkey: Server) -> AsyncIterator[RedisStreet]:
    """Where nobody is found dead by the lease."""
    valkey.command("FLUSHALL")
    lane = RedisStreet(Address(valkey.url), BY_CHANNEL)
    yield lane
    await lane.aclose()


async def polled(house: House, number: int) -> None:
    """Return after so many polls of a node's: it has looked at others meanwhile, if not as often."""
    end = house.listener.polls + number
    await house.listener.until(lambda: house.listener.polls >= end)


def cut_channels(server: Server) -> None:
    """Cut the connections on which nodes are told something, of those that have joined so far."""
    for number in re.findall(rb"\bid=(\d+)", server.command("CLIENT", "LIST", "TYPE", "pubsub")):
        server.command("CLIENT", "KILL", "ID", number.decode())


def mislead(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """Have it subscribe for so many times where it is confirmed and answered, and nobody looks for it."""
    assert isinstance(cluster, RedisMembership)
    listen, left = cluster._channels.listen, iter(range(times))

    async def listen_elsewhere(node: NodeId) -> PubSub:
        return await listen(NodeId("elsewhere") if next(left, None) is not None else node)

    monkeypatch.setattr(cluster._channels, "listen", listen_elsewhere)


@pytest.mark.slow
async def test_a_channel_that_takes_long_to_be_subscribed_to_again_is_nobody_s_death(
    lane: RedisStreet, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await House(lane).join()
    assert isinstance(a.cluster, RedisMembership)
    listen, may_listen = a.cluster._channels.listen, asyncio.Event()

    async def listen_late(node: NodeId) -> PubSub:
        await may_listen.wait()
        return await listen(node)

    monkeypatch.setattr(a.cluster._channels, "listen", listen_late)
    b = await House(lane).join()
    await polled(b, 10)
    cut_channels(valkey)
    await b.listener.until(lambda: b.listener.gaps == 1)
    await polled(b, 20)
    assert b.listener.lost == []
    assert not b.cluster.is_lost(a.node)

    may_listen.set()
    await a.listener.until(lambda: a.listener.gaps == 1)
    await polled(a, 10)  # it sees that it is heard, and says so
    await polled(b, 10)
    await lane.kill(a.cluster)
    await b.listener.until(lambda: b.listener.lost == [a.node])


@pytest.mark.slow
async def test_a_channel_that_nobody_is_seen_to_listen_to_is_subscribed_to_anew(
    lane: RedisStreet, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover: what has become a replica confirms a subscription, answers, and tells nothing."""
    a = await House(lane).join()
    mislead(a.cluster, monkeypatch, times=1)
    cut_channels(valkey)
    b = await House(lane).join()
    await a.listener.until(lambda: a.listener.gaps == 2)

    session_id = new_session_id()
    await b.cluster.wish(a.node, session_id)
    await a.listener.until(lambda: a.listener.wishes == [(session_id, b.node)])
    await polled(b, 20)
    assert b.listener.lost == []


@pytest.mark.slow
async def test_a_node_that_nobody_is_ever_seen_to_listen_for_lives_as_long_as_its_lease(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey.command("FLUSHALL")
    street = RedisStreet(
        Address(valkey.url), Pace(beat=0.2, lease=2.0, look=0.4, missing=0.8, poll=0.1, settling=0.1)
    )
    a = await House(street).join()
    assert isinstance(a.cluster, RedisMembership)
    mislead(a.cluster, monkeypatch, times=10**6)
    cut_channels(valkey)
    b = await House(street).join()
    await polled(b, 30)
    assert b.listener.lost == []
    assert b.cluster.has_others

    await street.freeze(a.cluster)
    await b.listener.until(lambda: b.listener.lost == [a.node])
    await street.aclose()


@pytest.mark.slow
async def test_who_is_taken_for_dead_by_one_node_is_not_by_the_others(valkey: Server) -> None:
    """It sees that its lease was taken away, long before it would renew it."""
    valkey.command("FLUSHALL")
    street = RedisStreet(
        Address(valkey.url), Pace(beat=60.0, lease=120.0, look=0.1, missing=1.0, poll=0.1, settling=0.1)
    )
    a, b = [await House(street).join() for _ in range(2)]
    await polled(b, 5)
    keys = Keys("test")
    for _ in range(3):
        valkey.command("SREM", keys.nodes, a.node)
        valkey.command("DEL", keys.lease(a.node))
        await polled(b, 10)
        assert valkey.command("EXISTS", keys.lease(a.node)) == b":1\r\n"
        assert valkey.command("SISMEMBER", keys.nodes, a.node) == b":1\r\n"
    assert b.listener.lost == []
    await street.aclose()


@pytest.mark.slow
async def test_what_fails_in_the_background_keeps_no_death_from_being_noticed(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the rewriting of sessions does, while a server of a cluster is gone that has no keys of nodes."""
    valkey.command("FLUSHALL")
    street = RedisStreet(Address(valkey.url), PACE)
    a = House(street)
    assert isinstance(a.cluster, RedisMembership)
    failed = 0

    async def fail() -> None:
        nonlocal failed
        failed += 1
        raise ConnectionError("a server of the cluster is gone")

    monkeypatch.setattr(a.cluster, "_rewrite_on", fail)
    await a.join()
    b = await House(street).join()
    await polled(a, 10)
    await street.kill(b.cluster)
    await a.listener.until(lambda: a.listener.lost == [b.node])
    assert failed > 3
    await street.aclose()


@pytest.mark.slow
async def test_a_pause_of_redis_is_nobody_s_death(street: RedisStreet, server: Server) -> None:
    """`CLIENT PAUSE` for longer than a lease: afterwards all have to renew theirs first."""
    a, b = [await House(street).join() for _ in range(2)]
    server.command("CLIENT", "PAUSE", "1500", "ALL")
    server.command("PING")  # returns when it is over

    for house in (a, b):
        looked = house.listener.polls
        await house.listener.until(lambda house=house, looked=looked: house.listener.polls > looked + 5)  # type: ignore[misc]
        assert house.listener.lost == []


@pytest.mark.slow
async def test_a_node_that_comes_back_is_lost_no_more(street: RedisStreet) -> None:
    """It was cut off, not dead: its writes are fenced, and it may own other sessions."""
    a, b = [await House(street).join() for _ in range(2)]
    assert isinstance(a.cluster, RedisMembership)
    await street.freeze(a.cluster)
    await b.listener.until(lambda: b.listener.lost == [a.node])

    await a.cluster._beat()
    for _ in range(100):
        if not b.cluster.is_lost(a.node):
            break
        looked = b.listener.polls
        await b.listener.until(lambda looked=looked: b.listener.polls > looked)  # type: ignore[misc]
        await a.cluster._beat()
    assert not b.cluster.is_lost(a.node)
    assert b.listener.lost == [a.node]


async def test_who_would_take_what_a_dead_node_had_looks_once_more(valkey: Server) -> None:
    """It may have woken, and have begun something: nobody has to have noticed."""
    valkey.command("FLUSHALL")
    street = RedisStreet(
        Address(valkey.url), Pace(beat=60.0, lease=0.3, look=0.05, missing=0.1, settling=0.1)
    )
    a, b = [await House(street).join() for _ in range(2)]
    assert isinstance(a.cluster, RedisMembership)
    assert isinstance(b.cluster, RedisMembership)
    assert not await b.cluster.is_still_lost(a.node)
    await street.freeze(a.cluster)
    await b.listener.until(lambda: b.listener.lost == [a.node])
    await street.freeze(b.cluster)  # it notices nothing by itself any more
    assert await b.cluster.is_still_lost(a.node)

    await a.cluster._beat()
    b.cluster._found_lost_again.clear()  # as each look does
    assert b.cluster.is_lost(a.node)
    assert not await b.cluster.is_still_lost(a.node)
    assert not b.cluster.is_lost(a.node)
    await street.aclose()


async def test_it_leaves_though_its_client_takes_a_cancellation_for_its_own(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a client does whose time-out falls due in the same moment."""
    street = RedisStreet(Address(valkey.url))
    house = await House(street).join()
    get_message = PubSub.get_message
    swallowed = 0
    waits = False

    async def swallow(pubsub: PubSub, **options: Any) -> Any:
        nonlocal swallowed, waits
        waits = True
        try:
            return await get_message(pubsub, **options)
        except asyncio.CancelledError:
            swallowed += 1
            return None
        finally:
            waits = False

    monkeypatch.setattr(PubSub, "get_message", swallow)
    looked = house.listener.polls
    await house.listener.until(lambda: house.listener.polls > looked + 3)
    while not waits:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await street.aclose()
    assert swallowed == 1
