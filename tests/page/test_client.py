"""The client that the page is made with, in a real browser, by itself: as somebody's own page uses it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page

from tests.fakes.proxy import Proxy
from tests.page.browser import Server
from tests.page.gate import Gate
from unbroken.server.agents.scripted import answer_to

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]

CONNECT = """([options, state]) => import("/page/client/lib/index.js").then(({ connect, Restarted }) => {
    window.chat = connect({ url: location.origin, key: "somebody", state, ...options });
    window.resets = [];
    chat.on("reset", ({ reason }) => resets.push(reason));
    window.read = async (turn) => {
        const pieces = [];
        window.seen = pieces;
        for await (const piece of turn) {
            if (piece instanceof Restarted) throw new Error("it was begun anew");
            pieces.push(piece);
        }
        const { text, status } = await turn.result();
        return { said: pieces.join(""), text, status };
    };
})"""


async def blank(context: BrowserContext, port: int) -> Page:
    """Return a page of the server's own origin that does nothing."""
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{port}/healthz")
    return page


def answered(script: str) -> dict[str, Any]:
    return {"said": answer_to(script), "text": answer_to(script), "status": "completed"}


async def test_it_streams_through_a_connection_that_is_cut(
    context: BrowserContext, gated_server: Server, gated_proxy: Proxy, gate: Gate
) -> None:
    page = await blank(context, gated_proxy.port)
    before = gated_server.answered
    await page.evaluate(CONNECT, [{}, None])
    await page.evaluate("(text) => { window.first = read(chat.send(text)); }", gate.script(100, 10, 40))
    for word in (10, 40):
        await page.wait_for_function("(word) => seen.join('').includes(word)", arg=f"word{word} ")
        gated_proxy.cut()
        await gate.open()

    assert await page.evaluate("first") == answered("/tokens 100")
    assert await page.evaluate("resets") == []
    assert gated_proxy.accepted >= 3
    assert gated_server.answered == before + 1


async def test_it_goes_on_after_a_reload_with_the_state_that_was_kept(
    context: BrowserContext, gated_server: Server, gate: Gate
) -> None:
    page = await blank(context, gated_server.port)
    before = gated_server.answered
    await page.evaluate(CONNECT, [{}, None])
    await page.evaluate(
        """(texts) => {
            chat.on("state", (state) => sessionStorage.setItem("chat", JSON.stringify(state)));
            const [first] = texts.map((text) => chat.send(text));
            void read(first);
        }""",
        [gate.script(100, 10), "and then"],
    )
    await page.wait_for_function("seen.join('').includes('word10 ')")

    await page.reload()
    state = await page.evaluate("JSON.parse(sessionStorage.getItem('chat'))")
    await page.evaluate(CONNECT, [{}, state])
    await page.evaluate("() => { window.all = Promise.all(chat.turns.map(read)); }")
    await gate.open()

    assert await page.evaluate("all") == [answered("/tokens 100"), answered("and then")]
    assert await page.evaluate("resets") == ["snapshot"]
    assert gated_server.answered == before + 2


async def test_a_key_that_no_header_takes_is_told(context: BrowserContext, server: Server) -> None:
    page = await blank(context, server.port)
    await page.evaluate(CONNECT, [{"key": "not a key"}, None])
    await page.wait_for_function("chat.status.phase === 'stopped'")

    assert await page.evaluate("chat.status.code") == "invalid_api_key"
