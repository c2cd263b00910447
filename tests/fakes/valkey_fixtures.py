"""A Valkey, and a client of it that finds it empty: for a conftest to import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from unbroken.sessions.backends.redis.connection import Address, Client, connect

__all__ = ["client", "valkey"]


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
