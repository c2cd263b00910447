"""What tests of calls have in common: scripts, a tool that waits, and another client beside the page."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from playwright.async_api import Locator, expect
from websockets.asyncio.client import ClientConnection, connect

from tests.page.browser import Chat
from tests.page.meeting import Meeting

WEATHER = '/say Let me see.\n/call weather {"city": "Ulm"}\n/then\n/say Take an umbrella.'
MAIL = '/say I would write.\n/call mail {"to": "ann"}\n/then\n/say Off it went.'
REFUSED = "Returned: The user doesn't want this to be done."


class Holder(Meeting):
    """The other end of the tool that waits: it has begun when it connects, and ends with what it is told."""

    @property
    def script(self) -> str:
        return f'/call hold {{"port": {self.port}}}\n/then\n/say Now I know.'

    async def has_begun(self) -> asyncio.StreamWriter:
        return await self.arrival()


async def has_states(chat: Chat, *states: str) -> None:
    await expect(chat.states).to_have_text(list(states))


async def unfolded(line: Locator) -> str:
    """Return what is inside, after having opened it."""
    if await line.locator("details").get_attribute("open") is None:
        await line.locator("summary").click()
    return "\n".join(await line.locator(".part").all_inner_texts())


async def beside(chat: Chat, port: int) -> ClientConnection:
    """Return another client's connection to the same session."""
    key, token = await chat.page.evaluate("[localStorage['unbroken.key'], sessionStorage['unbroken.resume']]")
    url = f"ws://127.0.0.1:{port}/v1/realtime?resume={token}"
    return await connect(url, additional_headers={"Authorization": f"Bearer {key}"})


async def heard(socket: ClientConnection, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(15):
        while True:
            event: dict[str, Any] = json.loads(await socket.recv())
            if event["type"] == kind:
                return event


async def is_asked(chat: Chat) -> None:
    await chat.say(MAIL)
    await has_states(chat, "Asks for your approval")
    await chat.is_idle()
