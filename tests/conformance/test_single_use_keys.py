"""Pages whose connections each have another credential, good once, as their own backend gets it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from tests.conformance.chats import CHATS, Bundles, Chat
from tests.conformance.node import node_path
from tests.conformance.pages import PAGES, DocumentedPage, Site, opened_site
from tests.conformance.tabs import ChatTab, noted, say_to_deep_chat, tab
from unbroken.server.agents.scripted import ScriptedAgent, answer_to

LOOP: Final = "module"
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope=LOOP)]

SCRIPT: Final = "/tokens 300 10"

GIVE_ANOTHER_KEY: Final = """async () => {
    const { value: key } = await (await fetch("/my/key")).json();
    document.getElementById("chat").connect.websocket = ["realtime", `openai-insecure-api-key.${key}`];
}"""

ticketed = pytest.mark.parametrize(
    "chat",
    [dataclasses.replace(CHATS[name], way="tickets") for name in ("ai-ws", "tanstack-ws")],
    ids=["ai", "tanstack"],
)


def address(there: Site[ScriptedAgent], chat: Chat) -> str:
    return f"{there.url}/?{urlencode({'base': f'http://127.0.0.1:{there.served.port}', 'way': chat.way})}"


def tickets_of(page: Page) -> list[str]:
    """Return a list that will have the tickets which the page's connections show."""
    shown: list[str] = []
    page.on("websocket", lambda socket: shown.extend(parse_qs(urlsplit(socket.url).query)["ticket"]))
    return shown


@pytest.mark.client("ai-browser", "address")
@pytest.mark.client("tanstack-browser", "address")
@ticketed
async def test_a_page_that_is_loaded_again_in_mid_answer_comes_back_with_another_ticket(
    browser: Browser, bundles: Bundles, chat: Chat, tmp_path: Path
) -> None:
    html = DocumentedPage(chat.script, chat.html)
    async with (
        opened_site(html, tmp_path, ScriptedAgent(), bundles[chat.script]) as there,
        tab(browser, address(there, chat)) as opened,
    ):
        page, tickets = ChatTab(opened), tickets_of(opened)
        await page.is_ready()
        await page.ask("hi")
        await page.has_answered(answer_to("hi"))
        await page.ask(SCRIPT)
        await expect(page.answers.last).to_contain_text("word9")
        await opened.reload()
        await page.has_answered(answer_to("hi"), answer_to(SCRIPT))
        await page.ask("and again")
        await page.has_answered(answer_to("hi"), answer_to(SCRIPT), answer_to("and again"))
        assert there.served.agent.calls == 3

    assert len(tickets) >= 2
    assert len(set(tickets)) == len(tickets)


@pytest.mark.client("ai-browser", "resume")
@pytest.mark.client("tanstack-browser", "resume")
@ticketed
async def test_a_page_whose_node_restarts_comes_back_with_another_ticket(
    browser: Browser, bundles: Bundles, chat: Chat, tmp_path: Path
) -> None:
    html = DocumentedPage(chat.script, chat.html)
    async with (
        opened_site(html, tmp_path, ScriptedAgent(), bundles[chat.script]) as there,
        tab(browser, address(there, chat)) as opened,
    ):
        page, connections = ChatTab(opened), await noted(opened)
        await opened.reload()
        await page.is_ready()
        await page.ask(SCRIPT)
        await expect(page.answers.last).to_contain_text("word9")
        await connections[-1].close(code=1012)
        await page.has_answered(answer_to(SCRIPT))
        assert there.served.agent.calls == 1

    tickets = [parse_qs(urlsplit(each.url).query)["ticket"][0] for each in connections]
    assert len(tickets) >= 2
    assert len(set(tickets)) == len(tickets)


@pytest.mark.client("deep-chat", "address")
async def test_deep_chat_is_loaded_again_in_mid_answer_with_another_key(
    browser: Browser, tmp_path: Path
) -> None:
    node_path()
    html = next(page for page in PAGES if page.name.startswith("deep-chat"))
    async with opened_site(html, tmp_path, ScriptedAgent()) as there, tab(browser, there.url) as page:
        answers = page.locator(".ai-message-text")
        await say_to_deep_chat(page, SCRIPT)
        await expect(answers).to_contain_text("word9")
        await page.reload()
        await expect(answers).to_have_text([answer_to(SCRIPT)], timeout=20_000)
        assert there.served.agent.calls == 1


@pytest.mark.client("deep-chat", "network")
async def test_deep_chat_comes_back_with_the_key_that_it_was_given_since(
    browser: Browser, tmp_path: Path
) -> None:
    node_path()
    html = next(page for page in PAGES if page.name.startswith("deep-chat"))
    async with opened_site(html, tmp_path, ScriptedAgent()) as there, tab(browser, there.url) as page:
        script = "/tokens 60 10"
        await page.evaluate(GIVE_ANOTHER_KEY)
        await say_to_deep_chat(page, script)
        await expect(page.locator(".ai-message-text")).to_contain_text("word9")
        (connection,) = there.served.server.server_state.connections
        connection.transport.abort()
        await expect(page.locator(".ai-message-text").last).to_have_text(answer_to(script))
        assert there.served.agent.calls == 1
