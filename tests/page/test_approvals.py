"""Calls that one is asked about on the page."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from tests.fakes import mcp_server
from tests.fakes.proxy import Proxy
from tests.page.browser import Chat, Server, twin_of
from tests.page.calling import MAIL, REFUSED, Holder, beside, has_states, heard, is_asked, unfolded

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


@pytest_asyncio.fixture(loop_scope="package")
async def chat(context: BrowserContext, tool_server: Server) -> AsyncIterator[Chat]:
    """The page, connected to a server with tools."""
    chat = await Chat.open(context, tool_server.port)
    yield chat
    assert chat.complaints == []
    assert chat.lost == []


ALLOWED = [MAIL, "I would write.", "mail: Allowed", "mail: Done", "Off it went."]


async def test_what_is_asked_for_shows_what_it_is(chat: Chat) -> None:
    await is_asked(chat)

    assert await chat.flow() == [MAIL, "I would write.", "mail: Asks for your approval"]
    await expect(chat.calls.locator("details")).to_have_attribute("open", "")
    await expect(chat.calls.locator(".value")).to_have_text('{"to": "ann"}')
    await expect(chat.calls.get_by_role("button")).to_have_text(["Allow", "Don't allow"])


@pytest.mark.client("page", "approval")
async def test_what_is_allowed_is_run_once_and_all_see_it(
    context: BrowserContext, chat: Chat, tool_server: Server
) -> None:
    await is_asked(chat)
    before = tool_server.answered
    twin = await twin_of(chat, context, tool_server.port)
    await has_states(twin, "Asks for your approval")

    await chat.page.bring_to_front()
    await chat.button("Allow mail").click()

    for tab in (chat, twin, chat):
        await tab.page.bring_to_front()
        await tab.has_answered("I would write.", "Off it went.")
        assert await tab.flow() == ALLOWED
        await expect(tab.calls.get_by_role("button")).to_have_count(0)
        assert "Sent to ann as " in await unfolded(tab.calls.last)
        await tab.page.reload()
        await tab.is_connected()
    assert tool_server.answered == before + 1
    assert twin.complaints == []


async def test_what_is_not_allowed_is_not_run(chat: Chat) -> None:
    await chat.say('/call mail {"to": "ann"}')
    await has_states(chat, "Asks for your approval")

    await chat.button("Don't allow mail").click()

    await has_states(chat, "Not allowed")
    await chat.has_answered(REFUSED)
    await chat.page.reload()
    await chat.has_answered(REFUSED)
    assert await chat.flow() == ['/call mail {"to": "ann"}', "mail: Not allowed", REFUSED]
    await expect(chat.calls.get_by_role("button")).to_have_count(0)


async def test_a_message_may_be_sent_while_one_waits(chat: Chat) -> None:
    await chat.say('/call mail {"to": "ann"}')
    await has_states(chat, "Asks for your approval")

    await chat.say("by the way")
    await chat.has_answered("You said: by the way")
    await chat.button("Allow mail").click()

    await has_states(chat, "Allowed", "Done")
    await chat.is_idle()
    assert await chat.flow() == [
        '/call mail {"to": "ann"}',
        "mail: Allowed",
        "by the way",
        "You said: by the way",
        "mail: Done",
        *(await chat.texts.all_text_contents())[1:],
    ]


async def test_a_decision_waits_for_the_end_of_an_answer(chat: Chat, holder: Holder) -> None:
    await chat.say('/call mail {"to": "ann"}')
    await has_states(chat, "Asks for your approval")
    await chat.say(holder.script)
    writer = await holder.has_begun()

    await chat.button("Allow mail").click()

    await expect(chat.calls.first.locator(".mark")).to_have_text("Waits to be sent")
    await has_states(chat, "Allowed", "Running")
    await chat.page.reload()
    await has_states(chat, "Allowed", "Running")
    await expect(chat.calls.first.locator(".mark")).to_have_text("Waits to be sent")
    writer.write(b"The end.\n")
    await has_states(chat, "Allowed", "Done", "Done")
    await chat.is_idle()
    await expect(chat.calls.first.locator(".mark")).to_have_count(0)


async def test_two_that_wait_are_answered_together(chat: Chat, tool_server: Server) -> None:
    script = '/call mail {"to": "ann"}\n/call mail {"to": "bob"}\n/then\n/say Both.'
    await chat.say(script)
    await has_states(chat, "Asks for your approval", "Asks for your approval")
    await chat.is_idle()
    before = tool_server.answered

    await chat.button("Allow mail").first.click()
    await has_states(chat, "Allowed", "Asks for your approval")
    await expect(chat.calls.locator(".mark")).to_have_count(0)  # the server has it
    await chat.is_idle()
    assert tool_server.answered == before
    await chat.page.reload()
    await has_states(chat, "Allowed", "Asks for your approval")
    await chat.button("Allow mail").click()

    await chat.has_answered("Both.")
    assert await chat.flow() == [
        script,
        "mail: Allowed",
        "mail: Allowed",
        "mail: Done",
        "mail: Done",
        "Both.",
    ]
    assert tool_server.answered == before + 1


async def test_what_was_passed_over_holds_nothing_up(chat: Chat) -> None:
    await chat.say('/call mail {"to": "ann"}')
    await has_states(chat, "Asks for your approval")
    await chat.say('/call mail {"to": "bob"}\n/then\n/say Bob has it.')
    await has_states(chat, "Asks for your approval", "Asks for your approval")

    await chat.button("Allow mail").last.click()

    await chat.has_answered("Bob has it.")
    await has_states(chat, "Asks for your approval", "Allowed", "Done")


async def test_a_decision_into_a_dead_line_is_neither_lost_nor_doubled(
    context: BrowserContext, tool_server: Server
) -> None:
    async with Proxy(tool_server.port) as proxy:
        chat = await Chat.open(context, proxy.port)
        await is_asked(chat)
        before = tool_server.answered
        proxy.hold()
        await chat.button("Allow mail").click()
        await expect(chat.calls.locator(".mark")).to_have_text("Sending")
        proxy.release()  # it may arrive, and nobody is told
        proxy.cut()
        await chat.page.reload()

        await chat.has_answered("I would write.", "Off it went.")
        assert await chat.flow() == ALLOWED
        assert tool_server.answered == before + 1
        assert chat.complaints == []


async def test_a_decision_without_a_connection_is_sent_later(
    context: BrowserContext, tool_server: Server
) -> None:
    async with Proxy(tool_server.port) as proxy:
        chat = await Chat.open(context, proxy.port)
        await is_asked(chat)
        before = tool_server.answered
        proxy.refuse()
        proxy.cut()
        await expect(chat.connection).to_have_text("Reconnecting")
        await chat.button("Allow mail").click()
        await expect(chat.calls.locator(".mark")).to_have_text("Waits to be sent")

        await proxy.accept()

        await chat.has_answered("I would write.", "Off it went.")
        assert await chat.flow() == ALLOWED
        assert tool_server.answered == before + 1
        assert chat.complaints == []


async def test_a_reload_between_decision_and_answer(
    context: BrowserContext, chat: Chat, tool_server: Server
) -> None:
    """As if the page had been killed at once: what it had noted of its decision is all that is left."""
    await is_asked(chat)
    before = tool_server.answered
    outbox = await chat.page.evaluate(
        """() => new Promise((resolve) => {
            const set = Storage.prototype.setItem;
            Storage.prototype.setItem = function (name, value) {
                set.call(this, name, value);
                if (name === "unbroken.outbox") resolve(value);
            };
            document.querySelector(".call button").click();
        })"""
    )
    await chat.has_answered("I would write.", "Off it went.")
    await chat.page.evaluate("(outbox) => sessionStorage.setItem('unbroken.outbox', outbox)", outbox)
    await chat.page.reload()

    await chat.has_answered("I would write.", "Off it went.")
    assert await chat.flow() == ALLOWED
    assert tool_server.answered == before + 1


async def test_of_two_tabs_that_decide_at_once_the_first_counts(
    context: BrowserContext, chat: Chat, tool_server: Server
) -> None:
    await is_asked(chat)
    before = tool_server.answered
    async with Proxy(tool_server.port) as proxy:
        twin = await twin_of(chat, context, proxy.port)
        await has_states(twin, "Asks for your approval")
        await twin.is_connected()
        proxy.hold()
        await twin.page.bring_to_front()
        await twin.button("Don't allow mail").click()
        await expect(twin.calls.locator(".mark")).to_have_text("Sending")
        await chat.page.bring_to_front()
        await chat.button("Allow mail").click()
        await chat.has_answered("I would write.", "Off it went.")

        proxy.release()

        await twin.page.bring_to_front()
        await twin.has_answered("I would write.", "Off it went.")
        assert await twin.flow() == ALLOWED
        assert await chat.flow() == ALLOWED
        await expect(twin.page.locator("#notice span")).to_have_text("")
        assert tool_server.answered == before + 1
        assert twin.complaints == []


HOLD_RESPONSES = """() => {
    const { send } = WebSocket.prototype;
    const held = [];
    WebSocket.prototype.send = function (data) {
        if (data.includes('"response.create"')) held.push([this, data]);
        else send.call(this, data);
    };
    window.held = held;
    window.letGo = () => {
        WebSocket.prototype.send = send;
        for (const [socket, data] of held.splice(0)) socket.send(data);
    };
}"""
"""Until it is told to let go, the page's requests for responses don't leave it."""


async def test_what_others_asked_for_after_a_decision_is_its_answer(chat: Chat, tool_server: Server) -> None:
    await chat.say('/call mail {"to": "ann"}\n/then\n/stall after 1')
    await has_states(chat, "Asks for your approval")
    await chat.is_idle()
    before = tool_server.answered
    await chat.page.evaluate(HOLD_RESPONSES)
    await chat.button("Allow mail").click()
    await chat.page.wait_for_function("window.held.length === 1")
    async with await beside(chat, tool_server.port) as socket:
        await socket.send(json.dumps({"type": "response.create"}))
        await has_states(chat, "Allowed", "Done")
        await expect(chat.running).to_contain_text("word1")

        await chat.page.evaluate("window.letGo()")  # refused: a response runs

        await chat.page.keyboard.press("Escape")
        await expect(chat.answers.last).to_have_attribute("data-status", "cancelled")
    await chat.is_idle()
    await chat.say("and now")  # what was asked for before would come before
    await expect(chat.texts.last).to_have_text("You said: and now")
    await chat.is_idle()
    assert tool_server.answered == before + 2
    await expect(chat.page.locator("#notice span")).to_have_text("")


async def test_a_request_that_is_deleted_goes(chat: Chat, tool_server: Server) -> None:
    await is_asked(chat)
    socket = await beside(chat, tool_server.port)
    item = (await heard(socket, "conversation.item.added"))["item"]
    while item["type"] != "mcp_approval_request":
        item = (await heard(socket, "conversation.item.added"))["item"]

    await socket.send(json.dumps({"type": "conversation.item.delete", "item_id": item["id"]}))

    await expect(chat.calls).to_have_count(0)
    await socket.close()


async def test_tools_of_others_say_whose_they_are(context: BrowserContext, tmp_path: Path) -> None:
    program = f"desk={sys.executable} {mcp_server.__file__}"
    server = Server(tmp_path / "log", UNBROKEN_MCP_SERVERS=program)
    server.start()
    try:
        chat = await Chat.open(context, server.port)
        await chat.say('/call add {"a": 2, "b": 3}')
        await has_states(chat, "Asks for your approval")
        await chat.button("Allow add").click()
        await chat.has_answered("Returned: 5")

        await expect(chat.calls.locator(".from")).to_have_text(["of desk", "of desk"])
        assert chat.complaints == []
    finally:
        server.kill()
