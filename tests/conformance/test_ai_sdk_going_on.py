"""npm's `ai` on Node.js comes back to what it was cut off from: `onFinish` tells the application of that."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.test_ai_sdk import run
from tests.fakes.proxy import Proxy
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.scripted import ScriptedAgent, answer_to

pytestmark = pytest.mark.slow

SCRIPT = "/tokens 100 10"
ANSWERED = [SCRIPT, answer_to(SCRIPT), "hi", answer_to("hi")]


@pytest.mark.client("ai-node", "resume", "fault")
@pytest.mark.parametrize("code", [1011, 1012, 1013])
async def test_connections_closed_in_mid_answer_are_come_back_to(
    server: Served[ScriptedAgent], code: int
) -> None:
    for after in (9, 5):
        server.inspector.close_next(after=after, code=code)
    shown = await run(server.port, "persist", "ws", SCRIPT, "hi")

    assert shown.texts() == ANSWERED
    assert [finish["isDisconnect"] for finish in shown.finishes] == [True, True, False, False]
    assert [str(code) in error for error in shown.errors] == [True, True]
    assert server.agent.calls == 2


@pytest.mark.client("ai-node", "network")
@pytest.mark.parametrize("way", ["http", "ws"])
async def test_an_answer_is_come_back_to_through_a_broken_network(
    server: Served[ScriptedAgent], way: str
) -> None:
    async with Proxy(server.port) as network:
        running = asyncio.create_task(run(network.port, "persist", way, SCRIPT, "hi"))
        await server.asked(1)
        for _ in range(2):
            carried = network.carried
            await eventually(lambda: network.carried > carried + 2000)  # noqa: B023 - it is waited for
            network.cut()
        shown = await running

    assert shown.texts() == ANSWERED
    assert server.agent.calls == 2
