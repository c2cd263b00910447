"""What docs/graphql.md shows is run as it stands, in Chromium."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright, expect

from tests.page.browser import CHROMIUM, chromium_path
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.scripted import ScriptedAgent

pytestmark = pytest.mark.slow

DOCUMENT: Final = (Path(__file__).parents[2] / "docs" / "graphql.md").read_text()
PAGES: Final[list[str]] = re.findall(r"```html\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Served[ScriptedAgent]]:
    async with serving(ScriptedAgent(), graphql=True) as served:
        yield served


@pytest.fixture
async def tab() -> AsyncIterator[Page]:
    path = chromium_path()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield await browser.new_page()
        await browser.close()


async def test_the_page_that_is_shown_runs(server: Served[ScriptedAgent], tab: Page) -> None:
    """At the server's own address; its backend, which gets a short-lived key, is stood in for."""
    [html] = PAGES
    openai: Any = await server.openai()
    secret = (await openai.realtime.client_secrets.create(session={"type": "realtime"})).value
    await tab.route("**/my/key", lambda route: route.fulfill(json={"value": secret}))
    await tab.goto(f"http://127.0.0.1:{server.port}/healthz")

    await tab.set_content(html)

    await expect(tab.locator("p")).to_have_text("You said: Hello")
