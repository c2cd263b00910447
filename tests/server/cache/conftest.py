"""Stores of answers: in memory, and in a real Valkey."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.valkey import Server
from unbroken.server.cache.base import AnswerStore, StoreLimits
from unbroken.server.cache.index import PlaceIndex
from unbroken.server.cache.memory import MemoryAnswers
from unbroken.server.cache.redis import RedisAnswers
from unbroken.sessions.backends.redis.connection import Address, connect
from unbroken.sessions.backends.redis.keys import Keys

NewStore = Callable[..., AnswerStore]


@pytest.fixture(scope="session")
def answers_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("answers")).running() as server:
        yield server


@pytest.fixture
async def valkey_store(answers_server: Server) -> AsyncIterator[NewStore]:
    """Makes stores in Valkey that share nothing."""
    async with AsyncExitStack() as stack:
        client = connect(Address(answers_server.url), name="test")
        stack.push_async_callback(client.aclose)
        yield lambda: RedisAnswers(
            client, Keys(f"t{uuid.uuid4().hex[:12]}"), FakeClock(), StoreLimits(), PlaceIndex
        )


@pytest.fixture(params=["memory", pytest.param("valkey", marks=pytest.mark.whole)])
async def new_store(request: pytest.FixtureRequest) -> AsyncIterator[NewStore]:
    """Makes stores. Over Valkey, those of a test share what is kept, as nodes do."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    async with AsyncExitStack() as stack:

        def new(limits: StoreLimits | None = None, **named: Any) -> AnswerStore:
            limits = limits or StoreLimits()
            if request.param == "memory":
                return MemoryAnswers(named.get("clock") or FakeClock(), limits, PlaceIndex)
            server: Server = request.getfixturevalue("answers_server")
            client = connect(Address(named.get("url") or server.url), name="test")
            stack.push_async_callback(client.aclose)
            return RedisAnswers(client, Keys(prefix), named.get("clock") or FakeClock(), limits, PlaceIndex)

        yield new


@pytest.fixture
def store(new_store: NewStore) -> AnswerStore:
    return new_store()
