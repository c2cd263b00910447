"""Walks through all sessions in Redis: of one server, and of a cluster whose slots move. Real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.fakes.valkey_cluster import ValkeyCluster
from tests.sessions.backends.redis.acl import allow
from tests.sessions.backends.walk_contract import WalkContract, begun, seen
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.store import RedisStore
from unbroken.sessions.backends.redis.walk import RedisWalk
from unbroken.sessions.backends.walk import WalkThrough
from unbroken.sessions.errors import StoreUnavailable


class TestRedisWalk(WalkContract):
    @pytest.fixture
    def walk(self, client: Client) -> WalkThrough:
        return RedisWalk(client, Keys("test")).through

    async def test_a_server_that_was_started_again_is_walked_through_anew(
        self, store: SessionStore, walk: WalkThrough, valkey: Server
    ) -> None:
        """Its cursors mean something else by now."""
        ids = await begun(store)
        _, place = await seen(walk, stretches=2)
        assert b"OK" in valkey.command("SAVE")
        valkey.kill()
        try:
            with pytest.raises(StoreUnavailable):
                await seen(walk, place)
        finally:
            valkey.start()
        assert set((await seen(walk, place))[0]) == ids

    async def test_a_place_that_nobody_understands_is_the_beginning(
        self, store: SessionStore, walk: WalkThrough
    ) -> None:
        ids = await begun(store, 10)
        assert set((await seen(walk, '{"done": "all"}'))[0]) == ids


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")).running() as servers:
        yield servers


@pytest.mark.slow
@pytest.mark.timeout(120)
class TestRedisWalkOnACluster(WalkContract):
    @pytest_asyncio.fixture
    async def client(self, servers: ValkeyCluster) -> AsyncIterator[Client]:
        servers.flush()
        client = connect(Address(servers.url, timeout=1.0), name="test")
        yield client
        await client.aclose()

    @pytest_asyncio.fixture
    async def store(self, client: Client) -> AsyncIterator[RedisStore]:
        store = RedisStore(client, Keys("test"), Bounds(), is_cluster=True)
        yield store
        await store.aclose()

    @pytest.fixture
    def walk(self, client: Client) -> WalkThrough:
        return RedisWalk(client, Keys("test"), at_once=200).through

    async def test_the_user_of_the_docs_may_walk(self, servers: ValkeyCluster, store: SessionStore) -> None:
        for server in servers.servers:
            allow(server, "test", in_cluster=True)
        ids = await begun(store, 100)
        url = servers.url.replace("redis+cluster://", "redis+cluster://unbroken:password@")
        client = connect(Address(url), name="test")
        assert set((await seen(RedisWalk(client, Keys("test")).through))[0]) == ids
        await client.aclose()

    async def test_slots_that_move_are_walked_through_where_they_are_in_the_end(
        self, servers: ValkeyCluster, store: SessionStore, walk: WalkThrough
    ) -> None:
        ids = await begun(store)
        source, _, target = servers.servers
        slots = servers.slots_in_use(source)[:8]
        halfway: list[tuple[set[str], bool]] = []

        def meanwhile() -> None:
            halfway.append(asyncio.run(_seen_alone(servers)))

        found, place = await seen(walk, stretches=3)
        await asyncio.to_thread(servers.move, slots, source, target, halfway=meanwhile)
        try:
            assert halfway[0][1], "what is half moved is left for later, and that is said"
            rest: list[str] = []
            for _ in range(5):  # until the client knows who has what
                try:
                    some, place = await seen(walk, place)
                except StoreUnavailable:
                    continue
                rest += some
                break
            assert {*found, *rest} == ids
        finally:
            await asyncio.to_thread(servers.move, slots, target, source, halfway=lambda: None)

    async def test_a_server_that_is_gone_keeps_those_of_no_other_from_being_seen(
        self, servers: ValkeyCluster, store: SessionStore, walk: WalkThrough, tmp_path: Path
    ) -> None:
        ids = await begun(store, 300)
        gone = servers.servers[0]
        found: set[str] = set()
        place = ""
        gone.freeze()
        try:
            with pytest.raises(StoreUnavailable):
                async for stretch in walk(""):
                    found |= set(stretch.session_ids)
                    place = stretch.place
        finally:
            gone.thaw()
        keys = Keys("test")
        assert found == {each for each in ids if servers.server_of(keys.meta(each)) is not gone}
        rest, _ = await seen(walk, place)
        assert set(rest) == ids - found, "the others aren't begun with again"


async def _seen_alone(servers: ValkeyCluster) -> tuple[set[str], bool]:
    """Walk with a client that has but begun; return what was seen, and whether something is left."""
    client = connect(Address(servers.url), name="test")
    found: set[str] = set()
    try:
        async for stretch in RedisWalk(client, Keys("test")).through():
            found |= set(stretch.session_ids)
    except StoreUnavailable:
        return found, True
    finally:
        await client.aclose()
    return found, False
