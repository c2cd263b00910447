"""One run, without an actor."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from tests.fakes.clock import FakeClock
from tests.fakes.responder import ManualResponder, ManualTurn
from tests.sessions.conversation import settle
from unbroken.sessions.ids import PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import ResponseRequest, SessionConfig
from unbroken.sessions.responder import (
    Output,
    Responder,
    Turn,
)
from unbroken.sessions.response import Outcome
from unbroken.sessions.run import Run, RunLimits

__all__ = [
    "TURN",
    "Bench",
    "code_of",
]


TURN: Final = Turn(
    session_id=SessionId("sess_1"),
    response_id=ResponseId("r1"),
    principal=PrincipalId("alice"),
    attempt=1,
    config=SessionConfig("m"),
    request=ResponseRequest(),
    items=(),
)


class Bench:
    """One run, its responder and its clock, without an actor."""

    def __init__(self, limits: RunLimits | None = None) -> None:
        self.clock = FakeClock()
        self.responder = ManualResponder()
        self.notified = 0
        self.tasks: list[asyncio.Task[None]] = []
        limits = limits or RunLimits()
        self.run = Run(ResponseId("r1"), limits, self.clock, self.notify)

    def notify(self) -> None:
        self.notified += 1

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    async def start(self, responder: Responder | None = None) -> None:
        self.run.start(self.spawn, responder or self.responder, TURN)
        await settle()

    @property
    def turn(self) -> ManualTurn:
        return self.responder.last

    async def say(self, *pieces: Output) -> None:
        self.turn.say(*pieces)
        await settle()

    async def end(self) -> Outcome:
        self.turn.end()
        await settle()
        return self.outcome

    @property
    def outcome(self) -> Outcome:
        assert self.run.outcome is not None
        return self.run.outcome

    def text(self) -> str:
        return "".join(self.take())

    def take(self) -> list[str]:
        """Return the new pieces of all outputs."""
        return [piece for taken in self.run.take() for piece in taken.pieces]

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)


def code_of(outcome: Outcome) -> str | None:
    return None if outcome.failure is None else outcome.failure.code
