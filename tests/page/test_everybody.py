"""The page for everybody: by keyboard, by ear, on a phone, in any light."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.fakes.proxy import Proxy
from tests.page.browser import CONTRASTS, Chat, Server
from tests.page.gate import Gate
from unbroken.server.agents.scripted import answer_to

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


async def test_the_keyboard_is_enough(chat: Chat) -> None:
    page = chat.page
    await expect(chat.box).to_be_focused()
    await page.keyboard.type("one")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("two")
    await page.keyboard.press("Enter")
    await chat.has_answered("You said: one\ntwo")
    await expect(chat.box).to_be_focused()
    await expect(chat.box).to_have_value("")

    await page.keyboard.type("/stall after 1")
    await page.keyboard.press("Tab")
    await expect(chat.send).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(chat.running).to_contain_text("word1")
    await page.keyboard.press("Escape")
    await chat.has_stopped()

    await page.locator("h1").click()  # from the top
    seen: list[str] = []
    for _ in range(12):
        await page.keyboard.press("Tab")
        seen.append(
            await page.evaluate(
                "document.activeElement.ariaLabel || document.activeElement.textContent"
                " || document.activeElement.placeholder"
            )
        )
        if seen[-1] == "Send":
            break
    # The tools of each answer come with it, in the order of the page.
    inside = [name for name in seen if name in ("Copy", "Try again")]
    assert inside == ["Copy", "Copy", "Try again"]
    assert [name for name in seen if name not in inside] == [
        "New conversation",
        "Conversation",
        "Attach images or files",
        "Message",
        "Send",
    ]


async def test_on_a_phone_enter_begins_a_line_and_the_button_sends(browser: Browser, server: Server) -> None:
    context = await browser.new_context(
        has_touch=True, is_mobile=True, viewport={"width": 360, "height": 640}
    )
    chat = await Chat.open(context, server.port)
    await chat.box.press_sequentially("one")
    await chat.box.press("Enter")
    await chat.box.press_sequentially("two")
    await expect(chat.box).to_have_value("one\ntwo")
    await expect(chat.page.locator("#hint")).to_be_hidden()

    await chat.send.tap()
    await chat.has_answered("You said: one\ntwo")
    await chat.box.fill("/stall after 1")
    await chat.send.tap()
    await expect(chat.running).to_contain_text("word1")
    await expect(chat.send).to_have_text("Stop")
    await chat.box.fill("for later")
    await chat.send.tap()  # with something to send, it sends
    await expect(chat.pending).to_contain_text("for later")
    await chat.send.tap()

    await expect(chat.texts.last).to_have_text("You said: for later")
    assert chat.complaints == []
    await context.close()


async def test_focus_is_visible(chat: Chat) -> None:
    await chat.page.locator("h1").click()  # from the top
    for _ in range(4):
        await chat.page.keyboard.press("Tab")
        outlined = await chat.page.evaluate(
            """() => {
                const style = getComputedStyle(document.activeElement);
                const around = getComputedStyle(document.activeElement.closest("form") ?? document.body);
                return style.outlineStyle !== "none" || around.boxShadow !== "none";
            }"""
        )
        assert outlined


async def test_an_answer_is_read_out_once_it_is_whole(gated: Chat, gate: Gate) -> None:
    log = gated.page.get_by_role("log")
    await expect(log).to_have_attribute("aria-live", "polite")
    await gated.page.evaluate(
        """() => {
            window.announced = [];
            const announcer = document.getElementById("announcer");
            new MutationObserver(() => window.announced.push(announcer.textContent))
                .observe(announcer, { childList: true });
        }"""
    )
    await gated.say(gate.script(60, 5))
    await expect(gated.running).to_have_attribute("aria-busy", "true")
    await expect(gated.page.locator("#announcer")).to_have_text("Answering.")
    await gate.open()
    await expect(log).to_have_text(answer_to("/tokens 60"))

    announced = await gated.page.evaluate("window.announced")
    assert [text.strip() for text in announced] == ["Answering.", answer_to("/tokens 60")]
    live = await gated.page.locator("[aria-live], [role=status], [role=alert], [role=log]").evaluate_all(
        "nodes => nodes.filter((node) => node.contains(document.querySelector('.answer'))).length"
    )
    assert live == 0  # nothing reads each word


async def test_everything_has_a_name(chat: Chat) -> None:
    await chat.say("/fail")
    await chat.is_idle()
    nameless = await chat.page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, a, img, dialog, [role=region], ol")]
            .filter((node) => {
                if (!node.checkVisibility()) return false;
                const by = node.getAttribute("aria-labelledby");
                const name = node.ariaLabel ?? node.labels?.[0]?.textContent
                    ?? (by ? document.getElementById(by).textContent : node.alt ?? node.textContent);
                return node.tagName === "IMG" ? node.getAttribute("alt") === null : !name.trim();
            }).map((node) => node.outerHTML)"""
    )
    assert nameless == []
    page = chat.page
    assert await page.locator("html").get_attribute("lang") == "en"
    assert await page.locator("h1").count() == 1
    for landmark in ("banner", "main", "contentinfo"):
        await expect(page.get_by_role(landmark)).to_have_count(1)
    ids = await page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
    assert await page.locator("[tabindex]:not([tabindex='0'])").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_contrast(browser: Browser, server: Server, scheme: Any) -> None:
    """WCAG 2.2, 1.4.3, level AA."""
    context = await browser.new_context(color_scheme=scheme)
    async with Proxy(server.port) as proxy:
        chat = await Chat.open(context, proxy.port)
        await chat.say("/fail after 2")
        await chat.is_idle()
        await chat.say("/length 2")
        await chat.is_idle()
        await chat.say("/stall after 2")
        await expect(chat.running).to_contain_text("word2")
        proxy.refuse()
        proxy.cut()
        await expect(chat.connection).to_have_text("Reconnecting")
        await chat.say("queued")

        measured = await chat.page.evaluate(CONTRASTS)

        assert len(measured) > 12
        assert [each for each in measured if each[1] < 4.5] == []
    await context.close()


@pytest.mark.parametrize("width", [320, 1200])
async def test_nothing_is_cut_off(browser: Browser, server: Server, width: int) -> None:
    context = await browser.new_context(viewport={"width": width, "height": 560})
    chat = await Chat.open(context, server.port)
    await chat.say("x" * 300 + "\n/not a verb")
    await chat.is_idle()
    await chat.say("/fail after 5")
    await chat.is_idle()

    beyond = await chat.page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((node) => {
            const box = node.getBoundingClientRect();
            const isSeen = node.checkVisibility() && !node.closest(".unseen");
            return isSeen && (box.right > innerWidth + 0.5 || box.left < 0);
        }).map((node) => node.outerHTML.slice(0, 80))"""
    )

    assert beyond == []
    await context.close()


async def test_less_motion_for_who_wants_it(browser: Browser, server: Server) -> None:
    context = await browser.new_context(reduced_motion="reduce")
    chat = await Chat.open(context, server.port)
    await chat.say("/stall")
    await expect(chat.running).to_have_count(1)

    moving = await _endless_animations(chat.page)

    assert moving == 0
    await context.close()


async def _endless_animations(page: Page) -> int:
    found: int = await page.evaluate(
        "document.getAnimations({ subtree: true })"
        ".filter((each) => each.effect.getComputedTiming().iterations === Infinity).length"
    )
    return found
