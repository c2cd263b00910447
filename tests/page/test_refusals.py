"""Messages that the server refuses: those that it takes a little later, and those that it never takes."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, Locator, expect

from tests.page.browser import Chat, Server
from tests.page.refuser import ITEM, RESPONSE, Refuser

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]

PASSING = [
    "server_overloaded",
    "server_full",
    "server_draining",
    "store_unavailable",
    "guard_unavailable",
    "input_queue_full",
    "response_queue_full",
    "too_many_responses",
]


async def opened(context: BrowserContext, server: Server) -> tuple[Chat, Refuser]:
    """Return the page, connected, whose time passes only where a test says so. Its waits are the longest."""
    chat = Chat(await context.new_page())
    await chat.page.add_init_script("Math.random = () => 0.999")
    refuser = await Refuser.before(chat.page)
    await chat.page.clock.install()
    await chat.page.goto(f"http://127.0.0.1:{server.port}/")
    await chat.is_connected()
    await chat.page.clock.pause_at(await chat.page.evaluate("() => Date.now() / 1_000 + 60"))
    return chat, refuser


def waiting(chat: Chat) -> Locator:
    return chat.page.locator("#log .user[data-status=waiting]")


@pytest.mark.parametrize("code", PASSING)
@pytest.mark.parametrize("kinds", [(RESPONSE,), (ITEM, RESPONSE)], ids=["the answer", "all"])
async def test_what_is_refused_for_the_moment_is_kept_and_sent_again(
    context: BrowserContext, server: Server, code: str, kinds: tuple[str, ...]
) -> None:
    chat, refuser = await opened(context, server)
    before = server.answered
    refuser.refuse(code, *kinds)

    await chat.say("hello")

    for _ in range(3):
        for kind in kinds:
            assert (await refuser.has_refused())["type"] == kind
        await expect(waiting(chat)).to_contain_text("hello")
        await expect(waiting(chat).locator(".mark")).to_contain_text("Sent again by itself")
        await expect(chat.page.locator("#notice span")).to_have_text("")
        await chat.page.clock.fast_forward(40_000)
    refuser.relent()
    await chat.page.clock.resume()
    await chat.page.clock.fast_forward(40_000)
    await chat.has_answered("You said: hello")
    await chat.has_said("hello")
    await expect(chat.page.locator("#log .mark")).to_have_count(0)
    assert server.answered == before + 1
    assert chat.complaints == []


async def test_the_answer_to_a_decision_waits_too(context: BrowserContext, tool_server: Server) -> None:
    chat, refuser = await opened(context, tool_server)
    await chat.page.clock.resume()
    await chat.say('/call mail {"to": "ann"}\n/then\n/say Off it went.')
    await chat.button("Allow mail").click(trial=True)
    refuser.refuse("server_overloaded", RESPONSE)
    await chat.button("Allow mail").click()
    await refuser.has_refused()
    await expect(chat.calls.first).to_contain_text("Sent again by itself")
    refuser.relent()

    await chat.page.clock.fast_forward(40_000)

    await expect(chat.texts.last).to_have_text("Off it went.")
    await chat.is_idle()
    await expect(chat.calls.first.locator(".state")).to_have_text("Allowed")
    await expect(chat.page.locator("#log .mark")).to_have_count(0)
    assert chat.complaints == []


async def told(chat: Chat) -> None:
    """The page has taken in what was sent to it, and what it said to that has come out: both go in order."""
    for _ in range(2):
        await chat.page.evaluate("() => null")


async def seconds_until_it_tries(chat: Chat, refuser: Refuser) -> int:
    """Let the page's time pass until it sends again, and return how much it took."""
    await refuser.has_refused()
    await told(chat)
    for seconds in range(1, 120):
        await chat.page.clock.run_for(1_000)
        await told(chat)
        if not refuser.refused.empty():
            return seconds
    raise AssertionError("It never tried again.")


async def test_it_waits_longer_each_time_and_never_less_than_it_is_asked_to(
    context: BrowserContext, server: Server
) -> None:
    chat, refuser = await opened(context, server)
    refuser.refuse("server_overloaded", RESPONSE)
    await chat.say("hello")

    waits = [await seconds_until_it_tries(chat, refuser) for _ in range(5)]
    refuser.refuse("server_overloaded", RESPONSE, retry_after=50)
    await seconds_until_it_tries(chat, refuser)

    assert waits == [2, 4, 8, 16, 30]
    assert await seconds_until_it_tries(chat, refuser) == 80
    refuser.relent()
    await chat.page.clock.run_for(81_000)
    await chat.page.clock.resume()
    await chat.has_answered("You said: hello")


async def test_what_waits_for_the_server_survives_a_reload(context: BrowserContext, server: Server) -> None:
    chat, refuser = await opened(context, server)
    before = server.answered
    refuser.refuse("server_overloaded", RESPONSE)
    await chat.say("one")
    await chat.say("two")
    await refuser.has_refused()
    await expect(waiting(chat)).to_contain_text("one")

    await chat.page.reload()

    await refuser.has_refused()
    await expect(waiting(chat)).to_contain_text("one")
    await expect(chat.pending).to_contain_text("two")
    refuser.relent()
    await chat.page.clock.resume()
    await chat.page.clock.fast_forward(40_000)
    await chat.has_answered("You said: one", "You said: two")
    await chat.has_said("one", "two")
    assert server.answered == before + 2
    assert chat.complaints == []


async def test_a_refusal_that_names_nothing_is_of_what_was_sent(
    context: BrowserContext, server: Server
) -> None:
    """A frame that is dropped unread: the server can't say what it was."""
    chat, refuser = await opened(context, server)
    refuser.refuse("input_queue_full", ITEM, RESPONSE, is_named=False)
    await chat.say("hello")
    await refuser.has_refused()
    await expect(waiting(chat)).to_contain_text("hello")
    refuser.relent()

    await chat.page.clock.resume()
    await chat.page.clock.fast_forward(40_000)

    await chat.has_answered("You said: hello")
    await chat.has_said("hello")
    assert chat.complaints == []


@pytest.mark.parametrize("kinds", [(RESPONSE,), (ITEM, RESPONSE)], ids=["the answer", "all"])
async def test_stop_ends_the_wait(context: BrowserContext, server: Server, kinds: tuple[str, ...]) -> None:
    chat, refuser = await opened(context, server)
    refuser.refuse("server_overloaded", *kinds)
    await chat.say("hello")
    await expect(waiting(chat)).to_have_count(1)

    await chat.button("Stop").click()

    await chat.is_idle()
    await expect(waiting(chat)).to_have_count(0)
    has_it = ITEM not in kinds
    await expect(chat.box).to_have_value("" if has_it else "hello")
    await expect(chat.users).to_have_count(1 if has_it else 0)
    refuser.relent()
    await chat.page.clock.resume()
    await chat.page.clock.fast_forward(60_000)
    await chat.say("and now")
    await chat.has_answered("You said: and now")
    assert chat.complaints == []


async def test_what_is_refused_for_good_comes_back_with_the_reason(
    context: BrowserContext, server: Server
) -> None:
    chat, refuser = await opened(context, server)
    await chat.page.clock.resume()
    refuser.refuse("conversation_full", ITEM, RESPONSE)

    await chat.say("first\nof two lines")

    await expect(chat.notice).to_contain_text("Refused: conversation_full.")
    await expect(chat.box).to_have_value("first\nof two lines")
    await expect(chat.box).to_be_focused()
    await chat.is_idle()
    await expect(chat.users).to_have_count(0)
    assert chat.complaints == []


async def test_what_is_refused_for_good_is_not_mixed_with_what_is_being_written(
    context: BrowserContext, server: Server
) -> None:
    chat, refuser = await opened(context, server)
    refuser.refuse("server_overloaded", ITEM, RESPONSE)
    await chat.say("first")
    await expect(waiting(chat)).to_have_count(1)
    await chat.box.fill("second")
    refuser.refuse("conversation_full", ITEM, RESPONSE)
    await chat.page.clock.resume()
    await chat.page.clock.fast_forward(40_000)

    await expect(chat.pending).to_contain_text("Not sent")
    await expect(chat.box).to_have_value("second")
    await chat.button("Edit").click()
    await expect(chat.notice).to_contain_text("Send or remove first")
    await chat.box.fill("")
    await chat.button("Edit").click()
    await expect(chat.box).to_have_value("first")
    await expect(chat.pending).to_have_count(0)
    assert chat.complaints == []


async def test_who_isn_t_saved_is_told_so_while_it_lasts(context: BrowserContext, server: Server) -> None:
    chat, refuser = await opened(context, server)
    told = {"type": "session.updated", "event_id": "x", "session": {"unbroken": {"durable": False}}}
    refuser.tell(told)
    await expect(chat.connection).to_have_text("Connected. What is said isn't saved for the moment")

    refuser.tell({"type": "session.updated", "event_id": "y", "session": {"unbroken": {}}})
    await chat.page.clock.resume()
    await chat.say("hello")
    await chat.has_answered("You said: hello")
    await expect(chat.connection).to_have_text("Connected. What is said isn't saved for the moment")

    told["session"] = {"unbroken": {"durable": True}}
    refuser.tell(told)
    await expect(chat.connection).to_have_text("Connected")
    assert chat.complaints == []
