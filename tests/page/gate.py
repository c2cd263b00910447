"""Answers that stop between words until a test lets them go on, however long a machine takes for the rest.

The agent is in the server's process, the gate in the test's; they meet at a port.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from tests.page.meeting import Meeting
from unbroken.server.agents.base import AgentOutput, TurnInput
from unbroken.server.agents.scripted import ScriptedAgent, answer_to

__all__ = ["Gate", "answer"]

_VERB = "/gated"


class Gate(Meeting):
    """What answers wait at."""

    def script(self, words: int, *stops: int) -> str:
        """Return what to say for an answer of so many *words* that waits behind each of the *stops*."""
        return " ".join(map(str, (_VERB, self.port, words, *stops)))

    async def open(self) -> None:
        """Let the answer go on to its next stop. It may still be on its way here."""
        (await self.arrival()).close()


async def answer(turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
    """Answer as a gate's script says, and anything else as the scripted agent does."""
    match turn.messages[-1].text.split():
        case [verb, port, words, *stops] if verb == _VERB:
            for number, word in enumerate(answer_to(f"/tokens {words}").split(" "), 1):
                yield word if number == int(words) else word + " "
                if str(number) in stops:
                    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
                    try:
                        await reader.read()
                    finally:
                        writer.close()
        case _:
            scripted = ScriptedAgent()
            await scripted.start()
            async for output in scripted.respond(turn):
                yield output
