from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.fakes.valkey import Server
from tests.sessions.backends.outbox_contract import PART_BYTES, OutboxContract, finished
from tests.sessions.backends.store_contract import LIFE, NONE, A, mark
from unbroken.sessions.backends.base import Append, SessionStore
from unbroken.sessions.backends.outbox import Outbox, OutboxLimits
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.outbox import RedisOutbox
from unbroken.sessions.backends.redis.store import RedisStore
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
