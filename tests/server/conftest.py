"""Servers for the tests of the doors."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.scripted import ScriptedAgent

Serve = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["outlet", "asgi"])
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    """Starts a server with an agent and settings. What it sent is checked at the test's end.

    Each test runs over the transport's own outlet, and by nothing but what every ASGI server has.
    """
    has_outlet = request.param == "outlet"
    async with contextlib.AsyncExitStack() as stack:

        async def start(agent: Any, **settings: Any) -> Any:
            return await stack.enter_async_context(serving(agent, has_outlet=has_outlet, **settings))

        yield start


@pytest.fixture
async def server(serve: Serve) -> Served[ScriptedAgent]:
    """A server with the scripted agent."""
    served: Served[ScriptedAgent] = await serve(ScriptedAgent())
    return served


@pytest.fixture
async def manual(serve: Serve) -> Served[ManualAgent]:
    """A server whose answers the test makes."""
    served: Served[ManualAgent] = await serve(ManualAgent())
    return served
