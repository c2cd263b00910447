"""The page when the server ends, and when it asks for a key."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.browser import Chat, Server

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


async def test_a_restart_keeps_the_text_and_begins_anew(context: BrowserContext, own_server: Server) -> None:
    chat = await Chat.open(context, own_server.port)
    await chat.say("before")
    await chat.is_idle()
    await chat.say("/stall after 4")
    await expect(chat.running).to_contain_text("word4")

    own_server.kill()
    await expect(chat.connection).to_have_text("Reconnecting")
    own_server.start()

    await chat.is_connected()
    await expect(chat.page.locator(".ended")).to_contain_text("This conversation has ended on the server")
    await expect(chat.answers.nth(1)).to_contain_text("The server lost the conversation")
    await chat.say("after")
    await chat.is_idle()
    assert await chat.order() == [
        "before",
        "You said: before",
        "/stall after 4",
        "word1 word2 word3 word4",
        await chat.page.locator(".ended").text_content(),
        "after",
        "You said: after",
    ]
    assert own_server.answered == 1
    assert chat.complaints == []


async def test_a_drained_server_ends_its_answers_in_order(context: BrowserContext, tmp_path: Path) -> None:
    server = Server(tmp_path / "log", UNBROKEN_DRAIN_TIMEOUT="0")
    server.start()
    try:
        chat = await Chat.open(context, server.port)
        await chat.say("/stall after 2")
        await expect(chat.running).to_contain_text("word2")

        server.terminate()

        await expect(chat.answers).to_have_attribute("data-status", "failed")
        await expect(chat.answers.locator(".outcome")).to_contain_text("restarted")
        server.start()
        await chat.is_connected()
        await chat.button("Try again").click()  # in the new session: it has to be said again
        await expect(chat.running).to_contain_text("word2")
        await chat.has_said("/stall after 2", "/stall after 2")
        assert chat.complaints == []
    finally:
        server.kill()


async def test_a_planned_restart_is_told_quietly(context: BrowserContext, own_server: Server) -> None:
    """The close code says what it is: nothing looks wrong, and nothing is lost."""
    chat = await Chat.open(context, own_server.port)
    line = chat.page.locator("#connection")
    calm = await line.evaluate("node => getComputedStyle(node).color")
    await chat.say("before")
    await chat.is_idle()

    own_server.terminate()

    await expect(line).to_have_attribute("data-phase", "planned")
    await expect(chat.connection).to_have_text("Reconnecting")
    assert await line.evaluate("node => getComputedStyle(node).color") == calm
    await chat.say("meanwhile")
    own_server.start()
    await chat.is_connected()
    await chat.is_idle()
    assert (await chat.order())[-2:] == ["meanwhile", "You said: meanwhile"]
    await expect(chat.page.locator("#notice span")).to_have_text("")
    assert own_server.answered == 1
    assert chat.complaints == []


async def test_what_nobody_has_any_more_goes_to_the_new_conversation(
    context: BrowserContext, own_server: Server
) -> None:
    chat = await Chat.open(context, own_server.port)
    await chat.say("before")
    await chat.is_idle()
    own_server.kill()
    await chat.say("meanwhile")
    own_server.start()

    await chat.is_idle()
    assert (await chat.order())[-2:] == ["meanwhile", "You said: meanwhile"]
    assert own_server.answered == 1
    assert chat.complaints == []


async def test_an_idle_page_says_nothing_of_a_restart(context: BrowserContext, own_server: Server) -> None:
    """Nothing was said, so nothing was lost."""
    chat = await Chat.open(context, own_server.port)
    own_server.kill()
    await expect(chat.connection).to_have_text("Reconnecting")
    own_server.start()

    await chat.is_connected()
    await expect(chat.page.locator(".ended")).to_have_count(0)
    await expect(chat.page.locator("#welcome")).to_be_visible()


@pytest.mark.client("page", "key")
@pytest.mark.parametrize(
    ("right", "settings"),
    [("ek_right", {}), ("right", {"UNBROKEN_API_KEYS_IN_BROWSERS": "true"})],
    ids=["short-lived", "an API key, where it is allowed"],
)
async def test_a_server_with_keys_is_asked_for_one(
    context: BrowserContext, tmp_path: Path, right: str, settings: dict[str, str]
) -> None:
    digest = hashlib.sha256(right.encode()).hexdigest()
    server = Server(tmp_path / "log", UNBROKEN_API_KEYS=f"someone:{digest}", **settings)
    server.start()
    try:
        chat = Chat(await context.new_page())
        await chat.page.goto(f"http://127.0.0.1:{server.port}/")
        dialog = chat.page.get_by_role("dialog", name="This server asks for a key")
        key = dialog.get_by_label("Key", exact=True)
        await expect(dialog).to_be_visible()
        await expect(chat.connection).to_have_text("Not connected: a key is needed")
        await key.fill("wrong key, with characters that no header takes")
        await key.press("Enter")
        await expect(dialog).to_contain_text("The server didn't accept the last one.")
        await key.press("Escape")
        await expect(dialog).to_be_hidden()
        await chat.button("Enter it").click()
        if not settings:
            await key.fill("an-api-key")
            await key.press("Enter")
            await expect(dialog).to_contain_text("It takes short-lived keys only, which begin with ek_.")
        await key.fill(right)
        await dialog.get_by_role("button", name="Connect").click()

        await chat.is_connected()
        await chat.say("hello")
        await chat.has_answered("You said: hello")
        await chat.page.reload()
        await chat.has_answered("You said: hello")
        assert chat.complaints == []
    finally:
        server.kill()
