"""An agent that says what the test tells it to, when the test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from tests.server.realtime.client import WAIT
from unbroken.server.agents.base import AgentOutput, TurnInput

__all__ = ["HeldTurn", "ManualAgent"]


class HeldTurn:
    """One turn in progress."""

    def __init__(self, given: TurnInput) -> None:
        self.given = given
        self.closed = asyncio.Event()
        """Set when the turn has ended or has been stopped."""
        self.was_stopped = False
        self.taken = 0
        """How many outputs have been taken."""
        self._script: asyncio.Queue[AgentOutput | BaseException | None] = asyncio.Queue()

    def say(self, *pieces: AgentOutput) -> None:
        for piece in pieces:
            self._script.put_nowait(piece)

    def end(self) -> None:
        self._script.put_nowait(None)

    def fail(self, error: BaseException) -> None:
        self._script.put_nowait(error)

    async def outputs(self) -> AsyncGenerator[AgentOutput, None]:
        try:
            while (step := await self._script.get()) is not None:
                if isinstance(step, BaseException):
                    raise step
                yield step
                self.taken += 1
        except (asyncio.CancelledError, GeneratorExit):
            self.was_stopped = True
            raise
        finally:
            self.closed.set()


class ManualAgent:
    """Implements :class:`unbroken.server.agents.base.Agent`."""

    def __init__(self) -> None:
        self.turns: list[HeldTurn] = []
        """All turns ever begun, in order."""
        self._begun = asyncio.Event()

    @property
    def model(self) -> str:
        return "manual"

    @property
    def is_ready(self) -> bool:
        return True

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def turn(self, number: int = 0) -> HeldTurn:
        """Return the turn of that number, from 0, once it has begun."""
        async with asyncio.timeout(WAIT):
            while len(self.turns) <= number:
                self._begun.clear()
                await self._begun.wait()
        return self.turns[number]

    def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        held = HeldTurn(turn)
        self.turns.append(held)
        self._begun.set()
        return held.outputs()
