"""Every page that the documents show is run as it stands, in Chromium, against a server with all doors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Error, Page, WebSocket, expect

from tests.conformance.pages import PAGES, DocumentedPage, Site, opened_site, short_lived_key
from tests.conformance.tabs import say_to_deep_chat
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import eventually
from unbroken.server.agents.scripted import ScriptedAgent, answer_to

LOOP: Final = "module"
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope=LOOP)]

_FRAMES: Final = 20
"""That come before a connection is lost."""
_PATIENCE: Final = WAIT * 1000
"""Milliseconds until what doesn't happen is a failure."""


def those(pages: list[DocumentedPage]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


@contextlib.asynccontextmanager
async def shown(browser: Browser, page: DocumentedPage, site: Site[Any]) -> AsyncIterator[Page]:
    """Open *page* in a tab. It may complain of nothing, and load nothing from anywhere else."""
    context = await browser.new_context()
    tab = await context.new_page()
    tab.set_default_timeout(_PATIENCE)
    complaints: list[Error] = []
    hosts: set[str | None] = set()
    tab.on("pageerror", lambda error: complaints.append(error))
    tab.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    if page.is_of_any_site:
        await tab.goto(site.url)
    else:
        key = await short_lived_key(site.served.port)
        await tab.route("**/my/key", lambda route: route.fulfill(json={"value": key}))
        await tab.goto(f"http://127.0.0.1:{site.served.port}/healthz")
        await tab.set_content(page.html)
    yield tab
    await context.close()
    assert complaints == []
    assert hosts <= {"127.0.0.1", None}


async def ask(tab: Page, text: str) -> None:
    await tab.locator("input").fill(text)
    await tab.get_by_role("button", name="Ask").click()


async def shows(tab: Page, text: str) -> None:
    await expect(tab.locator("p")).to_have_text(text, timeout=_PATIENCE)


async def told(site: Site[Any], text: str) -> None:
    """The page's user has said something elsewhere, and it is in the archive, and in lists."""
    client = await site.served.client(site.token)
    await client.ask(text)
    await client.done()
    written = site.served.app.metrics.archive_turns.labels("written")
    await eventually(lambda: written._value.get() >= 1)


@those(PAGES)
async def test_a_page_shows_an_answer(page: DocumentedPage, browser: Browser, tmp_path: Path) -> None:
    async with opened_site(page, tmp_path, ScriptedAgent()) as site:
        if page.name.startswith(("archive", "conversations")):
            await told(site, "Hello")
        async with shown(browser, page, site) as tab:
            if page.asks:
                for text in ("Hello", "and again"):
                    await ask(tab, text)
                    await shows(tab, answer_to(text))
            elif page.name.startswith("deep-chat"):
                await say_to_deep_chat(tab, "Hello")
                await expect(tab.locator(".ai-message-text")).to_have_text(answer_to("Hello"))
            elif page.name.startswith(("archive", "conversations")):
                await tab.locator("li button").first.click()
                await expect(tab.locator("pre")).to_have_text("user: Hello\nassistant: You said: Hello")
            else:
                await shows(tab, answer_to("Hello"))


@those([page for page in PAGES if page.stops])
async def test_a_page_stops_an_answer(page: DocumentedPage, browser: Browser, tmp_path: Path) -> None:
    agent = ManualAgent()
    async with opened_site(page, tmp_path, agent) as site, shown(browser, page, site) as tab:
        await ask(tab, "one")
        stopped = await agent.turn()
        stopped.say("one ")
        await shows(tab, "one ")
        await tab.get_by_role("button", name="Stop").click()
        await asyncio.wait_for(stopped.closed.wait(), WAIT)
        assert stopped.was_stopped

        await ask(tab, "two")
        turn = await agent.turn(1)
        turn.say("two")
        turn.end()
        await shows(tab, "two")


# In a lane of Responses' a second request waits for the first one: that isn't refused.
@those([p for p in PAGES if p.asks and p.reconnects and not p.name.startswith("responses")])
async def test_a_page_shows_why_a_request_is_refused(
    page: DocumentedPage, browser: Browser, tmp_path: Path
) -> None:
    """By the frames of its protocol: what isn't in them would be an error of the page's."""
    agent = ManualAgent()
    async with opened_site(page, tmp_path, agent) as site, shown(browser, page, site) as tab:
        await ask(tab, "one")
        turn = await agent.turn()
        turn.say("one ")
        await shows(tab, "one ")
        await ask(tab, "two")
        await expect(tab.locator("p")).to_contain_text("in progress", timeout=_PATIENCE)
        turn.end()


@those([page for page in PAGES if page.goes_on])
async def test_a_page_that_is_loaded_again_in_mid_answer_shows_all_of_it(
    page: DocumentedPage, browser: Browser, tmp_path: Path
) -> None:
    agent = ManualAgent()
    async with opened_site(page, tmp_path, agent) as site, shown(browser, page, site) as tab:
        await ask(tab, "one")
        turn = await agent.turn()
        turn.say("before ")
        await shows(tab, "before ")
        await tab.reload()
        await shows(tab, "before ")
        turn.say("and after")
        turn.end()
        await shows(tab, "before and after")
        assert len(agent.turns) == 1


@those([page for page in PAGES if page.reconnects])
async def test_a_page_whose_connection_is_lost_shows_all_of_the_answer_once(
    page: DocumentedPage, browser: Browser, tmp_path: Path
) -> None:
    """It is lost in the midst of what is said, whose pieces are more than the frames that go through."""
    agent, said = ManualAgent(), ""
    async with opened_site(page, tmp_path, agent) as site:
        site.served.inspector.close_next(after=_FRAMES, code=1012)
        async with shown(browser, page, site) as tab:
            others: list[WebSocket] = []
            await ask(tab, "one")
            tab.on("websocket", lambda socket: others.append(socket))
            turn = await agent.turn()
            for number in range(_FRAMES):
                turn.say(f"{number} ")
                said += f"{number} "
                await shows(tab, said)
            turn.say("end")
            turn.end()
            await shows(tab, f"{said}end")
            assert len(agent.turns) == 1
            assert len(others) == 1


async def test_a_page_deletes_a_conversation(browser: Browser, tmp_path: Path) -> None:
    [page] = [page for page in PAGES if page.name.startswith("conversations")]
    async with opened_site(page, tmp_path, ScriptedAgent()) as site:
        await told(site, "Hello")
        async with shown(browser, page, site) as tab:
            await expect(tab.locator("li")).to_have_count(1)
            await tab.get_by_role("button", name="Delete").click()
            await expect(tab.locator("li")).to_have_count(0)
            await tab.reload()
            await expect(tab.locator("ul")).to_have_count(1)
            await expect(tab.locator("li")).to_have_count(0)
