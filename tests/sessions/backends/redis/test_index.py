from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.sessions.backends.index_contract import ANN, LISTED, IndexContract, named
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.backends.redis.index import RedisIndex
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.errors import StoreUnavailable


class TestRedisIndexOnValkey(IndexContract):
    @pytest.fixture
    def index(self, client: Client) -> RedisIndex:
        return RedisIndex(client, Keys("test"), Bounds(), listed=LISTED)


class TestRedisIndexOnRedis7(IndexContract):
    @pytest_asyncio.fixture
    async def index(self, redis7: Server) -> AsyncIterator[RedisIndex]:
        client = connect(Address(redis7.url), name="test")
        await client.flushall()
        yield RedisIndex(client, Keys("test"), Bounds(), listed=LISTED)
        await client.aclose()


async def test_all_of_it_expires(client: Client) -> None:
    keys = Keys("test")
    index = RedisIndex(client, keys, Bounds(lifetime=1000))
    await index.note(ANN, {named(1): 100})
    await index.note_erased(ANN, 500)

    assert 1900 < await client.ttl(keys.listed(ANN)) <= 2000, "longer than the session"
    assert 86_000 < await client.ttl(keys.erased(ANN)) <= 86_400, "as what was deleted"


async def test_many_go_in_several_calls(client: Client) -> None:
    index = RedisIndex(client, Keys("test"), Bounds())
    await index.note(ANN, {named(number): number for number in range(600)})
    assert await index.count(ANN) == 600


async def test_a_server_that_is_gone_is_told_in_one_kind_of_error(valkey: Server) -> None:
    client = connect(Address(valkey.url, timeout=0.5), name="test")
    index = RedisIndex(client, Keys("test"), Bounds())
    await index.note(ANN, {named(1): 100})
    valkey.kill()
    try:
        for call in (index.note(ANN, {named(1): 1}), index.page(ANN, 1), index.count(ANN)):
            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(call, 30)
    finally:
        valkey.start()
        await client.aclose()
