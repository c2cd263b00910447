"""The server closes the page's connection in mid-answer: the code says why, and the page comes back."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.browser import Chat, Server
from tests.page.gate import Gate
from tests.page.refuser import Refuser
from unbroken.server.agents.scripted import answer_to

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


@pytest.mark.client("page", "resume", "fault")
@pytest.mark.parametrize("code", [1011, 1012, 1013])
async def test_an_answer_goes_on_where_it_was_cut_off(
    context: BrowserContext, gated_server: Server, gate: Gate, code: int
) -> None:
    chat = Chat(await context.new_page())
    refuser = await Refuser.before(chat.page)
    await chat.page.goto(f"http://127.0.0.1:{gated_server.port}/")
    await chat.is_connected()
    before = gated_server.answered
    script = gate.script(100, 20)
    await chat.say(script)
    await expect(chat.texts).to_have_text(answer_to("/tokens 20"))

    await refuser.close(code)
    await gate.open()

    await chat.has_answered(answer_to("/tokens 100"))
    await chat.has_said(script)
    assert gated_server.answered == before + 1
    assert chat.complaints == []
