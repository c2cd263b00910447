"""What every agent must do, by the interface in ``unbroken.server.agents.base``.

A test module makes a subclass named ``Test...`` that gives the fixture
``subject``: an agent that has been started, and the means to make it behave.
"""

from __future__ import annotations

import abc
import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from unbroken.server.agents.base import (
    Agent,
    AgentError,
    AgentNotReady,
    AgentOutput,
    Finish,
    Handle,
    TurnInput,
    Usage,
    Working,
)
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import Message, Role, Text


def message(text: str, role: Role = "user") -> Message:
    return Message(id=ItemId("item_1"), role=role, content=(Text(text),))


def turn(*messages: Message | str, **fields: Any) -> TurnInput:
    """Return a turn of these messages; those that are strings are the user's."""
    return TurnInput(
        **{
            "session_id": "sess_1",
            "response_id": "resp_1",
            "principal": "someone",
            "model": "default",
            "instructions": "",
            "items": tuple(message(m) if isinstance(m, str) else m for m in messages),
            **fields,
        }
    )


async def collect(agent: Agent, turn: TurnInput) -> list[AgentOutput]:
    return [output async for output in agent.respond(turn)]


def text_of(outputs: list[AgentOutput]) -> str:
    return "".join(output for output in outputs if isinstance(output, str))


class Subject(abc.ABC):
    """An agent under test, with a way into each behaviour."""

    agent: Agent

    @abc.abstractmethod
    def answering(self, number: int) -> tuple[TurnInput, str]:
        """Return a turn, and the text that it will be answered with; another for another *number*."""

    @abc.abstractmethod
    def endless(self) -> TurnInput:
        """Return a turn that is answered with at least one piece, and never to an end."""

    @abc.abstractmethod
    def silent(self) -> TurnInput:
        """Return a turn that is never answered at all."""

    @abc.abstractmethod
    def failing(self) -> TurnInput:
        """Return a turn that fails after its first piece."""

    @abc.abstractmethod
    async def begun(self) -> None:
        """Return once the last turn's work has begun, wherever it is done."""

    @abc.abstractmethod
    async def stopped(self) -> None:
        """Return once the last turn's work has stopped, wherever it is done."""


class AgentContract:
    async def test_is_ready_between_start_and_stop(self, subject: Subject) -> None:
        assert subject.agent.is_ready

        await subject.agent.stop()

        assert not subject.agent.is_ready
        with pytest.raises(AgentNotReady):
            await collect(subject.agent, subject.answering(0)[0])

    async def test_can_be_started_again(self, subject: Subject) -> None:
        await subject.agent.stop()
        await subject.agent.start()
        request, expected = subject.answering(0)

        assert expected == text_of(await collect(subject.agent, request))

    async def test_pieces_make_up_the_answer(self, subject: Subject) -> None:
        request, expected = subject.answering(0)

        outputs = await collect(subject.agent, request)

        assert expected == text_of(outputs)
        assert all(isinstance(output, str | Working | Usage | Handle | Finish) for output in outputs)
        assert sum(isinstance(output, Usage) for output in outputs) <= 1
        assert sum(isinstance(output, Finish) for output in outputs) <= 1

    async def test_turns_at_once_do_not_mix(self, subject: Subject) -> None:
        requests = [subject.answering(number) for number in range(5)]

        answers = await asyncio.gather(*(collect(subject.agent, request) for request, _ in requests))

        assert {expected for _, expected in requests} == {text_of(answer) for answer in answers}

    async def test_closing_after_a_piece_stops_the_work(self, subject: Subject) -> None:
        async with aclosing(subject.agent.respond(subject.endless())) as outputs:
            async for output in outputs:
                if isinstance(output, str):
                    break

        await subject.stopped()

    async def test_cancelling_in_mid_answer_stops_the_work(self, subject: Subject) -> None:
        has_piece = asyncio.Event()

        async def consume() -> None:
            async for output in subject.agent.respond(subject.endless()):
                if isinstance(output, str):
                    has_piece.set()

        task = asyncio.create_task(consume())
        await has_piece.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await subject.stopped()

    async def test_cancelling_before_the_first_piece_stops_the_work(self, subject: Subject) -> None:
        task = asyncio.create_task(collect(subject.agent, subject.silent()))
        await subject.begun()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await subject.stopped()

    async def test_closing_is_clean_before_the_start_and_after_the_end(self, subject: Subject) -> None:
        request, expected = subject.answering(0)
        unused = subject.agent.respond(request)
        await unused.aclose()

        used = subject.agent.respond(request)
        outputs = [output async for output in used]
        await used.aclose()
        await used.aclose()

        assert expected == text_of(outputs)

    async def test_failure_is_typed_and_follows_what_was_said(self, subject: Subject) -> None:
        outputs: list[AgentOutput] = []

        with pytest.raises(AgentError) as failure:
            async for output in subject.agent.respond(subject.failing()):
                outputs.append(output)  # noqa: PERF401 - what came before the failure is wanted

        assert text_of(outputs)
        assert failure.value.code
        assert failure.value.message == str(failure.value)

    async def test_works_on_after_a_failure_and_a_cancelled_turn(self, subject: Subject) -> None:
        with pytest.raises(AgentError):
            await collect(subject.agent, subject.failing())
        task = asyncio.create_task(collect(subject.agent, subject.silent()))
        await subject.begun()
        task.cancel()
        await asyncio.wait([task])
        request, expected = subject.answering(0)

        assert expected == text_of(await collect(subject.agent, request))
