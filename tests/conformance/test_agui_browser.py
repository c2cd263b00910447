"""AG-UI in a real browser: a page of another origin, with AG-UI's own agent, or TanStack's chat."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import pytest
from playwright.async_api import Error, Page, async_playwright, expect
from starlette.applications import Starlette
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import Route

from tests.conformance.listening import listening
from tests.conformance.node import bundled
from tests.page.browser import CHROMIUM, chromium_path
from tests.server.realtime.serving import Served, eventually, serving
from unbroken.server.agents.scripted import ScriptedAgent, answer_to

pytestmark = pytest.mark.slow

KEY: Final = "ek_short-lived"
KEYS: Final = (f"alice:{hashlib.sha256(KEY.encode()).hexdigest()}",)
HTML: Final = """<!doctype html><meta charset="utf-8"><title>A page of somebody's own</title>
<link rel="icon" href="data:,"><main></main><form><input></form><button>Stop</button>
<output></output><pre></pre>
<script type="module" src="/page.js"></script>"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled("agui_page.mjs", tmp_path_factory.mktemp("bundle") / "page.js")


@contextlib.asynccontextmanager
async def opened(bundle: Path, way: str) -> AsyncIterator[tuple[Page, Served[ScriptedAgent]]]:
    """Open the page in a browser."""

    async def page_of_its_own(_request: object) -> HTMLResponse:
        return HTMLResponse(HTML)

    async def script(_request: object) -> FileResponse:
        return FileResponse(bundle, media_type="text/javascript")

    site = Starlette(routes=[Route("/", page_of_its_own), Route("/page.js", script)])
    async with listening(site) as port, async_playwright() as playwright:
        origin = f"http://127.0.0.1:{port}"
        async with serving(ScriptedAgent(), api_keys=KEYS, allowed_origins=(origin,)) as server:
            browser = await playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM)
            page = await browser.new_page()
            page.set_default_timeout(15_000)
            complaints: list[Error] = []
            page.on("pageerror", lambda error: complaints.append(error))
            fields = urlencode({"base": f"http://127.0.0.1:{server.port}", "key": KEY, "way": way})
            await page.goto(f"{origin}/?{fields}")
            await expect(page.locator("output")).to_have_text("ready")
            yield page, server
            assert complaints == []
            await browser.close()


async def ask(page: Page, text: str) -> None:
    await page.locator("input").fill(text)
    await page.locator("input").press("Enter")


async def is_told_all_of_it(bundle: Path, way: str) -> None:
    """Ask, load the page again in mid-answer, and see the whole of it."""
    script = "/tokens 300 10"
    async with opened(bundle, way) as (page, server):
        await ask(page, "hi")
        await expect(page.locator(".assistant")).to_have_text([answer_to("hi")])
        await expect(page.locator("output")).to_have_text("ready")
        await ask(page, script)
        await expect(page.locator(".assistant").last).to_contain_text("word9")
        await page.reload()
        await expect(page.locator(".user")).to_have_text(["hi", script])
        await expect(page.locator(".assistant").last).to_have_text(answer_to(script), timeout=20_000)
        await expect(page.locator("output")).to_have_text("ready")
        await expect(page.locator("pre")).to_have_text("")
        assert server.agent.calls == 2


async def is_stopped(bundle: Path, way: str) -> None:
    """Stop an answer, and see the next one whole."""
    async with opened(bundle, way) as (page, server):
        await ask(page, "/stall after 3")
        await expect(page.locator(".assistant")).to_have_text("word1 word2 word3")
        await page.locator("button").click()
        await expect(page.locator("output")).to_have_text("ready")
        await eventually(lambda: not server.app.node.hub.running)
        await ask(page, "hi")
        await expect(page.locator(".assistant")).to_have_text(["word1 word2 word3", answer_to("hi")])
        await expect(page.locator("pre")).to_have_text("")


@pytest.mark.client("agui-browser", "conversation", "address")
async def test_a_page_of_ag_ui_that_is_loaded_again_in_mid_answer_shows_all_of_it(bundle: Path) -> None:
    await is_told_all_of_it(bundle, "http")


@pytest.mark.client("tanstack-browser", "conversation", "address")
async def test_a_page_of_tanstack_that_is_loaded_again_in_mid_answer_shows_all_of_it(bundle: Path) -> None:
    await is_told_all_of_it(bundle, "ws")


@pytest.mark.client("agui-browser", "cancel")
async def test_an_answer_is_stopped_in_a_page_of_ag_ui(bundle: Path) -> None:
    await is_stopped(bundle, "http")


@pytest.mark.client("tanstack-browser", "cancel")
async def test_an_answer_is_stopped_in_a_page_of_tanstack(bundle: Path) -> None:
    await is_stopped(bundle, "ws")
