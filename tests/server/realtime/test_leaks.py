"""What may leave, from the wire's side."""

from __future__ import annotations

import re

import orjson
import pytest

from tests.fakes.upstream import FakeUpstream
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import serving
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.responses import ResponsesAgent
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.agents.upstream import Upstream

CARD = "4111111111111111"
NAME = re.compile(r"\[card [a-z2-7]{5}\]")


async def test_nobody_is_shown_what_was_kept_back_neither_live_nor_later() -> None:
    async with serving(ScriptedAgent(), leaks="on") as served:
        client = await served.client()
        await client.ask(f"/say Your card is {CARD}, or {CARD}.")
        first = await client.done()
        await client.ask(f"/say Again: {CARD}")
        again = await client.done()
        tab = await served.tab(client)
        await tab.done()
        await tab.done()
        shown = [frame for each in (client, tab) for frame in each.frames if "response" in frame["type"]]

    name = NAME.search(first["output"][0]["content"][0]["text"])
    assert name is not None
    assert first["output"][0]["content"][0]["text"] == f"Your card is {name[0]}, or {name[0]}."
    assert again["output"][0]["content"][0]["text"] == f"Again: {name[0]}", "stable within a session"
    assert first["unbroken"] == {"redacted": {"card": 2}}
    assert len(shown) > 20
    assert CARD.encode() not in orjson.dumps(shown)


async def test_what_blocks_ends_the_response_as_incomplete() -> None:
    async with serving(ScriptedAgent(), leaks="on", leak_actions=("card=block",)) as served:
        client = await served.client()
        await client.ask(f"/say It is {CARD}, so.")
        response = await client.done()

    assert response["status"] == "incomplete"
    assert response["status_details"] == {"type": "incomplete", "reason": "content_filter"}
    assert response["output"][0]["content"][0]["text"] == "It is "
    assert response["unbroken"] == {"blocked": {"card": 1}}


async def test_by_default_everything_passes_and_is_counted() -> None:
    async with serving(ScriptedAgent()) as served:
        client = await served.client()
        await client.ask(f"/say It is {CARD}, so.")
        response = await client.done()
        labels = {"entity": "card", "action": "redact_shadow"}
        counted = served.app.metrics.registry.get_sample_value("unbroken_leaks_total", labels)

    assert response["output"][0]["content"][0]["text"] == f"It is {CARD}, so."
    assert counted == 1


async def test_what_is_held_when_a_response_is_cancelled_is_not_said() -> None:
    async with serving(ManualAgent(), leaks="on", leak_hold=60.0) as served:
        client = await served.client()
        await client.ask("go")
        turn = await served.agent.turn()
        turn.say("Your card is 4111 1111 ")
        await client.until("response.output_text.delta")
        await client.cancel()
        response = await client.done()

    assert response["status"] == "cancelled"
    assert response["output"][0]["content"][0]["text"] == "Your card is "


async def test_a_canary_in_the_instructions_ends_the_response_that_holds_it() -> None:
    async with serving(ScriptedAgent(), leaks="on", leak_canaries=("Zebra-4711-Kiwi",)) as served:
        client = await served.client()
        for said in ("zebra4711kiwi", "Z e b r a 4 7 1 1 K i w i"):
            await client.ask(f"/say It says {said} and more.")
            response = await client.done()

            assert response["status_details"] == {"type": "incomplete", "reason": "content_filter"}
            assert "more" not in response["output"][0]["content"][0]["text"]
            assert response["unbroken"] == {"blocked": {"canary": 1}}


@pytest.mark.parametrize("kind", [OpenAIAgent, ResponsesAgent])
async def test_a_function_that_a_model_made_up_is_not_called_by_what_was_kept_back(
    kind: type[OpenAIAgent | ResponsesAgent],
) -> None:
    tool = {"type": "function", "name": "pay"}
    async with FakeUpstream() as upstream:
        agent = kind(Upstream(base_url=upstream.base_url, api_key="k", max_retries=0), model="m")
        upstream.call(("pay", "{}"), (f"pay_{CARD}", '{"amount": 5}'))
        async with serving(agent, leaks="on") as served:
            client = await served.client()
            await client.ask("Pay.", tools=[tool])
            response = await client.done()
            tab = await served.tab(client)
            await tab.done()

    known, made_up = response["output"]
    assert (known["name"], known["call_id"]) == ("pay", "call_0")
    assert re.fullmatch("pay_card_[a-z2-7]{5}", made_up["name"])
    assert (made_up["arguments"], made_up["call_id"]) == ('{"amount": 5}', "call_1")
    assert response["unbroken"] == {"redacted": {"card": 1}}
    assert CARD.encode() not in orjson.dumps([*client.frames, *tab.frames])
