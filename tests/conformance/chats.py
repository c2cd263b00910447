"""The chats that libraries bring, each in a page in Chromium, over each of its transports."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from playwright.async_api import Browser

from tests.conformance.tabs import ChatTab, site, tab
from tests.server.realtime.desk import Desk, at_desk
from tests.server.realtime.serving import Served

__all__ = ["AGENT", "CHATS", "KEY", "LOST", "SOCKETS", "Bundles", "Chat", "chats", "opened"]

KEY: Final = "ek_short-lived"
_KEYS: Final = (f"alice:{hashlib.sha256(KEY.encode()).hexdigest()}",)


@dataclass(frozen=True, slots=True)
class Chat:
    """A library's chat, over one of its transports."""

    script: str
    """The page's, in the folder ``node``."""
    html: str
    way: str

    def told(self, message: str, status: int) -> str:
        """Return what it shows of a refusal: TanStack's client says nothing of an answer but its status."""
        return str(status) if self.way == "sse" else message


_UI: Final = """<!doctype html><meta charset="utf-8"><title>A page of somebody's own</title>
<link rel="icon" href="data:,"><div id="root"></div><script type="module" src="/page.js"></script>"""
_AGUI: Final = """<!doctype html><meta charset="utf-8"><title>A page of somebody's own</title>
<link rel="icon" href="data:,"><main></main><form><input></form><input id="model">
<button id="stop">Stop</button><section></section><output></output><pre></pre>
<script type="module" src="/page.js"></script>"""

AGENT: Final = "agui"
LOST: Final = "network error"
"""What AG-UI's client, having told it, also throws where nobody can catch it, when its connection is lost."""

CHATS: Final = {
    "ai-http": Chat("ui_page.mjs", _UI, "http"),
    "ai-ws": Chat("ui_page.mjs", _UI, "ws"),
    AGENT: Chat("agui_page.mjs", _AGUI, "http"),
    "tanstack-ws": Chat("agui_page.mjs", _AGUI, "ws"),
    "tanstack-sse": Chat("agui_page.mjs", _AGUI, "sse"),
}
SOCKETS: Final = ("ai-ws", "tanstack-ws")

Bundles = dict[str, Path]
"""By the names of scripts."""


def chats(*names: str) -> pytest.MarkDecorator:
    """Run a test with these chats; none: with all."""
    return pytest.mark.parametrize("chat", [CHATS[name] for name in names or CHATS], ids=names or CHATS)


@contextlib.asynccontextmanager
async def opened(
    chat: Chat,
    browser: Browser,
    bundles: Bundles,
    *,
    key: str = KEY,
    thrown: str | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[ChatTab, Served[Any], Desk]]:
    """Open the page with the chat, and a server whose tools are at a desk. The page may throw *thrown*."""
    async with site(lambda: chat.html, bundles[chat.script]) as origin:
        fixed: dict[str, Any] = {"api_keys": _KEYS, "allowed_origins": (origin,), **settings}
        async with at_desk(**fixed) as (desk, server):
            fields = urlencode({"base": f"http://127.0.0.1:{server.port}", "key": key, "way": chat.way})
            async with tab(browser, f"{origin}/?{fields}", thrown=thrown) as page:
                opened = ChatTab(page)
                await opened.is_ready()
                yield opened, server, desk
