from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, async_playwright, expect

from tests.fakes.proxy import Proxy
from tests.page.browser import CHROMIUM, GATED, TOOLS, Chat, Server, chromium_path
from tests.page.calling import Holder
from tests.page.gate import Gate
from tests.server.realtime.client import WAIT

# One server and one browser for all, each test with a context of its own: as separate as two people.
LOOP: Final = "package"
_PATIENCE: Final = WAIT * 1000
"""Milliseconds until what doesn't happen is a failure. Nothing that passes waits so long."""


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that no test ends."""
    server = Server(tmp_path_factory.mktemp("server") / "log")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="package")
def tool_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with tools, that no test ends."""
    server = Server(tmp_path_factory.mktemp("tools") / "log", UNBROKEN_TOOLS=TOOLS)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="package")
def gated_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose answers can be made to wait, that no test ends."""
    server = Server(tmp_path_factory.mktemp("gated") / "log", **GATED)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A gated server to end and start again, or on which nobody else has anything answered."""
    server = Server(tmp_path / "log", **GATED)
    server.start()
    yield server
    server.kill()


@pytest_asyncio.fixture(scope="package", loop_scope=LOOP)
async def browser() -> AsyncIterator[Browser]:
    path = chromium_path()
    expect.set_options(timeout=_PATIENCE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope=LOOP)
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser profile. Afterwards, no tab in it may have complained of anything."""
    context = await browser.new_context()
    context.set_default_timeout(_PATIENCE)
    await context.add_init_script(
        "document.addEventListener('securitypolicyviolation',"
        " (event) => console.error('policy violated:', event.violatedDirective, event.blockedURI));"
    )
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope=LOOP)
async def chat(context: BrowserContext, server: Server) -> AsyncIterator[Chat]:
    """The page, connected."""
    chat = await Chat.open(context, server.port)
    yield chat
    assert chat.complaints == []
    assert chat.lost == []


@pytest_asyncio.fixture(loop_scope=LOOP)
async def gate() -> AsyncIterator[Gate]:
    async with Gate() as gate:
        yield gate


@pytest_asyncio.fixture(loop_scope=LOOP)
async def gated(context: BrowserContext, gated_server: Server) -> AsyncIterator[Chat]:
    """The page, connected to a server whose answers can be made to wait."""
    chat = await Chat.open(context, gated_server.port)
    yield chat
    assert chat.complaints == []
    assert chat.lost == []


@pytest_asyncio.fixture(loop_scope=LOOP)
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(server.port) as proxy:
        yield proxy


@pytest_asyncio.fixture(loop_scope=LOOP)
async def gated_proxy(gated_server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(gated_server.port) as proxy:
        yield proxy


@pytest_asyncio.fixture(loop_scope=LOOP)
async def holder() -> AsyncIterator[Holder]:
    async with Holder() as holder:
        yield holder
