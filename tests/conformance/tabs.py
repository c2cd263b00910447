"""Pages of somebody's own in Chromium, on a site of another origin than the server that they speak to."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, Error, Page, WebSocketRoute, async_playwright, expect
from starlette.applications import Starlette
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import Route

from tests.conformance.listening import listening
from tests.page.browser import CHROMIUM, chromium_path

__all__ = ["ChatTab", "chromium", "noted", "say_to_deep_chat", "script_at", "site", "tab"]

_PATIENCE: Final = 15_000
"""Milliseconds until what doesn't happen is a failure."""
_TRY: Final = 2_000
"""Milliseconds in which a widget shows what it has taken."""


async def say_to_deep_chat(page: Page, text: str) -> None:
    """Say something to deep-chat, which takes nothing, and says nothing, until its connection is open."""
    box, said = page.locator("#text-input"), page.locator(".user-message-text")
    count = await said.count()
    while await said.count() == count:
        await box.fill(text)
        await box.press("Enter")
        with contextlib.suppress(AssertionError):
            await expect(said).to_have_count(count + 1, timeout=_TRY)


@contextlib.asynccontextmanager
async def site(html: Callable[[], str], script: Path, name: str = "page.js") -> AsyncIterator[str]:
    """Serve a page and its *script*. Yields the origin."""

    async def page(_request: object) -> HTMLResponse:
        return HTMLResponse(html())

    async with listening(Starlette(routes=[Route("/", page), script_at(f"/{name}", script)])) as port:
        yield f"http://127.0.0.1:{port}"


def script_at(path: str, script: Path) -> Route:
    """Return the route that serves *script* at *path*."""

    async def answer(_request: object) -> FileResponse:
        return FileResponse(script, media_type="text/javascript")

    return Route(path, answer)


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run a browser."""
    path = chromium_path()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield browser
        await browser.close()


@contextlib.asynccontextmanager
async def tab(browser: Browser, url: str, *, thrown: str | None = None) -> AsyncIterator[Page]:
    """Open *url* in a profile of its own. It may throw nothing that it doesn't catch, but for *thrown*."""
    context = await browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(_PATIENCE)
    page = await context.new_page()
    complaints: list[Error] = []
    page.on("pageerror", lambda error: complaints.append(error))
    await page.goto(url)
    try:
        yield page
    finally:
        await context.close()
    assert [error.message for error in complaints if error.message != thrown] == []


async def noted(page: Page) -> list[WebSocketRoute]:
    """Return a list that will have the page's connections, which can be closed as a server does."""
    connections: list[WebSocketRoute] = []

    def note(route: WebSocketRoute) -> None:
        route.connect_to_server()
        connections.append(route)

    await page.route_web_socket("**/v1/**", note)
    return connections


class ChatTab:
    """A page with a chat, in words for what a person does there: ``ui_page.mjs`` or ``agui_page.mjs``."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.users = page.locator(".user")
        self.answers = page.locator(".assistant")
        self.status = page.locator("output")
        self.error = page.locator("pre")

    async def ask(self, text: str) -> None:
        await self.page.locator("form input").fill(text)
        await self.page.locator("form input").press("Enter")

    async def choose(self, model: str) -> None:
        """Have what is asked from now on be answered by *model*; empty: by the server's own."""
        await self.page.locator("#model").fill(model)

    async def stop(self) -> None:
        await self.page.get_by_role("button", name="Stop").click()

    async def decide(self, *, allow: bool) -> None:
        """Say whether the call that waits may be made."""
        await self.page.get_by_role("button", name="Allow" if allow else "Refuse").click()

    async def is_ready(self) -> None:
        await expect(self.status).to_have_text("ready")

    async def has_answered(self, *texts: str) -> None:
        """Exactly these answers are shown, each whole and once, and nothing is wrong."""
        await expect(self.answers).to_have_text(list(texts), timeout=2 * _PATIENCE)
        await self.is_ready()
        await expect(self.error).to_have_text("")
