"""Answers that stop between words until a test lets them go on, however long a machine takes for the rest.

The agent is in the server's process, the gate in the test's; they meet at a port.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from tests.server.realtime.client import WAIT
from unbroken.server.agents.base import AgentOutput, TurnInput
from unbroken.server.agents.scripted import ScriptedAgent, answer_to

__all__ = ["Gate", "answer"]

_VERB = "/gated"


class Gate:
    """What answers wait at. Use as a context; whatever waits at its end is let through."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue(8)
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Gate:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def script(self, words: int, *stops: int) -> str:
        """Return what to say for an answer of so many *words* that waits behind each of the *stops*."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return " ".join(map(str, (_VERB, port, words, *stops)))

    async def open(self) -> None:
        """Let the answer go on to its next stop. It may still be on its way here."""
        (await asyncio.wait_for(self._waiting.get(), WAIT)).close()

    async def _accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._waiting.put_nowait(writer)


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
