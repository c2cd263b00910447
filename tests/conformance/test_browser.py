"""openai's Realtime class in a real browser: in a page of another origin, its key as a subprotocol."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Error, Page, async_playwright, expect
from starlette.applications import Starlette
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import Route

from tests.conformance.listening import listening
from tests.conformance.node import bundled
from tests.conformance.served import KINDS, Place, Seen, placed
from tests.fakes.tls import Certificate
from tests.page.browser import CHROMIUM, chromium_path
from unbroken.server.agents.scripted import ScriptedAgent, answer_to

pytestmark = pytest.mark.slow

KEY: Final = "ek_short-lived"
KEYS: Final = (f"alice:{hashlib.sha256(KEY.encode()).hexdigest()}",)
HTML: Final = """<!doctype html><meta charset="utf-8"><title>A page of somebody's own</title>
<link rel="icon" href="data:,"><form><input></form><button id="stop">Stop</button>
<p id="status"></p><p id="answer"></p><script type="module" src="/page.js"></script>"""


class Tab:
    """The page, as it stands in a browser."""

    def __init__(self, page: Page, place: Place) -> None:
        self.page = page
        self.place = place
        self.answer = page.locator("#answer")
        self.status = page.locator("#status")

    async def connect(self, key: str = KEY) -> str:
        """Connect, and return the subprotocol that the server has selected."""
        protocol: str = await self.page.evaluate(
            "([url, key]) => open_conversation(url, key)", [self.place.secure_url, key]
        )
        return protocol

    async def ask(self, text: str) -> None:
        await self.page.locator("input").fill(text)
        await self.page.locator("input").press("Enter")

    async def ended(self) -> Seen:
        """Return what it has seen, once the server has closed it for good."""
        await self.page.evaluate("ended()")
        return await self.seen()

    async def seen(self) -> Seen:
        return Seen(**await self.page.evaluate("report()"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled("page.mjs", tmp_path_factory.mktemp("bundle") / "page.js")


@pytest.fixture
async def origin(bundle: Path) -> AsyncIterator[str]:
    """Where a page of somebody's own is served."""

    async def page(_request: object) -> HTMLResponse:
        return HTMLResponse(HTML)

    async def script(_request: object) -> FileResponse:
        return FileResponse(bundle, media_type="text/javascript")

    async with listening(Starlette(routes=[Route("/", page), Route("/page.js", script)])) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def opened(origin: str, certificate: Certificate, *allowed: str) -> AsyncIterator[Tab]:
    """Open the page of *origin* in a browser. The server allows those that are *allowed*."""
    async with (
        placed(ScriptedAgent(), certificate, api_keys=KEYS, allowed_origins=allowed) as place,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM)
        context = await browser.new_context(ignore_https_errors=True)
        context.set_default_timeout(15_000)
        page = await context.new_page()
        complaints: list[Error] = []
        page.on("pageerror", lambda error: complaints.append(error))
        await page.goto(origin)
        yield Tab(page, place)
        assert complaints == []
        await browser.close()


@pytest.mark.client("openai-browser", "conversation", "cancel", "origin")
async def test_an_allowed_page_converses_and_shows_what_is_said_as_it_is_said(
    origin: str, certificate: Certificate
) -> None:
    async with opened(origin, certificate, origin) as tab:
        assert await tab.connect() == "realtime", "the key isn't sent back"
        await tab.ask("/stall after 3")
        await expect(tab.answer).to_have_text("word1 word2 word3")
        await expect(tab.status).to_have_text("running")
        await tab.page.locator("#stop").click()
        await expect(tab.status).to_have_text("cancelled")
        await tab.ask("hi")
        await expect(tab.status).to_have_text("completed")
        await expect(tab.answer).to_have_text(answer_to("hi"))
        seen = await tab.seen()

    assert seen.answers() == [("cancelled", "word1 word2 word3"), ("completed", answer_to("hi"))]
    assert (seen.errors, seen.reconnections) == ([], [])


@pytest.mark.client("openai-browser", "origin")
async def test_another_page_is_told_why_it_may_not(origin: str, certificate: Certificate) -> None:
    """A browser can't show it the status of a refused upgrade: it reads an event and a code."""
    async with opened(origin, certificate, "https://app.example") as tab:
        with pytest.raises(Error, match="closed with 1008"):
            await tab.connect()
        seen = await tab.ended()

    assert (seen.errors, seen.closed, seen.reconnections) == (["origin_not_allowed"], 1008, [])
    assert [frame["type"] for frame in seen.frames] == ["error"]


@pytest.mark.client("openai-browser", "key")
async def test_a_wrong_key_is_told_and_not_tried_again(origin: str, certificate: Certificate) -> None:
    async with opened(origin, certificate, origin) as tab:
        with pytest.raises(Error, match="closed with 1008"):
            await tab.connect("ek_wrong")
        seen = await tab.ended()

    assert (seen.errors, seen.closed, seen.reconnections) == (["invalid_api_key"], 1008, [])


@pytest.mark.client("openai-browser", "resume")
@pytest.mark.parametrize("code", [1011, 1012, 1013])
async def test_a_connection_closed_in_mid_answer_is_resumed(
    origin: str, certificate: Certificate, code: int
) -> None:
    async with opened(origin, certificate, origin) as tab:
        tab.place.server.inspector.close_next(after=9, code=code)
        await tab.connect()
        await tab.ask("/tokens 4")
        await expect(tab.status).to_have_text("completed")
        await expect(tab.answer).to_have_text(answer_to("/tokens 4"))
        seen = await tab.seen()
        assert tab.place.server.agent.calls == 1

    assert seen.reconnections == [code]
    assert seen.kinds() == KINDS
    assert seen.errors == []


@pytest.mark.client("openai-browser", "network")
async def test_it_resumes_through_a_broken_network(origin: str, certificate: Certificate) -> None:
    async with opened(origin, certificate, origin) as tab:
        await tab.connect()
        await tab.ask("/tokens 200 5")
        await expect(tab.answer).to_contain_text("word9")
        tab.place.network.cut()
        await expect(tab.status).to_have_text("completed")
        await expect(tab.answer).to_have_text(answer_to("/tokens 200"))
        seen = await tab.seen()

    assert seen.reconnections == [1006]
    assert seen.answers() == [("completed", answer_to("/tokens 200"))]
