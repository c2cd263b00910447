"""G8: what a short-lived key has settled holds for its responses, whoever else is in the session."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Client
from tests.server.realtime.serving import Served
from tests.server.realtime.test_client_secrets import KEYS, TOOL, issued
from unbroken.sessions.items import Message

ANN = {"unbroken": {"user": "ann"}}
REFUND = {**TOOL, "name": "refund"}
SHOES = "Sell shoes."
PIRATE = "Be a pirate."


@pytest.fixture
async def shop(serve: Serve) -> Served[ManualAgent]:
    served: Served[ManualAgent] = await serve(ManualAgent(), api_keys=KEYS)
    return served


async def keyed(served: Served[Any], **session: Any) -> str:
    """Return a key of Ann's, with what is settled of its session."""
    settled = {"session": {"type": "realtime", **session}} if session else {}
    return await issued(served, {**ANN, **settled})


async def joined(served: Served[Any], other: Client, key: str) -> Client:
    client = served.stranger(key, token=other.token)
    await client.resume()
    return client


async def update(client: Client, **session: Any) -> None:
    await client.send({"type": "session.update", "session": {"type": "realtime", **session}})
    await client.until("session.updated")


async def test_two_keys_together_are_no_wider_than_each(shop: Served[ManualAgent]) -> None:
    free_words = await shop.client(await keyed(shop, tools=[], max_output_tokens=5))
    await update(free_words, instructions=SHOES)
    free_tools = await joined(shop, free_words, await keyed(shop, instructions=SHOES))
    await update(free_tools, tools=[REFUND], max_output_tokens="inf")
    await update(free_words, instructions=PIRATE)
    await free_tools.until("session.updated")

    for client in (free_words, free_tools):
        await client.send({"type": "response.create", "event_id": "mine"})
        error = await client.error()
        assert (error["code"], error["event_id"]) == ("session_pinned", "mine")
    assert shop.agent.turns == []

    await update(free_tools, instructions=SHOES)  # set back, what is settled for it is as it was
    await free_tools.ask("Hello")
    given = (await shop.agent.turn()).given
    assert (given.instructions, [tool.name for tool in given.tools]) == (SHOES, ["refund"])


@pytest.mark.parametrize(
    "change",
    [
        {"instructions": PIRATE},
        {"tools": [REFUND]},
        {"max_output_tokens": "inf"},
        {"tool_choice": "none"},
        {"unbroken": {"concurrency": "queue"}},
        {"unbroken": {"reasoning": True}},
    ],
)
async def test_what_a_key_with_nothing_settled_widens_is_not_for_one_with(
    shop: Served[ManualAgent], change: dict[str, Any]
) -> None:
    settled = {"instructions": SHOES, "tools": [], "max_output_tokens": 50, "tool_choice": "auto"}
    own = {"concurrency": "reject", "reasoning": False}
    narrow = await shop.client(await keyed(shop, **settled, unbroken=own))
    await narrow.say("Hello")
    wide = await joined(shop, narrow, await keyed(shop))
    await update(wide, **change)
    await narrow.until("session.updated")
    await narrow.send({"type": "response.create"})

    assert (await narrow.error())["code"] == "session_pinned"
    assert shop.agent.turns == []
    await wide.send({"type": "response.create"})  # of whoever may
    turn = await shop.agent.turn()
    turn.end()
    await narrow.done()


async def test_what_was_asked_for_before_the_session_was_widened_runs_as_settled(
    shop: Served[ManualAgent],
) -> None:
    """It waits while the configuration changes: between being looked at and being begun anything may."""
    settled = {"instructions": SHOES, "tools": [TOOL], "max_output_tokens": 50}
    narrow = await shop.client(await keyed(shop, **settled))
    await update(narrow, unbroken={"concurrency": "queue"})
    wide = await joined(shop, narrow, await keyed(shop))
    pirate = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": PIRATE}]}
    await wide.send({"type": "conversation.item.create", "item": pirate})
    await wide.until("conversation.item.done")
    for text in ("One", "Two"):
        await narrow.ask(text)
        await narrow.sync()
    await update(wide, instructions=PIRATE, tools=[REFUND], max_output_tokens="inf")
    await wide.ask("Three")
    await wide.sync()
    turns = []
    for number in range(3):
        turns.append(await shop.agent.turn(number))
        turns[-1].end()

    for turn in turns[:2]:
        given = turn.given
        assert (given.instructions, given.max_output_tokens) == (SHOES, 50)
        assert [tool.name for tool in given.tools] == ["search"]
        assert not any(isinstance(item, Message) and item.role == "system" for item in given.items)
    given = turns[2].given
    assert (given.instructions, given.max_output_tokens) == (PIRATE, None), "as whoever may has said"
    assert [tool.name for tool in given.tools] == ["refund"]
    assert any(isinstance(item, Message) and item.role == "system" for item in given.items)


async def test_who_asks_for_less_gets_less(shop: Served[ManualAgent]) -> None:
    narrow = await shop.client(await keyed(shop, instructions=SHOES, tools=[TOOL], max_output_tokens=50))
    await update(narrow, tools=[], max_output_tokens=20)
    await narrow.ask("Hello")
    given = (await shop.agent.turn()).given

    assert (given.tools, given.max_output_tokens) == ((), 20)
