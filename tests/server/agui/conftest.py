"""Pages with threads on a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from tests.server.agui.client import Thread
from tests.server.realtime.serving import Served

Open = Callable[..., Thread]


@pytest.fixture
async def open_thread() -> AsyncIterator[Callable[..., Thread]]:
    """Opens threads of a server's; all are closed at the test's end."""
    threads: list[Thread] = []

    def open_thread(server: Served[Any], key: str = "alice", thread: str = "thread-1") -> Thread:
        threads.append(Thread(server.port, key, thread))
        return threads[-1]

    async with AsyncExitStack() as stack:
        yield open_thread
        for thread in threads:
            await stack.enter_async_context(aclosing(thread))
