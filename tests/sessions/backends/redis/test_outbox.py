from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.fakes.valkey_cluster import ValkeyCluster
from tests.sessions.backends.outbox_contract import PART_BYTES, OutboxContract, finished
from tests.sessions.backends.redis.acl import allow
from tests.sessions.backends.store_contract import LIFE, NONE, A, mark
from unbroken.sessions.backends.base import Append, SessionStore
from unbroken.sessions.backends.outbox import Outbox, OutboxLimits, Parcel
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.outbox import RedisOutbox
from unbroken.sessions.backends.redis.store import RedisStore
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import new_session_id

LIMITS = OutboxLimits(part_bytes=PART_BYTES, lifetime=1000)


def stored_in(client: Client, *, is_cluster: bool = False) -> tuple[RedisStore, RedisOutbox]:
    outbox = RedisOutbox(client, Keys("test"), LIMITS, is_cluster=is_cluster)
    return RedisStore(client, Keys("test"), Bounds(), is_cluster=is_cluster, outbox=outbox), outbox


class TestOutboxOnValkey(OutboxContract):
    @pytest_asyncio.fixture
    async def stored(self, client: Client) -> AsyncIterator[tuple[SessionStore, Outbox]]:
        store, outbox = stored_in(client)
        yield store, outbox
        await store.aclose()


class TestOutboxByBuckets(OutboxContract):
    """As in a cluster: each bucket's sessions are written by a call of their own."""

    @pytest_asyncio.fixture
    async def stored(self, client: Client) -> AsyncIterator[tuple[SessionStore, Outbox]]:
        store, outbox = stored_in(client, is_cluster=True)
        yield store, outbox
        await store.aclose()


class TestOutboxOnRedis7(OutboxContract):
    @pytest_asyncio.fixture
    async def stored(self, redis7: Server) -> AsyncIterator[tuple[SessionStore, Outbox]]:
        client = connect(Address(redis7.url), name="test")
        await client.flushall()
        store, outbox = stored_in(client)
        yield store, outbox
        await store.aclose()
        await client.aclose()


async def test_it_expires_and_is_gone_when_it_is_empty(client: Client) -> None:
    store, outbox = stored_in(client)
    session_id = new_session_id()
    fence = await store.create(session_id, A, LIFE)
    turn = finished(session_id)
    await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")], finished=(turn,))])
    keys = [key async for key in client.scan_iter("test:*:out*")]
    assert len(keys) == 2
    assert all([900 < await client.ttl(key) <= 1000 for key in keys])

    (shelf,) = await outbox.shelves()
    await outbox.settle(await outbox.take(shelf.part, 10))
    assert [key async for key in client.scan_iter("test:*:out*")] == []
    await store.aclose()


async def test_a_store_without_an_outbox_keeps_nothing(client: Client) -> None:
    store = RedisStore(client, Keys("test"), Bounds())
    session_id = new_session_id()
    fence = await store.create(session_id, A, LIFE)
    turn = finished(session_id)
    await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")], finished=(turn,))])
    assert [key async for key in client.scan_iter("test:*:out*")] == []
    await store.aclose()


async def test_a_user_with_the_documented_rights_may_do_all_of_it(valkey: Server) -> None:
    allow(valkey, "test")
    address = valkey.url.replace("redis://", "redis://unbroken:password@")
    client = connect(Address(address), name="test")
    store, outbox = stored_in(client)
    session_id = new_session_id()
    fence = await store.create(session_id, A, LIFE)
    turns = (finished(session_id, "r1"), finished(session_id, "r2"))
    await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")], finished=turns)])
    (shelf,) = await outbox.shelves()
    for parcel in await outbox.take(shelf.part, 10):
        await outbox.settle([parcel])
    assert await outbox.shelves() == []
    await store.aclose()
    await client.aclose()


async def test_a_server_that_is_gone_is_said_as_everywhere(tmp_path: Path) -> None:
    with Server(tmp_path / "data").running() as server:
        client = connect(Address(server.url), name="test")
        store, outbox = stored_in(client)
        assert await outbox.shelves() == []
        server.kill()
        with pytest.raises(StoreUnavailable):
            await outbox.shelves()
        with pytest.raises(StoreUnavailable):
            await outbox.take(1, 10)
        with pytest.raises(StoreUnavailable):
            await outbox.settle([Parcel(1, "1-0", b"", is_attended=False, since=0.0)])
        await store.aclose()
        await client.aclose()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")).running() as servers:
        yield servers


@pytest.mark.slow
class TestOutboxInACluster(OutboxContract):
    @pytest_asyncio.fixture
    async def stored(self, cluster: ValkeyCluster) -> AsyncIterator[tuple[SessionStore, Outbox]]:
        cluster.flush()
        client = connect(Address(cluster.url), name="test")
        store, outbox = stored_in(client, is_cluster=True)
        yield store, outbox
        await store.aclose()
        await client.aclose()
