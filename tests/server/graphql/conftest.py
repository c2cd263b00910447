"""Speakers of GraphQL, and servers that understand them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from tests.server.conftest import Serve
from tests.server.graphql.client import Caller
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served

Call = Callable[..., Caller]


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    """Makes speakers to a server; all leave at the test's end."""
    callers: list[Caller] = []

    def call(server: Served[Any], key: str | None = "alice") -> Caller:
        callers.append(Caller(server.port, key))
        return callers[-1]

    async with AsyncExitStack() as stack:
        yield call
        for caller in callers:
            await stack.enter_async_context(aclosing(caller))


@pytest.fixture
async def spoken(serve: Serve) -> Served[ManualAgent]:
    """A server that speaks GraphQL, with an agent that says what the test has it say."""
    served: Served[ManualAgent] = await serve(ManualAgent(), graphql=True)
    return served
