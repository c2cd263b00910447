"""Two servers, or more, over one Valkey, in the test's own event loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.fakes.valkey import Server
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, serving

__all__ = ["some_nodes", "two_nodes"]


@contextlib.asynccontextmanager
async def two_nodes(valkey: Server, **settings: Any) -> AsyncIterator[list[Served[ManualAgent]]]:
    """Run two servers, whose answers the test makes. Their store is empty in the beginning."""
    async with some_nodes(2, valkey, **settings) as nodes:
        yield nodes


@contextlib.asynccontextmanager
async def some_nodes(count: int, valkey: Server, **settings: Any) -> AsyncIterator[list[Served[ManualAgent]]]:
    """Run *count* servers. See :func:`two_nodes`."""
    valkey.command("FLUSHALL")
    given: dict[str, Any] = {"secret": "x" * 32, "release_after": 1, **settings}
    async with contextlib.AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(serving(ManualAgent(), redis_url=valkey.url, **given))
            for _ in range(count)
        ]
        yield nodes
        for node in nodes:  # each looks in the end whether anything is left in the loop they share
            await node.hang_up()
        for node in nodes:
            await node.no_connections()
