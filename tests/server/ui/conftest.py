"""Pages that chat with a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from tests.server.realtime.serving import Served
from tests.server.ui.client import Page

Open = Callable[..., Page]


@pytest.fixture
async def open_page() -> AsyncIterator[Callable[..., Page]]:
    """Opens pages of a server's; all are closed at the test's end."""
    pages: list[Page] = []

    def open_page(server: Served[Any], key: str = "alice", chat: str = "chat-1") -> Page:
        pages.append(Page(server.port, key, chat))
        return pages[-1]

    async with AsyncExitStack() as stack:
        yield open_page
        for page in pages:
            await stack.enter_async_context(aclosing(page))
