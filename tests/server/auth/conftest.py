from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from unbroken.server.auth.redis.connection import Redis
from unbroken.sessions.backends.redis.connection import Address, Client, connect


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest_asyncio.fixture
async def client(valkey: Server) -> AsyncIterator[Client]:
    client = connect(Address(valkey.url), name="test")
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def redis(client: Client) -> Redis:
    return Redis(client, "test")


@pytest_asyncio.fixture
async def nobody() -> AsyncIterator[Redis]:
    """A Redis that nobody answers for."""
    client = connect(Address("redis://127.0.0.1:1/0", timeout=0.5), name="test")
    yield Redis(client, "test", patience=0.5)
    await client.aclose()
