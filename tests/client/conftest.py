"""Servers for the client's tests, and clients that are in no hurry to give up."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio

from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, serving
from unbroken.client import Client, Timing, connect
from unbroken.server.agents.scripted import ScriptedAgent

__all__ = ["AT_ONCE", "Connect", "Serve"]

Serve = Callable[..., Awaitable[Any]]
Connect = Callable[..., Awaitable[Client]]

AT_ONCE = Timing(first_wait=0.01, longest_wait=0.05, handshake=30.0)
"""Comes back without waiting, and waits long for whoever is busy."""


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts servers; what they sent is checked at the test's end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(agent: Any, **settings: Any) -> Any:
            return await stack.enter_async_context(serving(agent, **settings))

        yield start


@pytest_asyncio.fixture
async def server(serve: Serve) -> Served[ScriptedAgent]:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent())
    return served


@pytest_asyncio.fixture
async def manual(serve: Serve) -> Served[ManualAgent]:
    """A server whose answers the test makes."""
    served: Served[ManualAgent] = await serve(ManualAgent())
    return served


@pytest_asyncio.fixture
async def clients(serve: Serve) -> AsyncIterator[Connect]:
    """Connects clients, to a port; they end before the servers do."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(port: int, **settings: Any) -> Client:
            settings = {"key": "alice", "timing": AT_ONCE, "proxy": None, **settings}
            return await stack.enter_async_context(connect(f"http://127.0.0.1:{port}", **settings))

        yield start
