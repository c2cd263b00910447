from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.valkey_fixtures import client, valkey
from unbroken.server.auth.redis.connection import Redis
from unbroken.sessions.backends.redis.connection import Address, Client, connect

__all__ = ["client", "nobody", "redis", "valkey"]


@pytest.fixture
def redis(client: Client) -> Redis:
    return Redis(client, "test")


@pytest_asyncio.fixture
async def nobody() -> AsyncIterator[Redis]:
    """A Redis that nobody answers for."""
    client = connect(Address("redis://127.0.0.1:1/0", timeout=0.5), name="test")
    yield Redis(client, "test", patience=0.5)
    await client.aclose()
