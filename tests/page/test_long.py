"""Several tabs on one session, and long conversations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import BrowserContext, expect
from websockets.asyncio.client import connect

from tests.fakes.proxy import Proxy
from tests.page.browser import Chat, Server, twin_of
from tests.page.gate import Gate
from unbroken.server.agents.scripted import answer_to

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


async def test_two_tabs_on_one_session(context: BrowserContext, own_server: Server, gate: Gate) -> None:
    chat = await Chat.open(context, own_server.port)
    await chat.say("first")
    await chat.is_idle()
    # As duplicating a tab does, this copies its session storage.
    async with context.expect_page() as opened:
        await chat.page.evaluate("void window.open(location.href)")
    twin = Chat(await opened.value)
    await twin.has_answered("You said: first")

    script = gate.script(150, 5)
    await twin.say(script)

    for each in (chat, twin):
        await each.page.bring_to_front()  # browsers paint what is behind rarely
        await expect(each.running).to_contain_text("word5")
    await chat.say("meanwhile")
    await gate.open()
    expected = ("You said: first", answer_to("/tokens 150"), "You said: meanwhile")
    await expect(twin.users).to_have_count(3)
    for each in (chat, twin):
        await each.has_answered(*expected)
        assert await each.order() == [
            "first",
            expected[0],
            script,
            expected[1],
            "meanwhile",
            expected[2],
        ]
    assert own_server.answered == 3
    assert chat.complaints == twin.complaints == []


async def test_two_tabs_at_the_same_moment(context: BrowserContext, own_server: Server, gate: Gate) -> None:
    """The server refuses the second response while the first runs: it is asked for again."""
    async with Proxy(own_server.port) as proxy:
        chat = await Chat.open(context, own_server.port)
        await chat.say("first")
        await chat.is_idle()
        twin = await twin_of(chat, context, proxy.port)
        await twin.has_answered("You said: first")
        proxy.hold()
        await twin.say("/tokens 4")
        await chat.page.bring_to_front()  # browsers paint what is behind rarely
        script = gate.script(40, 2)
        await chat.say(script)
        await expect(chat.running).to_contain_text("word2")

        proxy.release()
        await expect(chat.users).to_have_count(3)
        await gate.open()

        for each in (chat, twin):
            await expect(each.answers).to_have_count(3)
            await each.is_idle()
            await each.has_said("first", script, "/tokens 4")
        assert await chat.order() == await twin.order()
        assert own_server.answered == 3
    assert twin.complaints == []


async def _long_session(port: int, key: str, messages: int) -> str:
    """Make a session of so many messages, and return what it is resumed with."""
    url = f"ws://127.0.0.1:{port}/v1/realtime?model=default"
    headers = {"Authorization": f"Bearer {key}"}
    async with connect(url, additional_headers=headers, max_size=None) as socket:
        created: dict[str, Any] = json.loads(await socket.recv())
        for number in range(messages):
            role, kind = (("user", "input_text"), ("assistant", "output_text"))[number % 2]
            content = [{"type": kind, "text": f"{role} {number}\n" + "lorem ipsum " * 60}]
            item = {"type": "message", "role": role, "content": content}
            await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
            while json.loads(await socket.recv())["type"] != "conversation.item.done":
                pass
    return str(created["session"]["unbroken"]["resume"])


async def test_a_thousand_messages_stay_usable(context: BrowserContext, server: Server) -> None:
    token = await _long_session(server.port, "k" * 43, 1000)
    await context.add_init_script(
        f"localStorage.setItem('unbroken.key', '{'k' * 43}');"
        f"sessionStorage.getItem('unbroken.resume') ?? sessionStorage.setItem('unbroken.resume', '{token}');"
    )
    chat = await Chat.open(context, server.port)
    await expect(chat.page.locator("#sections li")).to_have_count(1000)
    texts = await chat.page.locator("#sections li .text").all_text_contents()
    assert [text.split()[1] for text in texts] == [str(number) for number in range(1000)]
    await chat.page.evaluate(
        """() => {
            window.touched = new Set();
            const of = (node) => (node.closest ? node : node.parentElement).closest("#sections li");
            new MutationObserver((changes) => {
                for (const { target } of changes) if (of(target) !== null) window.touched.add(of(target));
            }).observe(document.getElementById("sections"), {
                attributes: true, characterData: true, childList: true, subtree: true,
            });
        }"""
    )

    await chat.say("/tokens 300 5")

    await chat.is_idle()
    await expect(chat.texts.last).to_have_text(answer_to("/tokens 300"))
    await expect(chat.texts.last).to_be_in_viewport()
    # What a word costs doesn't depend on how much is shown: nothing else is touched.
    numbers = await chat.page.evaluate(
        """() => {
            const all = [...document.querySelectorAll("#sections li")];
            return [...window.touched].map((node) => all.indexOf(node));
        }"""
    )
    assert numbers == [1001]
    assert chat.complaints == []


async def test_a_long_answer_is_whole(chat: Chat) -> None:
    script = "/tokens 300\n/tokens 3000"
    await chat.say(script)

    await chat.has_answered(answer_to(script))
    lines = "\n".join(f"line {number} " + "x" * 60 for number in range(200))
    await chat.box.fill(lines)
    await chat.box.press("Enter")
    await chat.is_idle()
    await chat.is_drawn()
    assert await chat.texts.last.inner_text() == f"You said: {lines}"


AT_REST = """async (node) => {
    for (let frames = 0, top = -1; frames < 10; frames++) {
        if (node.scrollTop !== top) frames = 0;
        top = node.scrollTop;
        await new Promise(requestAnimationFrame);
    }
    return node.scrollTop;
}"""
"""Where it is scrolled to, once the browser has ended its animation."""


async def test_it_follows_the_answer_unless_one_reads_above(chat: Chat) -> None:
    await chat.say("/tokens 800")
    await chat.is_idle()
    await chat.say("/tokens 3000 2")
    await expect(chat.running).to_contain_text("word200 ")
    scroller = chat.page.locator("#scroller")
    at_end = "node => node.scrollHeight - node.scrollTop - node.clientHeight < 60"
    latest = chat.button("Latest message")
    await chat.is_drawn()
    assert await scroller.evaluate(at_end)

    await scroller.hover()
    await chat.page.mouse.wheel(0, -600)
    await expect(latest).to_be_visible()
    top = await scroller.evaluate(AT_REST)
    await chat.goes_on()

    assert await scroller.evaluate("node => node.scrollTop") == pytest.approx(top, abs=1)
    await latest.click()
    await expect(latest).to_be_hidden()
    await chat.goes_on()
    await chat.is_drawn()
    assert await scroller.evaluate(at_end)
    await chat.page.keyboard.press("Escape")
    await chat.has_stopped()
