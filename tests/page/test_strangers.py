"""Whoever has no key, where the operator lets strangers in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.browser import Chat, Server

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]

KEYS = {"UNBROKEN_API_KEYS": f"someone:{64 * '0'}", "UNBROKEN_ANONYMOUS": "true"}


@pytest.fixture
def open_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "log", **KEYS)
    server.start()
    yield server
    server.kill()


async def test_a_stranger_comes_in_without_being_asked_and_comes_back(
    context: BrowserContext, open_server: Server
) -> None:
    chat = await Chat.open(context, open_server.port)
    await chat.say("hello")
    await chat.has_answered("You said: hello")
    await chat.page.reload()
    await chat.has_answered("You said: hello")
    await chat.say("again")
    await chat.has_answered("You said: hello", "You said: again")

    await expect(chat.page.get_by_role("dialog", name="This server asks for a key")).to_be_hidden()
    assert chat.complaints == []


async def test_another_conversation_of_a_stranger_s_is_another_key_s(
    context: BrowserContext, open_server: Server
) -> None:
    chat = await Chat.open(context, open_server.port)
    await chat.say("hello")
    await chat.has_answered("You said: hello")
    await chat.button("New conversation").click()
    await expect(chat.texts).to_have_count(0)
    await chat.is_connected()
    await chat.say("again")
    await chat.has_answered("You said: again")

    assert chat.complaints == []


async def test_a_stranger_sends_a_file(context: BrowserContext, open_server: Server, tmp_path: Path) -> None:
    chat = await Chat.open(context, open_server.port)
    file = tmp_path / "notes.txt"
    file.write_text("Some notes.")
    await chat.say("hello")
    await chat.has_answered("You said: hello")
    await chat.page.locator("input[type=file]").set_input_files(file)
    await expect(chat.page.locator("#attachments .chip")).to_have_attribute("data-status", "ready")

    assert chat.complaints == []


async def test_too_many_strangers_are_told_so_and_may_enter_a_key(
    context: BrowserContext, open_server: Server
) -> None:
    """This machine itself is not held to the rate, so the refusal is made here."""
    refusal = {
        "error": {"message": "Too many keys for strangers were asked for.", "code": "too_many_requests"}
    }
    await context.route(
        "**/v1/realtime/client_secrets", lambda route: route.fulfill(status=429, json=refusal)
    )
    chat = Chat(await context.new_page())
    await chat.page.goto(f"http://127.0.0.1:{open_server.port}/")

    await expect(chat.page.get_by_role("dialog", name="This server asks for a key")).to_be_visible()
    await expect(chat.notice).to_contain_text("Too many keys for strangers")
    assert chat.complaints == []
