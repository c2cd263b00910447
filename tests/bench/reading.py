"""A reader of upstream streams: ``python -m tests.bench.reading ours|sdk PORT STREAMS EVENTS ROUNDS``.

It reads that many streams at once, each round, and prints the CPU seconds of
the rounds after the first, which warms up. A stream whose text isn't what it
should be ends it with an error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import openai
import uvloop

from tests.bench.workload import answer_text
from unbroken.server.agents.base import TurnInput
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.upstream import Upstream

_TURN = TurnInput(
    session_id="sess_1",
    response_id="resp_1",
    principal="someone",
    model="m",
    instructions="Go on.",
    items=(),
)


async def _measure(kind: str, base_url: str, streams: int, events: int, rounds: int) -> list[float]:
    expected = answer_text(events).decode()
    agent = OpenAIAgent(Upstream(base_url=base_url, api_key="none"), model="m")
    client = openai.AsyncOpenAI(base_url=base_url, api_key="none")
    await agent.start()

    async def ours() -> list[str]:
        return [output async for output in agent.respond(_TURN) if type(output) is str]

    async def sdk() -> list[str]:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "system", "content": "Go on."}], stream=True
        )
        return [chunk.choices[0].delta.content or "" async for chunk in stream]

    async def read() -> None:
        text = "".join(await (ours() if kind == "ours" else sdk()))
        if text != expected:
            raise RuntimeError(f"{kind} read {len(text)} characters that aren't the text")

    seconds: list[float] = []
    for _ in range(rounds + 1):
        begun = time.process_time()
        await asyncio.gather(*(read() for _ in range(streams)))
        seconds.append(time.process_time() - begun)
    await agent.stop()
    await client.close()
    return seconds[1:]


if __name__ == "__main__":
    kind, port, *numbers = sys.argv[1:]
    streams, events, rounds = map(int, numbers)
    # The loop that the server runs on.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_measure(kind, f"http://127.0.0.1:{port}/v1", streams, events, rounds))
    sys.stdout.write(json.dumps(found))
