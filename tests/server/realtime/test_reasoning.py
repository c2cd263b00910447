from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.upstream import FakeUpstream
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Frame
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.base import ReasoningPiece
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.responses import ResponsesAgent
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.agents.upstream import Upstream

THINK = "/think Hm, so\n/say It rains."


def wants(value: object) -> Frame:
    return {"type": "session.update", "session": {"type": "realtime", "unbroken": {"reasoning": value}}}


async def test_nobody_is_shown_what_they_didnt_ask_for(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.ask(THINK)
    (only,) = (await client.done())["output"]

    assert not [kind for kind in client.types() if kind.startswith("unbroken.")]
    assert [frame["output_index"] for frame in client.of("response.output_item.added")] == [0]
    assert only["content"][0]["text"] == "It rains."


async def test_who_asked_is_shown_it_and_may_change_their_mind(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.send(wants(value=True))
    updated = (await client.until("session.updated"))["session"]
    await client.ask(THINK)
    output = (await client.done())["output"]
    seen = client.types()
    await client.send(wants(value=False))
    await client.ask(THINK)
    await client.done()

    assert updated["unbroken"]["reasoning"] is True
    assert [frame["delta"] for frame in client.of("unbroken.reasoning.delta")] == ["Hm, ", "so"]
    assert client.of("unbroken.reasoning.done")[0]["text"] == "Hm, so"
    assert seen.index("unbroken.reasoning.done") < seen.index("response.output_item.added")
    assert len(client.of("unbroken.reasoning.added")) == 1
    assert [item["type"] for item in output] == ["message"]
    assert client.answers() == [("completed", "It rains."), ("completed", "It rains.")]


async def test_a_wish_that_is_none_is_refused(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.send(wants("yes"))
    error = await client.error()

    assert (error["code"], error["param"]) == ("invalid_event", "session.unbroken.reasoning")


async def test_resuming_in_the_middle_of_a_thought(manual: Served[ManualAgent]) -> None:
    client = await manual.client()
    await client.send(wants(value=True))
    await client.ask("go")
    turn = await manual.agent.turn()
    turn.say(ReasoningPiece("Hm"), ReasoningPiece(", so"))
    while len(client.of("unbroken.reasoning.delta")) < 2:
        await client.next()
    seen = list(client.frames)
    late = manual.stranger(token=client.token)
    await late.resume(after="event_00000000")
    turn.say("It rains.")
    turn.end()
    await client.done()
    await late.done()
    for place in range(1, len(seen)):
        other = manual.stranger(token=client.token)
        await other.resume(after=seen[place]["event_id"])
        await other.done()
        assert other.frames[1:] == client.frames[place + 1 :]
        await other.close()

    assert late.resumed is False
    assert [frame["delta"] for frame in late.of("unbroken.reasoning.delta")] == ["Hm, so"]
    assert late.of("unbroken.reasoning.done") == client.of("unbroken.reasoning.done")
    assert late.answers() == client.answers() == [("completed", "It rains.")]
    assert turn.given.shows_reasoning


@pytest.mark.parametrize("kind", [OpenAIAgent, ResponsesAgent])
async def test_upstreams_think_and_arent_told_again(kind: type[OpenAIAgent | ResponsesAgent]) -> None:
    async with FakeUpstream() as upstream:
        upstream.answer("It ", "rains.", thoughts=["Hm", ", so"])
        upstream.answer("Yes.")
        agent = kind(Upstream(base_url=upstream.base_url, api_key="k", max_retries=0), model="m")
        async with serving(agent) as served:
            client = await served.client()
            await client.send(wants(value=True))
            await client.ask("How is it?")
            await client.done()
            await client.ask("Really?")
            await client.done()
            second: Any = upstream.requests[1].json

    assert client.of("unbroken.reasoning.done")[0]["text"] == "Hm, so"
    assert client.answers() == [("completed", "It rains."), ("completed", "Yes.")]
    assert [each["content"] for each in second.get("messages") or second["input"]] == [
        "How is it?",
        "It rains.",
        "Really?",
    ]
