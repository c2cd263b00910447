"""The page in a real browser, against a real server."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect
from websockets.asyncio.client import connect

from tests.fakes.proxy import Proxy
from tests.page.browser import CONTRASTS, Chat, Server, twin_of
from unbroken.server.agents.scripted import answer_to

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


async def stopped(chat: Chat) -> None:
    await chat.is_idle()
    await expect(chat.answers.last).to_have_attribute("data-status", "cancelled")
    await expect(chat.answers.last).to_contain_text("Stopped.")


# Talking.


@pytest.mark.client("page", "conversation")
async def test_an_answer_streams_in(chat: Chat) -> None:
    await chat.say("/tokens 60 20")

    await expect(chat.running).to_contain_text("word5 ")
    assert "word60" not in (await chat.texts.last.text_content() or "")
    await chat.has_answered(answer_to("/tokens 60"))
    await chat.has_said("/tokens 60 20")


async def test_it_says_which_model_answers(chat: Chat) -> None:
    await expect(chat.page.locator("#model")).to_have_text("Answers come from scripted.")


@pytest.mark.client("page", "cancel")
async def test_stop_in_mid_answer_keeps_what_was_said(chat: Chat) -> None:
    await chat.say("/tokens 5000 10")
    await expect(chat.running).to_contain_text("word5 ")

    await chat.button("Stop").click()

    await stopped(chat)
    text = await chat.texts.last.text_content() or ""
    assert answer_to("/tokens 5000").startswith(text)
    assert "word5" in text


async def test_stop_before_the_first_word(chat: Chat) -> None:
    await chat.say("/stall")
    await expect(chat.running).to_have_count(1)

    await chat.button("Stop").click()

    await stopped(chat)


async def test_stop_before_the_server_has_answered_at_all(chat: Chat) -> None:
    await chat.box.fill("/stall")
    await chat.page.evaluate(
        """() => {
            const press = (key) => document.getElementById("message").dispatchEvent(
                new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
            press("Enter");
            press("Escape");
        }"""
    )

    await stopped(chat)


async def test_answers_without_a_word_stand_under_their_questions(chat: Chat) -> None:
    """They have no item, which others could stand behind: so they keep their place themselves."""
    for count, script in enumerate(("/fail", "/empty", "/fail"), 1):
        await chat.say(script)
        await expect(chat.answers).to_have_count(count, timeout=15_000)
        await chat.is_idle()
    await chat.say("/stall")
    await expect(chat.running).to_have_count(1)
    await chat.button("Stop").click()
    await expect(chat.running).to_have_count(0, timeout=15_000)
    await chat.say("and now")
    await expect(chat.texts.last).to_have_text(answer_to("and now"), timeout=15_000)
    await chat.is_idle()

    expected = ["/fail", "", "/empty", "", "/fail", "", "/stall", "", "and now", answer_to("and now")]
    assert await chat.order() == expected
    await chat.page.reload()
    await chat.is_connected()
    await expect(chat.answers).to_have_count(5)
    assert await chat.order() == expected


async def test_a_message_typed_during_an_answer_waits_for_its_end(chat: Chat) -> None:
    await chat.say("/tokens 40 20")
    await expect(chat.running).to_have_count(1)
    await chat.say("and then")
    await chat.say("never mind")

    await expect(chat.pending).to_have_count(2)
    await expect(chat.pending.last).to_contain_text("Waits to be sent")
    await chat.pending.last.get_by_role("button", name="Remove").click()
    await chat.has_answered(answer_to("/tokens 40"), answer_to("and then"))
    assert await chat.order() == [
        "/tokens 40 20",
        answer_to("/tokens 40"),
        "and then",
        answer_to("and then"),
    ]


@pytest.mark.client("page", "failure")
async def test_a_failure_is_shown_and_can_be_tried_again(chat: Chat, server: Server) -> None:
    before = server.answered
    await chat.say("/fail upstream_unavailable after 3")
    failed = chat.answers.last
    await expect(failed).to_have_attribute("data-status", "failed")
    await expect(failed).to_contain_text("The model can't be reached")
    assert await chat.texts.all_text_contents() == ["word1 word2 word3"]

    await chat.button("Try again").click()

    await expect(chat.running).to_have_count(0)
    await chat.has_answered("word1 word2 word3")
    await expect(chat.button("Try again")).to_be_visible()
    await expect(chat.box).to_be_focused()
    await chat.has_said("/fail upstream_unavailable after 3")
    assert server.answered == before + 2


async def test_a_retry_is_the_same_after_a_reload(chat: Chat) -> None:
    await chat.say("/stall after 2")
    await expect(chat.running).to_contain_text("word2")
    await chat.page.keyboard.press("Escape")
    await chat.button("Try again").click()
    await expect(chat.running).to_contain_text("word2")
    await chat.page.keyboard.press("Escape")
    await stopped(chat)
    await chat.has_answered("word1 word2")

    await chat.page.reload()

    await chat.has_answered("word1 word2")
    await chat.has_said("/stall after 2")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("/length 3", "Cut short: the answer reached the longest that is allowed."),
        ("/filter after 3", "Cut short by the content filter."),
        ("/crash after 3", "failed"),
    ],
)
async def test_other_ends_are_told(chat: Chat, script: str, said: str) -> None:
    await chat.say(script)

    await expect(chat.answers.last.locator(".outcome")).to_contain_text(said)
    await chat.has_answered("word1 word2 word3")


async def test_what_is_too_long_stays_in_the_composer(chat: Chat) -> None:
    await chat.say("x" * 60_000)

    await expect(chat.notice).to_contain_text("too long")
    await expect(chat.box).to_have_value("x" * 60_000)
    await chat.say("short")
    await expect(chat.notice).not_to_contain_text("too long")
    await chat.has_answered("You said: short")


async def test_what_the_server_finds_too_large_is_not_tried_forever(
    context: BrowserContext, tmp_path: Path
) -> None:
    server = Server(tmp_path / "log", UNBROKEN_MAX_FRAME_BYTES="2048")
    server.start()
    try:
        chat = await Chat.open(context, server.port)
        await chat.say("first")
        await chat.is_idle()
        await chat.say("x" * 4000)

        await expect(chat.notice).to_have_text("The server takes no message of this length.Dismiss")
        await expect(chat.box).to_have_value("x" * 4000)  # to be made shorter
        await expect(chat.pending).to_have_count(0)
        await chat.say("second")
        await expect(chat.texts.last).to_have_text("You said: second")
        assert chat.complaints == []
    finally:
        server.kill()


async def test_markup_is_text(chat: Chat) -> None:
    attack = (
        "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&amp; **b**"
    )
    await chat.say(attack)

    await chat.has_answered(f"You said: {attack.replace('**', '')}")
    await chat.has_said(attack)
    assert await chat.page.title() == "Unbroken"
    assert await chat.page.locator("#log img, #log script").count() == 0


async def test_white_space_and_every_script_are_kept(chat: Chat) -> None:
    text = "a  b\n\n  c\t— שלום 👩‍👩‍👧 — 你好"
    await chat.box.fill(text)
    await chat.box.press("Enter")

    await chat.has_answered(f"You said: {text}")
    paragraph = chat.texts.last.locator("p").last
    assert await paragraph.evaluate("node => getComputedStyle(node).whiteSpaceCollapse") == "preserve"


async def test_an_answer_can_be_copied(context: BrowserContext, chat: Chat) -> None:
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    await chat.say("this one\nof two lines")
    await chat.is_idle()

    await chat.button("Copy").click()

    await expect(chat.button("Copied")).to_be_visible()
    assert await chat.page.evaluate("navigator.clipboard.readText()") == "You said: this one\nof two lines"


async def test_a_new_conversation_leaves_the_old_one(chat: Chat, server: Server) -> None:
    await chat.say("/tokens 5000 10")
    await expect(chat.running).to_have_count(1)
    before = server.answered
    leave = chat.page.get_by_role("dialog", name="Begin a new conversation?")

    await chat.button("New conversation").click()
    await chat.page.keyboard.press("Escape")
    await expect(leave).to_be_hidden()
    await goes_on(chat)  # neither left nor stopped
    await chat.button("New conversation").click()
    await leave.get_by_role("button", name="Begin anew").click()

    await expect(chat.answers).to_have_count(0)
    await expect(chat.box).to_be_focused()
    await chat.say("hello")
    await chat.has_answered("You said: hello")
    assert server.answered == before + 2  # the answer that nobody waits for was stopped
    await chat.page.reload()
    await chat.has_answered("You said: hello")


# Going on.


async def test_a_reload_in_mid_answer(chat: Chat, server: Server) -> None:
    await chat.say("first")
    await chat.is_idle()
    before = server.answered
    await chat.say("/tokens 150 20")
    await expect(chat.running).to_contain_text("word20 ")

    await chat.page.reload()

    await expect(chat.running).to_contain_text("word20 ")
    await expect(chat.send).to_have_text("Stop")
    await chat.has_answered("You said: first", answer_to("/tokens 150"))
    await chat.has_said("first", "/tokens 150 20")
    assert server.answered == before + 1


async def test_a_reload_in_mid_answer_can_stop_it(chat: Chat) -> None:
    await chat.say("/stall after 3")
    await expect(chat.running).to_contain_text("word3")
    await chat.page.reload()
    await expect(chat.running).to_contain_text("word3")

    await chat.page.keyboard.press("Escape")

    await stopped(chat)


async def test_old_refusals_are_no_news(chat: Chat) -> None:
    """The log tells them again after a reload; by then nobody waits for them."""
    await chat.say("/stall after 1")
    await expect(chat.running).to_contain_text("word1")
    await chat.page.keyboard.press("Escape")
    await stopped(chat)
    key, token = await chat.page.evaluate("[localStorage['unbroken.key'], sessionStorage['unbroken.resume']]")
    port = chat.page.url.rsplit(":", 1)[1].strip("/")
    url = f"ws://127.0.0.1:{port}/v1/realtime?resume={token}"
    async with connect(url, additional_headers={"Authorization": f"Bearer {key}"}) as socket:
        await socket.send(json.dumps({"type": "response.cancel", "event_id": "late"}))
        while json.loads(await socket.recv())["type"] != "error":
            pass

    await chat.page.reload()

    await stopped(chat)
    await expect(chat.page.locator("#notice span")).to_have_text("")


@pytest.mark.client("page", "network")
async def test_a_connection_cut_in_mid_answer(context: BrowserContext, server: Server, proxy: Proxy) -> None:
    chat = await Chat.open(context, proxy.port)
    before = server.answered
    await chat.say("/tokens 300 20")

    await chat.answers.evaluate("node => { node.kept = true; }")
    for word in ("word10 ", "word40 ", "word80 ", "word120 "):
        await expect(chat.answers).to_contain_text(word)
        # Before the end, whose text would hide what was lost or doubled.
        assert answer_to("/tokens 300").startswith(await chat.texts.text_content() or "")
        proxy.cut()

    await chat.has_answered(answer_to("/tokens 300"))
    await chat.has_said("/tokens 300 20")
    assert await chat.answers.evaluate("node => node.kept")  # continued, not rebuilt
    assert proxy.accepted >= 3
    assert server.answered == before + 1
    assert chat.complaints == []


async def test_what_the_server_has_forgotten_is_shown_again(context: BrowserContext, tmp_path: Path) -> None:
    """Its log reaches back hardly at all: what is shown is discarded, and comes anew as it stands."""
    server = Server(tmp_path / "log", UNBROKEN_LOG_RETAIN_BYTES="0", UNBROKEN_LOG_MAX_BYTES="4096")
    server.start()
    try:
        async with Proxy(server.port) as proxy:
            chat = await Chat.open(context, proxy.port)
            said = ["one", "/fail after 2", "two", "/tokens 100 20"]
            for text in said[:3]:
                await chat.say(text)
                await chat.is_idle()
            await chat.say(said[3])
            await expect(chat.running).to_contain_text("word5 ")

            proxy.cut()
            await expect(chat.running).to_contain_text("word30 ")
            await chat.page.reload()

            await expect(chat.running).to_contain_text("word31 ")
            await expect(chat.send).to_have_text("Stop")
            answers = ["You said: one", "word1 word2", "You said: two", answer_to("/tokens 100")]
            await chat.has_answered(*answers)
            assert await chat.order() == [text for pair in zip(said, answers, strict=True) for text in pair]
            assert server.answered == 4
            assert chat.complaints == []
    finally:
        server.kill()


async def test_an_answer_goes_on_without_a_connection(
    context: BrowserContext, server: Server, proxy: Proxy
) -> None:
    chat = await Chat.open(context, proxy.port)
    before = server.answered
    await chat.say("/tokens 60 20")
    await expect(chat.running).to_contain_text("word3 ")
    proxy.refuse()
    proxy.cut()
    await expect(chat.connection).to_have_text("Reconnecting")
    twin = await twin_of(chat, context, server.port)
    await twin.has_answered(answer_to("/tokens 60"))
    assert answer_to("/tokens 60") != await chat.texts.text_content()

    await proxy.accept()

    await chat.has_answered(answer_to("/tokens 60"))
    assert server.answered == before + 1
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
    await stopped(chat)


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


# The server ends.


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


# Several tabs, and long conversations.


async def test_two_tabs_on_one_session(context: BrowserContext, chat: Chat, server: Server) -> None:
    await chat.say("first")
    await chat.is_idle()
    before = server.answered
    # As duplicating a tab does, this copies its session storage.
    async with context.expect_page() as opened:
        await chat.page.evaluate("void window.open(location.href)")
    twin = Chat(await opened.value)
    await twin.has_answered("You said: first")

    await twin.say("/tokens 150 20")

    for each in (chat, twin):
        await each.page.bring_to_front()  # browsers paint what is behind rarely
        await expect(each.running).to_contain_text("word5 ")
    await chat.say("meanwhile")
    expected = ("You said: first", answer_to("/tokens 150"), "You said: meanwhile")
    await expect(twin.users).to_have_count(3)
    for each in (chat, twin):
        await each.has_answered(*expected)
        assert await each.order() == [
            "first",
            expected[0],
            "/tokens 150 20",
            expected[1],
            "meanwhile",
            expected[2],
        ]
    assert server.answered == before + 2
    assert twin.complaints == []


async def test_two_tabs_at_the_same_moment(
    context: BrowserContext, chat: Chat, server: Server, proxy: Proxy
) -> None:
    """The server refuses the second response while the first runs: it is asked for again."""
    await chat.say("first")
    await chat.is_idle()
    before = server.answered
    twin = await twin_of(chat, context, proxy.port)
    await twin.has_answered("You said: first")
    proxy.hold()
    await twin.say("/tokens 4")
    await chat.page.bring_to_front()  # browsers paint what is behind rarely
    await chat.say("/tokens 40 20")
    await expect(chat.running).to_contain_text("word2 ")

    proxy.release()

    for each in (chat, twin):
        await expect(each.answers).to_have_count(3)
        await each.is_idle()
        await each.has_said("first", "/tokens 40 20", "/tokens 4")
    assert await chat.order() == await twin.order()
    assert server.answered == before + 2
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
            window.longest = 0;
            new PerformanceObserver((list) => {
                const durations = list.getEntries().map((entry) => entry.duration);
                window.longest = Math.max(window.longest, ...durations);
            }).observe({ type: "longtask" });
        }"""
    )

    await chat.say("/tokens 300 5")

    await chat.is_idle()
    await expect(chat.texts.last).to_have_text(answer_to("/tokens 300"))
    await expect(chat.texts.last).to_be_in_viewport()
    assert await chat.page.evaluate("window.longest") < 500
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


async def goes_on(chat: Chat) -> None:
    """The answer has grown by two hundred words and more."""
    count = len(await chat.texts.last.text_content() or "")
    await expect(chat.running).to_contain_text(f"word{count // 9 + 200} ")


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
    await goes_on(chat)

    assert await scroller.evaluate("node => node.scrollTop") == pytest.approx(top, abs=1)
    await latest.click()
    await expect(latest).to_be_hidden()
    await goes_on(chat)
    await chat.is_drawn()
    assert await scroller.evaluate(at_end)
    await chat.page.keyboard.press("Escape")
    await stopped(chat)


# For everybody.


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
    await stopped(chat)

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


async def test_an_answer_is_read_out_once_it_is_whole(chat: Chat) -> None:
    log = chat.page.get_by_role("log")
    await expect(log).to_have_attribute("aria-live", "polite")
    await chat.page.evaluate(
        """() => {
            window.announced = [];
            const announcer = document.getElementById("announcer");
            new MutationObserver(() => window.announced.push(announcer.textContent))
                .observe(announcer, { childList: true });
        }"""
    )
    await chat.say("/tokens 60 20")
    await expect(chat.running).to_have_attribute("aria-busy", "true")
    await expect(log).to_have_text(answer_to("/tokens 60"))

    announced = await chat.page.evaluate("window.announced")
    assert [text.strip() for text in announced] == ["Answering.", answer_to("/tokens 60")]
    live = await chat.page.locator("[aria-live], [role=status], [role=alert], [role=log]").evaluate_all(
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


# The files.


async def test_nothing_comes_from_elsewhere(context: BrowserContext, server: Server) -> None:
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    chat = await Chat.open(context, server.port)
    await chat.say("hello")
    await chat.is_idle()

    assert asked
    assert [url for url in asked if not url.startswith(f"http://127.0.0.1:{server.port}/")] == []
    assert chat.complaints == []


async def test_the_policy_stops_what_is_inline(context: BrowserContext, server: Server) -> None:
    chat = await Chat.open(context, server.port)

    tried = await chat.page.evaluate(
        """() => {
            const script = document.createElement("script");
            try {
                script.textContent = "document.title = 'owned'";
                document.body.append(script);
                return "appended";
            } catch (error) {
                return error.name;
            }
        }"""
    )

    assert tried == "TypeError"
    assert await chat.page.title() == "Unbroken"
    assert any("policy" in complaint or "Policy" in complaint for complaint in chat.complaints)
