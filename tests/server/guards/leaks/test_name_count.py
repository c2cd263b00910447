"""Names that are only counted: no answer waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final

import pytest

from tests.server.guards.leaks.answering import Upstream, notes, said
from tests.server.guards.leaks.naming import REDACTING, Server, settle
from unbroken.server.agents.base import AgentOutput, TurnInput, UpstreamCut
from unbroken.server.guards.leaks.entities import Actions

FLAGGING: Final[Actions] = {**REDACTING, "name": "flag", "address": "ignore"}

ONLY_COUNTED: Final = pytest.mark.parametrize("is_shadow", [True, False])


def counting(*outputs: AgentOutput | Exception, is_shadow: bool, **options: Any) -> Server:
    """Return one where names are only counted: in shadow, or as that is what is done about them."""
    actions = REDACTING if is_shadow else FLAGGING
    return Server(*outputs, is_shadow=is_shadow, actions=actions, **options)


@ONLY_COUNTED
async def test_what_is_only_counted_waits_for_no_model(is_shadow: bool) -> None:
    server = counting("It is Maria Lopez. ", "So. ", "It is Ann.", is_shadow=is_shadow)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    assert said(server.outputs) == "It is Maria Lopez. So. It is Ann."
    server.recogniser.recover()
    await task

    assert notes(server.outputs) is None
    assert server.counted == [("name", "redact_shadow" if is_shadow else "flag", 2)]
    assert server.unread == []


@ONLY_COUNTED
async def test_at_its_end_what_could_not_be_read_by_then_is_given_up_and_counted(is_shadow: bool) -> None:
    server = counting("It is Maria Lopez. ", "It is Ann. ", is_shadow=is_shadow)
    server.recogniser.hang()
    await server.answer()

    assert server.recogniser.texts == ["It is Maria Lopez."], "and no more is asked for"
    assert (server.counted, server.unread) == ([], ["late", "late"])
    assert len(asyncio.all_tasks()) == 1


async def test_of_what_is_only_counted_few_sentences_wait() -> None:
    server = counting(*["It is Ann. "] * 100, is_shadow=True, waits=True)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    assert said(server.outputs) == "It is Ann. " * 100
    assert server.unread == ["busy"] * 36
    server.recogniser.recover()
    for _ in range(10):
        await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert server.counted == [("name", "redact_shadow", 64)]
    assert server.unread == ["busy"] * 36


@ONLY_COUNTED
@pytest.mark.parametrize("ending", ["error", "cancel"])
async def test_what_is_only_counted_is_when_the_answer_is_cut_short(is_shadow: bool, ending: str) -> None:
    server = counting(
        "It is Maria Lopez. ",
        *([UpstreamCut()] if ending == "error" else []),
        is_shadow=is_shadow,
        waits=ending == "cancel",
    )
    task = asyncio.ensure_future(server.answer())
    await settle()
    if ending == "cancel":
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert [count for _, _, count in server.counted] == [1]
    assert len(asyncio.all_tasks()) == 1


async def test_cancelled_nobody_waits_for_what_is_only_counted() -> None:
    server = counting("It is Maria Lopez. ", is_shadow=True, waits=True)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    task.cancel()
    await settle()

    assert task.done()
    assert server.unread == ["late"]


async def test_a_word_that_left_while_the_answer_waited_is_counted_too() -> None:
    goes_on = asyncio.Event()

    class Hesitating(Upstream):
        async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
            yield "It is Maria"
            await goes_on.wait()
            yield " Lopez."

    server = counting(is_shadow=False)
    server.agent = Hesitating([])
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(0.5)
    await settle()
    assert said(server.outputs) == "It is Maria"
    goes_on.set()
    await task

    assert said(server.outputs) == "It is Maria Lopez."
    assert server.recogniser.texts == ["It is Maria Lopez."]
    assert server.counted == [("name", "flag", 1)]


async def test_in_shadow_a_model_that_has_much_to_do_is_not_waited_for() -> None:
    server = Server("It is Ann. So.", is_shadow=True)
    server.recogniser.be_busy()
    assert said(await server.answer()) == "It is Ann. So."
    assert (server.recogniser.texts, server.unread) == ([], ["busy"])
