from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server, redis_binary
from tests.fakes.valkey_fixtures import client, valkey
from unbroken.sessions.backends.redis.connection import Client
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.store import RedisStore

__all__ = ["client", "redis7", "store", "valkey"]


@pytest.fixture(scope="session")
def redis7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("redis") / "data", redis_binary()).running() as server:
        yield server


@pytest_asyncio.fixture
async def store(client: Client) -> AsyncIterator[RedisStore]:
    store = RedisStore(client, Keys("test"), Bounds())
    yield store
    await store.aclose()
