from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server, redis_binary
from tests.fakes.valkey_fixtures import client, valkey
from unbroken.server.auth.redis.connection import Redis
from unbroken.sessions.backends.redis.connection import Address, connect

__all__ = ["client", "nobody", "redis", "valkey"]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("redis") / "data", redis_binary()).running() as server:
        yield server


@pytest_asyncio.fixture(params=["valkey", "redis_server"])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """Either server, empty: the scripts' numbers become text in each its own way."""
    server: Server = request.getfixturevalue(request.param)
    client = connect(Address(server.url), name="test")
    await client.flushall()
    yield Redis(client, "test")
    await client.aclose()


@pytest_asyncio.fixture
async def nobody() -> AsyncIterator[Redis]:
    """A Redis that nobody answers for."""
    client = connect(Address("redis://127.0.0.1:1/0", timeout=0.5), name="test")
    yield Redis(client, "test", patience=0.5)
    await client.aclose()
