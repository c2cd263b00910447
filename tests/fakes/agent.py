"""An agent that says what a list says, and breaks down where a test asks for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import TypeAlias

from unbroken.server.agents.base import AgentError, AgentNotReady, AgentOutput, Handle, TurnInput

__all__ = ["FakeAgent", "Step"]

Step: TypeAlias = AgentOutput | Exception | None
"""Something to yield; to raise; or None: to hang until it is stopped."""


class FakeAgent:
    """Takes the next script for each turn, and the last one for all further ones."""

    def __init__(self, *scripts: Sequence[Step], model: str = "m") -> None:
        self.model = model
        self.is_ready = False
        self.failure_at_start: AgentError | None = None
        self.turns: list[TurnInput] = []
        """What it was asked."""
        self.reattached: list[tuple[str, int, list[int]]] = []
        self.abandoned: list[str] = []
        self.running = 0
        self.hanging = asyncio.Event()
        """Set when it begins to hang."""
        self._scripts = deque(scripts)

    async def start(self) -> None:
        if self.failure_at_start is not None:
            raise self.failure_at_start
        self.is_ready = True

    async def stop(self) -> None:
        self.is_ready = False

    async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        if not self.is_ready:
            raise AgentNotReady
        self.turns.append(turn)
        script = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
        self.running += 1
        try:
            for step in script:
                if step is None:
                    self.hanging.set()
                    await asyncio.get_running_loop().create_future()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.running -= 1

    async def abandon(self, handle: Handle) -> None:
        self.abandoned.append(handle.value)

    async def reattach(
        self, turn: TurnInput, handle: Handle, offset: int, calls: Sequence[int] = ()
    ) -> AsyncGenerator[AgentOutput, None]:
        self.reattached.append((handle.value, offset, list(calls)))
        yield "rest"
