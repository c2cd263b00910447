"""`useChat` in a real browser, in React's strict mode: a page of another origin that is loaded again."""

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
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.scripted import ScriptedAgent, answer_to

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("way", ["http", "ws"])]

KEY: Final = "ek_short-lived"
KEYS: Final = (f"alice:{hashlib.sha256(KEY.encode()).hexdigest()}",)
HTML: Final = """<!doctype html><meta charset="utf-8"><title>A page of somebody's own</title>
<link rel="icon" href="data:,"><div id="root"></div><script type="module" src="/page.js"></script>"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled("ui_page.mjs", tmp_path_factory.mktemp("bundle") / "page.js")


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
            yield page, server
            assert complaints == []
            await browser.close()


async def ask(page: Page, text: str) -> None:
    await page.locator("input").fill(text)
    await page.locator("input").press("Enter")


@pytest.mark.client("ai-browser", "conversation", "address")
async def test_a_page_that_is_loaded_again_in_mid_answer_shows_all_of_it(bundle: Path, way: str) -> None:
    script = "/tokens 400 10"
    async with opened(bundle, way) as (page, server):
        await ask(page, "hi")
        await expect(page.locator("output")).to_have_text("ready")
        await ask(page, script)
        await expect(page.locator(".assistant").last).to_contain_text("word9")
        await page.reload()
        await expect(page.locator(".user")).to_have_text(["hi", script])
        await expect(page.locator("output")).to_have_text("streaming")
        await expect(page.locator("output")).to_have_text("ready", timeout=20_000)
        await expect(page.locator(".assistant")).to_have_text([answer_to("hi"), answer_to(script)])
        await expect(page.locator("pre")).to_have_text("")
        assert server.agent.calls == 2


@pytest.mark.client("ai-browser", "cancel")
async def test_an_answer_is_stopped_and_the_next_one_is_whole(bundle: Path, way: str) -> None:
    async with opened(bundle, way) as (page, server):
        await ask(page, "/stall after 3")
        await expect(page.locator(".assistant")).to_have_text("word1 word2 word3")
        await page.locator("#stop").click()
        await expect(page.locator("output")).to_have_text("ready")
        await ask(page, "hi")
        await expect(page.locator(".assistant")).to_have_text(["word1 word2 word3", answer_to("hi")])
        await expect(page.locator("pre")).to_have_text("")
        await server.asked(2)
