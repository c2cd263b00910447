"""Nothing on the page comes from elsewhere, and nothing inline is run."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext

from tests.page.browser import Chat, Server

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


async def test_nothing_comes_from_elsewhere(context: BrowserContext, server: Server) -> None:
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    chat = await Chat.open(context, server.port)
    await chat.say("hello")
    await chat.is_idle()

    assert asked
    assert [url for url in asked if not url.startswith(f"http://127.0.0.1:{server.port}/")] == []
    assert chat.complaints == []


async def test_the_policy_stops_what_is_inline(context: BrowserContext, server: Server) -> None:
    chat = await Chat.open(context, server.port)

    tried = await chat.page.evaluate(
        """() => {
            const script = document.createElement("script");
            try {
                script.textContent = "document.title = 'owned'";
                document.body.append(script);
                return "appended";
            } catch (error) {
                return error.name;
            }
        }"""
    )

    assert tried == "TypeError"
    assert await chat.page.title() == "Unbroken"
    assert any("policy" in complaint or "Policy" in complaint for complaint in chat.complaints)
