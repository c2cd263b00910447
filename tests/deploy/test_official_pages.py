"""Clients in pages in Chromium whose node goes in mid-answer: another one behind HAProxy goes on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Request, expect

from tests.conformance.chats import CHATS, LOST, SOCKETS, Chat, chats
from tests.conformance.node import bundled
from tests.conformance.pages import WIDGET
from tests.conformance.served import Seen
from tests.conformance.tabs import ChatTab, chromium, say_to_deep_chat, site, tab
from tests.conformance.test_browser import HTML
from tests.conformance.test_deepchat_browser import KEY, documented
from tests.deploy.balanced import PATIENCE
from tests.deploy.losing import ANSWERS, ASKED, CODES, KILLED, Place, losing, spoken
from tests.fakes.tls import TlsProxy
from tests.page.browser import Chat as OwnPage

LOOP: Final = "module"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope=LOOP)]

_PATIENCE: Final = PATIENCE * 1000
"""Milliseconds until what doesn't happen is a failure."""


@dataclass(frozen=True, slots=True)
class Sites:
    """Where the clients' pages are: the origins, by their scripts, and what is lost behind HAProxy."""

    place: Place
    origins: dict[str, str]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.place.balanced.port}"


@pytest_asyncio.fixture(scope="module", loop_scope=LOOP)
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope=LOOP)
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sites]:
    folder = tmp_path_factory.mktemp("pages")
    html = {chat.script: chat.html for chat in CHATS.values()} | {"page.mjs": HTML}
    async with contextlib.AsyncExitStack() as stack:
        origins: dict[str, str] = {}
        for script, text in html.items():
            page = site(lambda text=text: text, bundled(script, folder / script))  # type: ignore[misc]
            origins[script] = await stack.enter_async_context(page)
        widget: list[str] = []
        page = site(lambda: widget[0], WIDGET, "deepChat.bundle.js")
        origins["deep-chat"] = await stack.enter_async_context(page)
        settings = {
            "UNBROKEN_ALLOWED_ORIGINS": ",".join(origins.values()),
            # A short-lived key is shown once; these clients show the same again when they come back.
            "UNBROKEN_API_KEYS_IN_BROWSERS": "true",
            # The balancer of the tests cuts off whoever is silent for two seconds.
            "UNBROKEN_PING_INTERVAL": "1",
        }
        place = await stack.enter_async_context(losing(folder, **settings))
        widget.append(documented(place.balanced.port, "ws", shows_errors=False).replace(KEY, "me-deep-chat"))
        yield Sites(place, origins)


@pytest_asyncio.fixture(loop_scope=LOOP)
async def sites(running: Sites) -> Sites:
    await running.place.mend()
    return running


def losses(page: Page) -> list[str]:
    """Return a list that will have what the page does from now on where its connection is lost.

    Of a request that ends badly, and isn't the page's own doing, why; of another WebSocket its address.
    """
    seen: list[str] = []

    def failed(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":
            seen.append(request.failure or "")

    page.on("requestfailed", failed)
    page.on("websocket", lambda socket: seen.append(socket.url))
    return seen


@pytest.mark.client("ai-browser", "node")
@pytest.mark.client("agui-browser", "node")
@pytest.mark.client("tanstack-browser", "node")
@chats()
async def test_the_chats_of_libraries_show_whole_answers_and_go_on(
    sites: Sites, browser: Browser, chat: Chat, request: pytest.FixtureRequest
) -> None:
    # A user of its own, whose chats no other test has.
    key = f"me-{request.node.callspec.id}"
    fields = urlencode({"base": sites.base, "key": key, "way": chat.way, "affinity": key})
    expected = spoken(KILLED)
    lost: list[str] = []
    async with (
        sites.place.killing_owner(),
        tab(browser, f"{sites.origins[chat.script]}/?{fields}", thrown=LOST) as opened,
    ):
        page = ChatTab(opened)
        await page.is_ready()
        for number, asked in enumerate(KILLED, 1):
            await page.ask(asked)
            await page.has_answered(*(text for role, text in expected[: 2 * number] if role == "assistant"))
            if number == 1:
                lost = losses(opened)
        assert lost, "its connection was"

    assert sites.place.asked() == ["first", "killed", "last"]


@pytest.mark.client("ai-browser", "node")
@pytest.mark.client("tanstack-browser", "node")
@chats(*SOCKETS)
async def test_chats_on_sockets_whose_node_is_drained_go_on_elsewhere(
    sites: Sites, browser: Browser, chat: Chat, request: pytest.FixtureRequest
) -> None:
    asked = [KILLED[0], KILLED[2]]
    texts = [text for role, text in spoken(asked) if role == "assistant"]
    fields = urlencode({"base": sites.base, "key": f"drained-{request.node.callspec.id}", "way": chat.way})
    async with tab(browser, f"{sites.origins[chat.script]}/?{fields}") as opened:
        page = ChatTab(opened)
        await page.is_ready()
        await page.ask(asked[0])
        await page.has_answered(texts[0])
        await sites.place.drain_connected()
        await page.ask(asked[1])
        await page.has_answered(*texts)

    assert sites.place.asked() == ["first", "last"]


@pytest.mark.client("openai-browser", "node")
async def test_openais_class_shows_whole_answers_and_goes_on(sites: Sites, browser: Browser) -> None:
    async with (
        TlsProxy(sites.place.balanced.port, sites.place.certificate) as tls,
        sites.place.losing_owners(),
        tab(browser, sites.origins["page.mjs"]) as page,
    ):
        # It comes back five times at most: not all of them before a balancer knows that a node is gone.
        arguments = [f"https://127.0.0.1:{tls.port}/v1", "me-openai", 200]
        await page.evaluate("([url, key, delay]) => open_conversation(url, key, delay)", arguments)
        for asked, (status, text) in zip(ASKED, ANSWERS, strict=True):
            await page.locator("input").fill(asked)
            await page.locator("input").press("Enter")
            await expect(page.locator("#answer")).to_have_text(text, timeout=_PATIENCE)
            await expect(page.locator("#status")).to_have_text(status, timeout=_PATIENCE)
        seen = Seen(**await page.evaluate("report()"))

    assert seen.reconnections == CODES
    assert seen.answers() == ANSWERS
    assert seen.errors == []
    assert sites.place.asked() == ["drained", "killed", "last"]


@pytest.mark.client("page", "node")
async def test_this_servers_page_shows_whole_answers_and_goes_on(sites: Sites, browser: Browser) -> None:
    context = await browser.new_context()
    async with sites.place.losing_owners():
        chat = await OwnPage.open(context, sites.place.balanced.port)
        for number, asked in enumerate(ASKED, 1):
            await chat.say(asked)
            texts = [text for _, text in ANSWERS[:number]]
            await expect(chat.texts).to_have_text(texts, timeout=_PATIENCE)
            await expect(chat.running).to_have_count(0, timeout=_PATIENCE)
        await chat.has_said(*ASKED)
        assert chat.complaints == []
    await context.close()

    assert sites.place.asked() == ["drained", "killed", "last"]


@pytest.mark.client("deep-chat", "node")
async def test_deep_chat_shows_whole_answers_and_goes_on(sites: Sites, browser: Browser) -> None:
    """What it comes back to is told anew, as a message behind what it has of it."""
    texts = [text for role, text in spoken(KILLED) if role == "assistant"]
    lost: list[str] = []
    async with sites.place.killing_owner(), tab(browser, sites.origins["deep-chat"]) as page:
        for asked, text in zip(KILLED, texts, strict=True):
            await say_to_deep_chat(page, asked)
            answers = page.locator(".ai-message-text:not(.error-message-text)")
            await expect(answers.last).to_have_text(text, timeout=_PATIENCE)
            if asked == KILLED[0]:
                lost = losses(page)
        assert lost, "its connection was"

    assert sites.place.asked() == ["first", "killed", "last"]
