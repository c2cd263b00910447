"""Calls on the page: of the server's tools, of functions of others, and for everybody."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Locator, expect

from tests.page.browser import CONTRASTS, TOOLS, Chat, Server, twin_of
from tests.page.calling import MAIL, WEATHER, Holder, beside, has_states, heard, is_asked, unfolded
from unbroken.server.agents.scripted import answer_to

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


@pytest_asyncio.fixture(loop_scope="package")
async def chat(context: BrowserContext, tool_server: Server) -> AsyncIterator[Chat]:
    """The page, connected to a server with tools."""
    chat = await Chat.open(context, tool_server.port)
    yield chat
    assert chat.complaints == []
    assert chat.lost == []


async def test_a_call_stands_in_its_place_also_after_a_reload_and_on_a_twin(
    context: BrowserContext, chat: Chat, tool_server: Server
) -> None:
    await chat.say(WEATHER)
    await chat.has_answered("Let me see.", "Take an umbrella.")
    twin = await twin_of(chat, context, tool_server.port)
    await twin.has_answered("Let me see.", "Take an umbrella.")

    for tab in (chat, twin, chat):
        await tab.page.bring_to_front()
        assert await tab.flow() == [WEATHER, "Let me see.", "weather: Done", "Take an umbrella."]
        inside = await unfolded(tab.calls)
        assert '{"city": "Ulm"}' in inside
        assert "Rain in Ulm." in inside
        await expect(tab.calls.locator(".from")).to_have_text("")  # the server's own
        await tab.page.reload()
        await tab.has_answered("Let me see.", "Take an umbrella.")
    assert twin.complaints == []


async def test_several_rounds_and_calls_at_once_keep_their_order(chat: Chat) -> None:
    script = '/call weather {"city": "Ulm"}\n/call weather {"city": "Bern"}\n/then\n/say So.\n'
    script += '/call weather {"city": "Rom"}\n/then\n/say Done.'
    await chat.say(script)
    await chat.has_answered("So.", "Done.")

    for _ in range(2):
        calls = ["weather: Done", "weather: Done", "So.", "weather: Done", "Done."]
        assert await chat.flow() == [script, *calls]
        for line, city in enumerate(("Ulm", "Bern", "Rom")):
            assert f"Rain in {city}." in await unfolded(chat.calls.nth(line))
        await chat.page.reload()
        await chat.has_answered("So.", "Done.")


async def test_what_is_said_after_a_thought_is_a_message_of_its_own(chat: Chat, tool_server: Server) -> None:
    await chat.say("first")
    await chat.has_answered("You said: first")
    async with await beside(chat, tool_server.port) as socket:
        session = {"type": "realtime", "unbroken": {"reasoning": True}}
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        await heard(socket, "session.updated")
    script = "/say One.\n/think Hm.\n/say Two."
    await chat.say(script)

    await chat.has_answered("You said: first", "One.", "Two.")
    await chat.page.reload()
    await chat.has_answered("You said: first", "One.", "Two.")
    assert await chat.flow() == ["first", "You said: first", script, "One.", "Two."]


async def test_a_call_that_runs_says_so_through_a_reload(chat: Chat, holder: Holder) -> None:
    await chat.say(holder.script)
    writer = await holder.has_begun()
    await has_states(chat, "Running")
    await expect(chat.running).to_have_count(1)

    await chat.page.reload()

    await has_states(chat, "Running")
    assert await chat.flow() == [holder.script, "hold: Running", ""]
    writer.write(b"The end.\n")
    await chat.has_answered("Now I know.")
    assert await chat.flow() == [holder.script, "hold: Done", "Now I know."]
    assert "The end." in await unfolded(chat.calls)


async def test_a_call_that_is_stopped_says_that_nothing_is_known(chat: Chat, holder: Holder) -> None:
    await chat.say(holder.script)
    await holder.has_begun()
    await has_states(chat, "Running")

    await chat.page.keyboard.press("Escape")

    await has_states(chat, "Failed")
    for _ in range(2):
        await expect(chat.calls.locator(".outcome")).to_contain_text("The result isn't known")
        await expect(chat.answers.locator(".outcome")).to_have_text("Stopped.")
        await chat.page.reload()
        await chat.is_connected()


async def test_a_call_whose_server_is_lost_says_that_nothing_is_known(
    context: BrowserContext, tmp_path: Path, holder: Holder
) -> None:
    server = Server(tmp_path / "log", UNBROKEN_TOOLS=TOOLS)
    server.start()
    try:
        chat = await Chat.open(context, server.port)
        await chat.say('/call mail {"to": "ann"}')
        await has_states(chat, "Asks for your approval")
        await chat.say(holder.script)
        await holder.has_begun()
        await has_states(chat, "Asks for your approval", "Running")

        server.kill()
        server.start()

        await has_states(chat, "Not run", "The result isn't known")
        await expect(chat.calls.get_by_role("button")).to_have_count(0)
        await chat.say("and now")
        await expect(chat.texts.last).to_have_text("You said: and now")
        assert chat.complaints == []
    finally:
        server.kill()


async def test_a_failure_says_why(chat: Chat) -> None:
    await chat.say('/call failing {"why": "No such city."}')
    await chat.has_answered("Returned: Error: No such city.")

    await has_states(chat, "Failed")
    await expect(chat.calls.locator(".outcome")).to_have_text("No such city.")


async def test_no_more_is_shown_than_fits(chat: Chat) -> None:
    why = "because " * 600
    await chat.say(f'/call long {{"size": 9000}}\n/call failing {{"why": "{why}"}}\n/then\n/say Much.')
    await chat.has_answered("Much.")

    inside = await unfolded(chat.calls.first)
    assert "x" * 4_000 in inside
    assert "x" * 4_001 not in inside
    assert "5000 more characters aren't shown." in inside
    assert len(await chat.calls.last.locator(".outcome").inner_text()) <= 201
    assert "more characters aren't shown." in await unfolded(chat.calls.last)


async def test_markup_in_calls_is_text(chat: Chat) -> None:
    attack = "<img src=x onerror=\\\"document.title='owned'\\\">"
    await chat.say(f'/call weather {{"city": "{attack}"}}\n/call mail {{"to": "{attack}"}}')
    await has_states(chat, "Done", "Asks for your approval")

    for line in (chat.calls.first, chat.calls.last):
        assert attack in await unfolded(line)
    assert await chat.page.title() == "Unbroken"
    assert await chat.page.locator("#log img").count() == 0


async def test_tools_without_a_word_after_them_are_no_answer(chat: Chat) -> None:
    script = '/call weather {"city": "Ulm"}\n/then\n/empty'
    await chat.say(script)

    await expect(chat.answers.locator(".outcome")).to_have_text("The answer is empty.")
    assert await chat.flow() == [script, "weather: Done", ""]


async def test_a_retry_removes_all_that_was_said(chat: Chat) -> None:
    script = '/say Let me see.\n/call weather {"city": "Ulm"}\n/then\n/fail after 2'
    await chat.say(script)
    await expect(chat.answers.last).to_have_attribute("data-status", "failed")
    assert await chat.flow() == [script, "Let me see.", "weather: Done", "word1 word2"]

    await chat.button("Try again").click()

    # The call has happened, and stays: the model isn't made to repeat it.
    await expect(chat.texts).to_have_text(["word1 word2"])
    await expect(chat.answers.last).to_have_attribute("data-status", "failed")
    assert await chat.flow() == [script, "weather: Done", "word1 word2"]
    await chat.page.reload()
    await expect(chat.answers.last).to_have_attribute("data-status", "failed")
    assert await chat.flow() == [script, "weather: Done", "word1 word2"]


async def test_calls_of_what_the_server_has_forgotten_are_shown_again(
    context: BrowserContext, tmp_path: Path, holder: Holder
) -> None:
    settings = {"UNBROKEN_LOG_RETAIN_BYTES": "0", "UNBROKEN_LOG_MAX_BYTES": "4096"}
    server = Server(tmp_path / "log", UNBROKEN_TOOLS=TOOLS, **settings)
    server.start()
    try:
        chat = await Chat.open(context, server.port)
        await chat.say(WEATHER)
        await chat.is_idle()
        await chat.say(MAIL)
        await chat.button("Allow mail").click()
        await expect(chat.texts.last).to_have_text("Off it went.")
        await chat.is_idle()
        await chat.say("/tokens 300")
        await chat.is_idle()
        await chat.say(holder.script)
        writer = await holder.has_begun()
        await chat.page.reload()
        await has_states(chat, "Done", "Allowed", "Done", "Running")
        await expect(chat.send).to_have_text("Stop")
        writer.write(b"The end.\n")
        await expect(chat.texts.last).to_have_text("Now I know.")
        await chat.is_idle()

        flow = await chat.flow()

        tokens = answer_to("/tokens 300")
        assert flow == [
            WEATHER,
            "Let me see.",
            "weather: Done",
            "Take an umbrella.",
            MAIL,
            "I would write.",
            "mail: Allowed",
            "mail: Done",
            "Off it went.",
            "/tokens 300",
            tokens,
            holder.script,
            "hold: Done",
            "Now I know.",
        ]
        await expect(chat.calls.get_by_role("button")).to_have_count(0)
        assert chat.complaints == []
    finally:
        server.kill()


async def test_what_is_not_shown_keeps_its_place(chat: Chat, tool_server: Server) -> None:
    await chat.say("one")
    await chat.has_answered("You said: one")
    async with await beside(chat, tool_server.port) as socket:
        hidden = {
            "type": "message",
            "role": "system",
            "content": [{"type": "input_text", "text": "Be short."}],
        }
        await socket.send(
            json.dumps({"type": "conversation.item.create", "item": {"id": "hidden", **hidden}})
        )
        while (await heard(socket, "conversation.item.added"))["item"]["id"] != "hidden":
            pass
        await chat.say("two")
        await chat.has_answered("You said: one", "You said: two")

        said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "between"}]}
        event = {"type": "conversation.item.create", "item": said, "previous_item_id": "hidden"}
        await socket.send(json.dumps(event))
        await chat.has_said("one", "between", "two")
    assert await chat.flow() == ["one", "You said: one", "between", "two", "You said: two"]


# Functions of other clients.


async def test_a_function_call_alone_is_a_line_and_no_empty_answer(chat: Chat, tool_server: Server) -> None:
    script = '/call open_door {"which": "left"}'
    await chat.say(script)
    await has_states(chat, "For another client to run")
    await chat.is_idle()
    for _ in range(2):
        assert await chat.flow() == [script, "open_door: For another client to run"]
        assert '{"which": "left"}' in await unfolded(chat.calls)
        await expect(chat.answers).to_have_count(0)
        await chat.page.reload()
        await has_states(chat, "For another client to run")

    async with await beside(chat, tool_server.port) as socket:
        call = (await heard(socket, "response.done"))["response"]["output"][0]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "It is open."}
        await socket.send(json.dumps({"type": "conversation.item.create", "item": output}))
        await socket.send(json.dumps({"type": "response.create"}))

        await chat.has_answered("Returned: It is open.")
    assert await chat.flow() == [script, "open_door: Done", "Returned: It is open."]
    assert "It is open." in await unfolded(chat.calls)


async def test_a_function_call_that_was_cut_short_says_so(chat: Chat) -> None:
    await chat.say('/call open_door {"which": "left"}\n/stall')
    await has_states(chat, "Preparing")

    await chat.page.keyboard.press("Escape")

    await has_states(chat, "Not run")
    await expect(chat.calls.locator(".outcome")).to_have_text("Not called: the answer was cut short.")
    await expect(chat.answers.locator(".outcome")).to_have_text("Stopped.")


# For everybody.


async def test_the_keyboard_is_enough_to_decide(chat: Chat) -> None:
    await is_asked(chat)
    await chat.page.locator("h1").click()  # from the top
    seen: list[str] = []
    while "Don't allow mail" not in seen:
        await chat.page.keyboard.press("Tab")
        seen.append(
            await chat.page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.tagName")
        )
        assert len(seen) < 12, seen
    assert seen[-3:] == ["SUMMARY", "Allow mail", "Don't allow mail"]
    await chat.page.keyboard.press("Shift+Tab")

    await chat.page.keyboard.press("Enter")

    await expect(chat.box).to_be_focused()
    await chat.has_answered("I would write.", "Off it went.")
    await expect(chat.box).to_be_focused()


async def test_the_focus_is_not_lost_when_another_tab_decides(
    context: BrowserContext, chat: Chat, tool_server: Server
) -> None:
    await is_asked(chat)
    twin = await twin_of(chat, context, tool_server.port)
    await has_states(twin, "Asks for your approval")
    await chat.button("Don't allow mail").focus()

    await twin.button("Allow mail").click()

    await has_states(chat, "Allowed", "Done")
    await expect(chat.calls.first.locator("summary")).to_be_focused()


ANNOUNCED = """() => {
    window.announced = [];
    const announcer = document.getElementById("announcer");
    new MutationObserver(() => window.announced.push(announcer.textContent))
        .observe(announcer, { childList: true });
}"""


async def test_calls_are_read_out_with_their_answer(chat: Chat, holder: Holder) -> None:
    log = chat.page.get_by_role("log")
    await chat.page.evaluate(ANNOUNCED)
    await chat.say(f"/say Let me see.\n{holder.script}")
    writer = await holder.has_begun()
    await expect(log).to_have_text("hold: Running.")
    writer.write(b"The end.\n")
    await expect(log).to_have_text("Let me see. hold: Done. Now I know.")

    await is_asked_by_ear(chat, log)

    announced = [text.strip() for text in await chat.page.evaluate("window.announced")]
    assert announced.count("hold: Running.") == 1
    assert announced.count("Let me see. hold: Done. Now I know.") == 1


async def is_asked_by_ear(chat: Chat, log: Locator) -> None:
    await chat.say(MAIL)
    await expect(log).to_have_text("I would write. mail: Asks for your approval.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_contrast_of_calls(browser: Browser, tool_server: Server, holder: Holder, scheme: Any) -> None:
    """WCAG 2.2, 1.4.3, level AA."""
    context = await browser.new_context(color_scheme=scheme)
    chat = await Chat.open(context, tool_server.port)
    await chat.say('/call weather {"city": "Ulm"}\n/call failing {"why": "No."}\n/call mail {"to": "ann"}')
    await has_states(chat, "Done", "Failed", "Asks for your approval")
    await chat.is_idle()
    await chat.say(holder.script)
    await holder.has_begun()
    await has_states(chat, "Done", "Failed", "Asks for your approval", "Running")
    for line in await chat.calls.all():
        await unfolded(line)

    measured = await chat.page.evaluate(CONTRASTS)

    assert {"Failed", "Asks for your approval", "Running", "Allow", "Result"} <= {
        text for text, _ in measured
    }
    assert [each for each in measured if each[1] < 4.5] == []
    await context.close()


@pytest.mark.parametrize("width", [320, 1200])
async def test_no_call_is_cut_off(browser: Browser, tool_server: Server, width: int) -> None:
    context = await browser.new_context(viewport={"width": width, "height": 560})
    chat = await Chat.open(context, tool_server.port)
    await chat.say(f'/call {"f" * 64} {{"a": "{"x" * 300}"}}\n/call mail {{"to": "{"y" * 300}"}}')
    await has_states(chat, "For another client to run", "Asks for your approval")
    for line in await chat.calls.all():
        await unfolded(line)

    beyond = await chat.page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((node) => {
            const box = node.getBoundingClientRect();
            const isSeen = node.checkVisibility() && !node.closest(".unseen");
            return isSeen && (box.right > innerWidth + 0.5 || box.left < 0);
        }).map((node) => node.outerHTML.slice(0, 80))"""
    )

    assert beyond == []
    await context.close()
