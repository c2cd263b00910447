"""A hundred clients that cut their own connections at random moments, all at once."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.server.conftest import Serve
from tests.server.realtime.client import Client
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.scripted import ScriptedAgent, answer_to

CLIENTS = 100
TURNS = 2


async def converse(client: Client, chance: random.Random) -> list[str]:
    """Have some turns, losing the connection again and again. Return the scripts."""
    scripts = [f"/tokens {chance.randrange(20, 80)} 1\n/say {client.key} {turn}" for turn in range(TURNS)]
    for turn, script in enumerate(scripts):
        while True:
            # Whether it has arrived nobody can say: it is sent again, under the same names.
            await client.say(script, id=f"msg-{turn}")
            await client.send({"type": "response.create", "unbroken": {"message_id": f"ask-{turn}"}})
            if await heard_the_end(client, turn, chance.randrange(40)):
                break
            await client.drop()
            if chance.random() < 0.3:
                # Gone again before a frame has come.
                await client.open(resume=client.token or "", after=client.last_id or "")
                await client.drop()
            await client.resume()
    return scripts


async def heard_the_end(client: Client, turn: int, frames: int) -> bool:
    """See up to so many frames."""
    for _ in range(frames):
        if (await client.next())["type"] == "response.done" and len(client.of("response.done")) > turn:
            return True
    return False


@pytest.mark.slow
async def test_every_answer_is_whole_and_was_asked_for_once(serve: Serve) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)  # noqa: T201 - to run it again as it was
    server: Served[ScriptedAgent] = await serve(
        ScriptedAgent(), connections_per_session=64, firewall_timeout=60.0
    )
    baseline = len(asyncio.all_tasks())
    clients = await asyncio.gather(*(server.client(f"user{number}") for number in range(CLIENTS)))
    scripts = await asyncio.gather(
        *(converse(client, random.Random(seed + number)) for number, client in enumerate(clients))
    )

    for client, asked in zip(clients, scripts, strict=True):
        assert client.answers() == [("completed", answer_to(script)) for script in asked]
        assert client.errors() == []
    assert server.agent.calls == CLIENTS * TURNS
    assert sum(client.connections for client in clients) > 5 * CLIENTS
    for client in clients:
        await client.close()
    await server.idle()
    await eventually(lambda: len(asyncio.all_tasks()) == baseline)
    assert server.agent.running == 0
    for actor in server.app.node.hub:
        assert not actor.session.is_running
        assert not actor.session.has_inputs
