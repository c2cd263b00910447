"""Many that are answered, and many that watch: each is shown all of it, and nothing of the others'."""

from __future__ import annotations

import asyncio

from tests.fakes.upstream import FakeUpstream
from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Client
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.upstream import Upstream

TABS = 50
STREAMS = 40
PIECES = 500


async def all_of(client: Client) -> str:
    """Return the text that a client pieces together by the end of its answer."""
    response = await client.done()
    (item,) = response["output"]
    assert client.text() == item["content"][0]["text"], "the deltas make the final text"
    return client.text()


async def test_a_storm_of_tokens_reaches_each_of_many_streams_whole(manual: Served[ManualAgent]) -> None:
    """Forty answers of 500 pieces each, all produced as fast as they can be."""
    clients = [await manual.client(f"user {number}") for number in range(STREAMS)]
    for number, client in enumerate(clients):
        await client.ask(f"from {number}")
        turn = await manual.agent.turn(number)
        assert turn.given.messages[-1].text == f"from {number}"
    for number, turn in enumerate(manual.agent.turns):
        turn.say(*(f"{number}:{piece} " for piece in range(PIECES)))
        turn.end()
    texts = await asyncio.gather(*map(all_of, clients))

    assert texts == ["".join(f"{number}:{piece} " for piece in range(PIECES)) for number in range(STREAMS)]


async def test_fifty_tabs_watch_one_answer(serve: Serve) -> None:
    """All are shown the same frames, with the same ids, in the same order; the agent is asked once."""
    manual: Served[ManualAgent] = await serve(ManualAgent(), connections_per_session=TABS)
    first = await manual.client()
    tabs = [first, *[await manual.tab(first) for _ in range(TABS - 1)]]
    await first.ask("hi")
    turn = await manual.agent.turn()
    for piece in range(20):
        turn.say(f"{piece} ")
        for tab in tabs:
            await tab.said(f"{piece} ")
    turn.end()
    await asyncio.gather(*map(all_of, tabs))

    shown = [[frame for frame in tab.frames if frame["type"] != "session.created"] for tab in tabs]
    assert all(frames == shown[0] for frames in shown)
    assert len(manual.agent.turns) == 1


async def test_a_stop_closes_the_upstreams_connection_and_is_billed_once() -> None:
    """From whichever tab it comes. What was used until then is told once, in the one end of the answer."""
    async with FakeUpstream() as upstream:
        upstream.never_ending()
        agent = OpenAIAgent(Upstream(base_url=upstream.base_url, api_key="k", max_retries=0), model="m")
        async with serving(agent) as served:
            client = await served.client()
            tab = await served.tab(client)
            await client.ask("hi")
            await tab.until("response.output_text.delta")
            await tab.cancel()
            await tab.cancel()
            response = await client.done()
            await upstream.requests[0].disconnected.wait()
            await client.sync()

    assert response["status"] == "cancelled"
    assert len(upstream.requests) == 1
    assert len(client.of("response.done")) == 1
    assert "usage" not in response, "the upstream told of none"
