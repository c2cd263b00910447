"""Answers to filter: an agent that says a list, and what is left of what it said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from unbroken.server.agents.base import AgentOutput, Handle, TurnInput
from unbroken.sessions.ids import ItemId, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import Message, ResponseRequest, SessionConfig, Text
from unbroken.sessions.responder import FunctionCallPiece, Notes, Output, Resumption, ToolCallPiece, Turn

SESSION: Final = SessionId("sess_1")


def turn(instructions: str = "", resumption: Resumption | None = None) -> Turn:
    return Turn(
        session_id=SESSION,
        response_id=ResponseId("resp_1"),
        principal=PrincipalId("alice"),
        attempt=1,
        config=SessionConfig("m", instructions),
        request=ResponseRequest(),
        items=(Message(ItemId("u1"), "user", (Text("hi"),)),),
        resumption=resumption,
    )


@dataclass
class Upstream:
    """An agent that says a list, and keeps its answer."""

    outputs: Sequence[AgentOutput | Exception]
    model: str = "m"
    is_ready: bool = True
    is_closed: bool = False
    waits_at_end: bool = False
    offset: int | None = None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        try:
            for output in self.outputs:
                if isinstance(output, Exception):
                    raise output
                yield output
            if self.waits_at_end:
                await asyncio.Event().wait()
        finally:
            self.is_closed = True

    async def abandon(self, handle: Handle) -> None:
        raise AssertionError("nobody is to be told to stop")

    async def reattach(
        self, turn: TurnInput, handle: Handle, offset: int, calls: Sequence[int] = ()
    ) -> AsyncGenerator[AgentOutput, None]:
        self.offset = offset
        left, known = offset, list(calls)
        async with aclosing(self.respond(turn)) as outputs:
            async for output in outputs:
                if isinstance(output, str):
                    yield output[left:]
                    left = max(left - len(output), 0)
                elif isinstance(output, FunctionCallPiece) and output.index < len(known):
                    yield replace(output, arguments=output.arguments[known[output.index] :])
                else:
                    yield output


async def collect(answer: AsyncGenerator[Output, None], outputs: list[Output]) -> None:
    """Put what *answer* yields to *outputs*, up to where it ends or fails."""
    async for output in answer:
        outputs.append(output)  # noqa: PERF401 - what came before a failure counts


def said(outputs: Sequence[Output]) -> str:
    return "".join(output for output in outputs if isinstance(output, str))


def arguments(outputs: Sequence[Output]) -> str:
    return "".join(each.arguments for each in outputs if isinstance(each, FunctionCallPiece | ToolCallPiece))


def notes(outputs: Sequence[Output]) -> object:
    told = [output.values for output in outputs if isinstance(output, Notes)]
    return told[-1] if told else None
