"""The page goes on: after reloads, lost connections and dead lines."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import BrowserContext, WebSocket, expect
from websockets.asyncio.client import connect

from tests.fakes.proxy import Proxy
from tests.page.browser import GATED, Chat, Server, twin_of
from tests.page.gate import Gate
from tests.server.realtime.client import WAIT
from unbroken.server.agents.scripted import answer_to

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


@pytest.mark.client("page", "address")
async def test_a_reload_in_mid_answer(gated: Chat, gated_server: Server, gate: Gate) -> None:
    await gated.say("first")
    await gated.is_idle()
    before = gated_server.answered
    script = gate.script(150, 20, 40)
    await gated.say(script)
    await expect(gated.running).to_contain_text("word20")

    await gated.page.reload()

    await expect(gated.running).to_contain_text("word20")
    await expect(gated.send).to_have_text("Stop")
    await gate.open()
    await expect(gated.running).to_contain_text("word40")
    await gate.open()
    await gated.has_answered("You said: first", answer_to("/tokens 150"))
    await gated.has_said("first", script)
    assert gated_server.answered == before + 1


async def test_a_reload_in_mid_answer_can_stop_it(chat: Chat) -> None:
    await chat.say("/stall after 3")
    await expect(chat.running).to_contain_text("word3")
    await chat.page.reload()
    await expect(chat.running).to_contain_text("word3")

    await chat.page.keyboard.press("Escape")

    await chat.has_stopped()


async def test_old_refusals_are_no_news(chat: Chat) -> None:
    """The log tells them again after a reload; by then nobody waits for them."""
    await chat.say("/stall after 1")
    await expect(chat.running).to_contain_text("word1")
    await chat.page.keyboard.press("Escape")
    await chat.has_stopped()
    key, token = await chat.page.evaluate("[localStorage['unbroken.key'], sessionStorage['unbroken.resume']]")
    port = chat.page.url.rsplit(":", 1)[1].strip("/")
    url = f"ws://127.0.0.1:{port}/v1/realtime?resume={token}"
    async with connect(url, additional_headers={"Authorization": f"Bearer {key}"}) as socket:
        await socket.send(json.dumps({"type": "response.cancel", "event_id": "late"}))
        while json.loads(await socket.recv())["type"] != "error":
            pass

    await chat.page.reload()

    await chat.has_stopped()
    await expect(chat.page.locator("#notice span")).to_have_text("")


@pytest.mark.client("page", "network")
async def test_a_connection_cut_in_mid_answer(
    context: BrowserContext, gated_server: Server, gated_proxy: Proxy, gate: Gate
) -> None:
    chat = await Chat.open(context, gated_proxy.port)
    before = gated_server.answered
    stops = (10, 40, 80, 120)
    script = gate.script(300, *stops)
    await chat.say(script)

    await chat.answers.evaluate("node => { node.kept = true; }")
    for number, word in enumerate(stops):
        # Before the end, whose text would hide what was lost or doubled.
        await expect(chat.texts).to_have_text(answer_to(f"/tokens {word}"))
        if number % 2:  # words come while there is no connection, and after there is one again
            gated_proxy.cut()
            await gate.open()
        else:
            await gate.open()
            gated_proxy.cut()

    await chat.has_answered(answer_to("/tokens 300"))
    await chat.has_said(script)
    assert await chat.answers.evaluate("node => node.kept")  # continued, not rebuilt
    assert gated_proxy.accepted >= 3
    assert gated_server.answered == before + 1
    assert chat.complaints == []


async def test_what_the_server_has_forgotten_is_shown_again(
    context: BrowserContext, tmp_path: Path, gate: Gate
) -> None:
    """Its log reaches back hardly at all: what is shown is discarded, and comes anew as it stands."""
    server = Server(tmp_path / "log", **GATED, UNBROKEN_LOG_RETAIN_BYTES="0", UNBROKEN_LOG_MAX_BYTES="4096")
    server.start()
    try:
        async with Proxy(server.port) as proxy:
            chat = await Chat.open(context, proxy.port)
            said = ["one", "/fail after 2", "two", gate.script(100, 5, 30, 31)]
            for text in said[:3]:
                await chat.say(text)
                await chat.is_idle()
            await chat.say(said[3])
            await expect(chat.running).to_contain_text("word5")

            proxy.cut()
            await gate.open()
            await expect(chat.running).to_contain_text("word30")
            await chat.page.reload()

            await gate.open()
            await expect(chat.running).to_contain_text("word31")
            await expect(chat.send).to_have_text("Stop")
            await gate.open()
            answers = ["You said: one", "word1 word2", "You said: two", answer_to("/tokens 100")]
            await chat.has_answered(*answers)
            assert await chat.order() == [text for pair in zip(said, answers, strict=True) for text in pair]
            assert server.answered == 4
            assert chat.complaints == []
    finally:
        server.kill()


async def test_an_answer_goes_on_without_a_connection(
    context: BrowserContext, gated_server: Server, gated_proxy: Proxy, gate: Gate
) -> None:
    chat = await Chat.open(context, gated_proxy.port)
    before = gated_server.answered
    await chat.say(gate.script(60, 3))
    await expect(chat.running).to_contain_text("word3")
    gated_proxy.refuse()
    gated_proxy.cut()
    await expect(chat.connection).to_have_text("Reconnecting")
    await gate.open()
    twin = await twin_of(chat, context, gated_server.port)
    await twin.has_answered(answer_to("/tokens 60"))
    assert answer_to("/tokens 60") != await chat.texts.text_content()

    await gated_proxy.accept()

    await chat.has_answered(answer_to("/tokens 60"))
    assert gated_server.answered == before + 1
    assert chat.complaints == []


async def test_attempts_that_fail_ask_for_another_node_each_time(
    context: BrowserContext, proxy: Proxy
) -> None:
    """A balancer that doesn't know that a node is frozen sends the same address there each time."""
    chat = await Chat.open(context, proxy.port)
    await chat.say("hi")
    await chat.is_idle()
    tries: asyncio.Queue[list[str]] = asyncio.Queue()
    hears = asyncio.Event()

    def tried(socket: WebSocket) -> None:
        tries.put_nowait(parse_qs(urlsplit(socket.url).query).get("try", []))
        socket.on("framereceived", lambda _: hears.set())

    chat.page.on("websocket", tried)
    proxy.cut()
    await asyncio.wait_for(hears.wait(), WAIT)  # what the page shows may be of the connection before
    assert await asyncio.wait_for(tries.get(), WAIT) == []

    proxy.refuse()
    proxy.cut()
    assert [await asyncio.wait_for(tries.get(), WAIT) for _ in range(3)] == [[], ["1"], ["2"]]
    await proxy.accept()
    await chat.is_connected()

    assert chat.complaints == []


@pytest.mark.client("page", "outbox")
async def test_what_is_typed_while_offline_is_sent_once(
    context: BrowserContext, server: Server, proxy: Proxy
) -> None:
    chat = await Chat.open(context, proxy.port)
    before = server.answered
    proxy.refuse()
    proxy.cut()
    await expect(chat.connection).to_have_text("Reconnecting")
    await chat.say("one")
    await chat.say("two")
    await expect(chat.pending).to_have_count(2)
    await expect(chat.send).to_have_text("Send")

    await proxy.accept()

    await chat.has_answered("You said: one", "You said: two")
    assert await chat.order() == ["one", "You said: one", "two", "You said: two"]
    assert server.answered == before + 2
    assert chat.complaints == []


async def test_the_queue_has_an_end(context: BrowserContext, proxy: Proxy) -> None:
    chat = await Chat.open(context, proxy.port)
    proxy.refuse()
    proxy.cut()
    for number in range(20):
        await chat.say(f"message {number}")
    await chat.say("one too many")

    await expect(chat.notice).to_contain_text("20 messages are waiting already.")
    await expect(chat.box).to_have_value("one too many")
    await expect(chat.pending).to_have_count(20)


async def test_what_waits_survives_a_reload(context: BrowserContext, server: Server, proxy: Proxy) -> None:
    """Sent into a line that carries nothing: the server has it twice in the end, and answers it once."""
    chat = await Chat.open(context, proxy.port)
    await chat.say("zero")
    await chat.is_idle()
    before = server.answered
    proxy.hold()
    await chat.say("one")
    await chat.say("two")
    await expect(chat.pending.first).to_have_attribute("data-status", "sending")
    proxy.release()
    proxy.cut()
    await chat.page.reload()

    await chat.has_answered("You said: zero", "You said: one", "You said: two")
    await chat.has_said("zero", "one", "two")
    assert server.answered == before + 2


async def test_a_dead_line_is_noticed(context: BrowserContext, server: Server, proxy: Proxy) -> None:
    """No packet says that it is dead. What was sent into it arrives in the end, after its repetition."""
    chat = Chat(await context.new_page())
    await chat.page.clock.install()
    await chat.page.goto(f"http://127.0.0.1:{proxy.port}/")
    await chat.is_connected()
    before = server.answered
    proxy.strand()
    await chat.say("hello")
    await expect(chat.send).to_have_text("Stop")

    await chat.page.clock.fast_forward(13_000)  # silence: it asks
    await chat.page.clock.fast_forward(8_000)  # and gives up

    await chat.has_answered("You said: hello")
    proxy.release()
    await chat.say("and again")
    await chat.has_answered("You said: hello", "You said: and again")
    assert server.answered == before + 2
    assert chat.complaints == []


async def test_what_arrived_unnoticed_is_not_taken_twice(
    context: BrowserContext, server: Server, proxy: Proxy
) -> None:
    """The page reloads without having seen its message's fate, and another has to be sure it ran once."""
    chat = await Chat.open(context, proxy.port)
    await chat.say("zero")
    await chat.is_idle()
    before = server.answered
    outbox = await chat.page.evaluate(
        """() => new Promise((resolve) => {
            const set = Storage.prototype.setItem;
            Storage.prototype.setItem = function (name, value) {
                set.call(this, name, value);
                if (name === "unbroken.outbox") resolve(value);
            };
            const message = document.getElementById("message");
            message.value = "one";
            document.getElementById("composer").requestSubmit();
        })"""
    )
    await chat.has_answered("You said: zero", "You said: one")
    # As if the page had been killed before any of it came back.
    await chat.page.evaluate("(outbox) => sessionStorage.setItem('unbroken.outbox', outbox)", outbox)
    await chat.page.reload()

    await chat.has_answered("You said: zero", "You said: one")
    await chat.has_said("zero", "one")
    assert server.answered == before + 1


async def test_a_connection_that_opens_and_says_nothing(context: BrowserContext, proxy: Proxy) -> None:
    chat = Chat(await context.new_page())
    await chat.page.clock.install()
    await chat.page.goto(f"http://127.0.0.1:{proxy.port}/")
    await chat.is_connected()
    # From here on time passes only where it is said: else the wait that follows a failed
    # attempt, which is half a second on average, may be over before anybody looks.
    await chat.page.clock.pause_at(await chat.page.evaluate("() => Date.now() / 1_000 + 3_600"))
    proxy.hold()
    proxy.cut()
    await expect(chat.page.locator("#connection")).to_have_attribute("data-phase", "waiting")
    await chat.page.clock.fast_forward(1_000)
    await expect(chat.page.locator("#connection")).to_have_attribute("data-phase", "connecting")

    await chat.page.clock.fast_forward(11_000)

    await expect(chat.page.locator("#connection")).to_have_attribute("data-phase", "waiting")
    proxy.release()
    await chat.page.clock.fast_forward(2_000)
    await chat.is_connected()


async def test_stop_without_a_connection_is_told_later(
    context: BrowserContext, server: Server, proxy: Proxy
) -> None:
    chat = await Chat.open(context, proxy.port)
    await chat.say("/tokens 5000 20")
    await expect(chat.running).to_contain_text("word3 ")
    proxy.refuse()
    proxy.cut()
    await expect(chat.connection).to_have_text("Reconnecting")

    await chat.button("Stop").click()

    await expect(chat.send).to_have_text("Stopping")
    await proxy.accept()
    await chat.has_stopped()


@pytest.mark.parametrize("by", ["button", "network"])
async def test_the_wait_can_be_cut_short(context: BrowserContext, proxy: Proxy, by: str) -> None:
    chat = Chat(await context.new_page())
    await chat.page.add_init_script("Math.random = () => 0.999")  # the longest waits
    await chat.page.clock.install()
    await chat.page.goto(f"http://127.0.0.1:{proxy.port}/")
    await chat.is_connected()
    proxy.refuse()
    proxy.cut()
    for _ in range(6):  # the waits grow
        await chat.page.clock.fast_forward(9_000)
        await expect(chat.page.locator("#connection")).to_have_attribute("data-phase", "waiting")
    await chat.page.clock.pause_at(await chat.page.evaluate("Date.now() + 10"))
    # No attempt is under way any more, and none begins by itself.
    await expect(chat.page.locator("#connection")).to_have_attribute("data-phase", "waiting")
    await proxy.accept()

    if by == "button":
        await chat.button("Now").click()
    else:
        await context.set_offline(True)
        await context.set_offline(False)

    await chat.is_connected()
    assert chat.complaints == []
