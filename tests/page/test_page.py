"""The page in a real browser, against a real server: talking."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.browser import Chat, Server
from tests.page.gate import Gate
from unbroken.server.agents.scripted import answer_to

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


@pytest.mark.client("page", "conversation")
async def test_an_answer_streams_in(gated: Chat, gate: Gate) -> None:
    script = gate.script(60, 5, 20)
    await gated.say(script)

    for word in (5, 20):
        await expect(gated.texts.last).to_have_text(answer_to(f"/tokens {word}"))
        await expect(gated.running).to_have_count(1)
        await gate.open()
    await gated.has_answered(answer_to("/tokens 60"))
    await gated.has_said(script)


async def test_no_key_of_its_own_looks_like_a_short_lived_one(
    context: BrowserContext, server: Server
) -> None:
    """Drawn at random, it may begin with anything, be it what short-lived keys begin with."""
    chat = Chat(await context.new_page())
    await chat.page.add_init_script(
        """crypto.getRandomValues = (array) => {
            new Uint8Array(array.buffer).fill(7);
            array.set([0x7a, 0x4f, 0xff].slice(0, array.length)); // ek_
            return array;
        }"""
    )
    await chat.page.goto(f"http://127.0.0.1:{server.port}/")
    await chat.is_connected()


async def test_it_says_which_model_answers(chat: Chat) -> None:
    await expect(chat.page.locator("#model")).to_have_text("Answers come from scripted.")


@pytest.mark.client("page", "cancel")
async def test_stop_in_mid_answer_keeps_what_was_said(chat: Chat) -> None:
    await chat.say("/tokens 5000 10")
    await expect(chat.running).to_contain_text("word5 ")

    await chat.button("Stop").click()

    await chat.has_stopped()
    text = await chat.texts.last.text_content() or ""
    assert answer_to("/tokens 5000").startswith(text)
    assert "word5" in text


async def test_stop_before_the_first_word(chat: Chat) -> None:
    await chat.say("/stall")
    await expect(chat.running).to_have_count(1)

    await chat.button("Stop").click()

    await chat.has_stopped()


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

    await chat.has_stopped()


async def test_answers_without_a_word_stand_under_their_questions(chat: Chat) -> None:
    """They have no item, which others could stand behind: so they keep their place themselves."""
    for count, script in enumerate(("/fail", "/empty", "/fail"), 1):
        await chat.say(script)
        await expect(chat.answers).to_have_count(count)
        await chat.is_idle()
    await chat.say("/stall")
    await expect(chat.running).to_have_count(1)
    await chat.button("Stop").click()
    await expect(chat.running).to_have_count(0)
    await chat.say("and now")
    await expect(chat.texts.last).to_have_text(answer_to("and now"))
    await chat.is_idle()

    expected = ["/fail", "", "/empty", "", "/fail", "", "/stall", "", "and now", answer_to("and now")]
    assert await chat.order() == expected
    await chat.page.reload()
    await chat.is_connected()
    await expect(chat.answers).to_have_count(5)
    assert await chat.order() == expected


async def test_a_message_typed_during_an_answer_waits_for_its_end(gated: Chat, gate: Gate) -> None:
    script = gate.script(120, 3)
    await gated.say(script)
    await expect(gated.running).to_have_count(1)
    await gated.say("and then")
    await gated.say("never mind")

    await expect(gated.pending).to_have_count(2)
    await expect(gated.pending.last).to_contain_text("Waits to be sent")
    await gated.pending.last.get_by_role("button", name="Remove").click()
    await expect(gated.pending).to_have_count(1)
    await gate.open()
    await gated.has_answered(answer_to("/tokens 120"), answer_to("and then"))
    assert await gated.order() == [
        script,
        answer_to("/tokens 120"),
        "and then",
        answer_to("and then"),
    ]


async def test_a_button_stays_where_it_is_while_it_is_pressed(gated: Chat, gate: Gate) -> None:
    async with gated.page.expect_websocket() as connected:
        await gated.page.reload()
    socket = await connected.value
    await gated.is_connected()
    await gated.say(gate.script(160, 30, 100))
    await expect(gated.texts.last).to_have_text(answer_to("/tokens 30"))
    await gated.say("never mind")
    await gated.pending.get_by_role("button", name="Remove").hover()
    await gated.page.mouse.down()

    # These are lines, which would move it from under the pointer.
    async with socket.expect_event("framereceived", lambda frame: "word100" in frame):
        await gate.open()
    await gated.is_drawn()
    assert await gated.texts.last.text_content() == answer_to("/tokens 30") + " "
    await gated.page.mouse.up()

    await expect(gated.pending).to_have_count(0)
    await expect(gated.texts.last).to_have_text(answer_to("/tokens 100"))
    await gate.open()
    await gated.has_answered(answer_to("/tokens 160"))


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
    await chat.has_stopped()
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


@pytest.mark.client("page", "errors")
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
    before = server.answered
    await chat.say("/tokens 5000 10")
    await expect(chat.running).to_have_count(1)
    leave = chat.page.get_by_role("dialog", name="Begin a new conversation?")

    await chat.button("New conversation").click()
    await chat.page.keyboard.press("Escape")
    await expect(leave).to_be_hidden()
    await chat.goes_on()  # neither left nor stopped
    await chat.button("New conversation").click()
    await leave.get_by_role("button", name="Begin anew").click()

    await expect(chat.answers).to_have_count(0)
    await expect(chat.box).to_be_focused()
    await chat.say("hello")
    await chat.has_answered("You said: hello")
    assert server.answered == before + 2  # the answer that nobody waits for was stopped
    await chat.page.reload()
    await chat.has_answered("You said: hello")
