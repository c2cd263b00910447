"""An answer on its way through the reading of names: when time is up, it is cut short, or reading fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tests.server.guards.leaks.answering import Upstream, arguments, collect, notes, said, turn
from tests.server.guards.leaks.naming import ANN, KNOWN_AS, REDACTING, Server, settle
from unbroken.server.agents.base import AgentOutput, TurnInput, UpstreamCut
from unbroken.server.guards.leaks.recogniser import NamesUnread
from unbroken.server.guards.leaks.resumed import AnswerChanged
from unbroken.server.metrics import Metrics
from unbroken.server.pipeline import Pipeline
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import ToolHead
from unbroken.sessions.responder import (
    Finish,
    FunctionCallPiece,
    Output,
    ReasoningPiece,
    Resumption,
    ToolCallPiece,
    Turn,
)

# Time.


async def test_a_sentence_that_does_not_end_in_time_is_read_as_far_as_it_has_come() -> None:
    server = Server("It was Ann who called Maria Lo", waits=True)
    task = asyncio.ensure_future(server.answer())
    await settle()
    assert said(server.outputs) == "It was "
    server.clock.advance(2.0)
    await settle()
    assert said(server.outputs) == f"It was {ANN} who called ", "what may be half a name waits once more"
    server.clock.advance(2.0)
    await settle()
    assert said(server.outputs) == f"It was {ANN} who called {KNOWN_AS('name', 'maria')} Lo"

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert server.clock.pending == 0


async def test_an_ordinary_word_that_the_other_filter_let_go_of_late_leaves_then() -> None:
    server = Server("well, she is with ", "peop", waits=True)
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(0.5)
    await settle()

    assert said(server.outputs) == "well, she is with peop"
    assert server.recogniser.texts == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert server.clock.pending == 0


async def test_a_word_that_is_let_go_of_while_a_sentence_is_read_leaves_behind_it() -> None:
    server = Server("It is Ann. so then", waits=True)
    task = asyncio.ensure_future(server.answer())
    server.recogniser.hang()
    await settle()
    server.clock.advance(0.5)
    await settle()
    assert said(server.outputs) == ""
    server.recogniser.recover()
    await settle()
    server.clock.advance(0.5)
    await settle()

    assert said(server.outputs) == f"It is {ANN}. so then"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_name_that_blocks_when_time_is_up_ends_the_answer_of_a_silent_agent() -> None:
    server = Server("It was Ann who ", waits=True, actions={**REDACTING, "name": "block"})
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(2.0)
    await settle()

    assert task.done()
    assert said(await task) == "It was "
    assert server.outputs[-1] == Finish("content_filter")
    assert notes(server.outputs) == {"blocked": {"name": 1}}
    assert server.agent.is_closed
    assert server.clock.pending == 0
    assert task.cancelling() == 0


async def test_a_time_out_of_the_agents_own_is_its_failure() -> None:
    server = Server("It is Ann", TimeoutError("late"))
    with pytest.raises(TimeoutError, match="late"):
        await server.answer()

    assert said(server.outputs) == f"It is {ANN}"


async def test_a_resumed_answer_that_is_another_when_time_is_up_is_no_continuation_of_a_silent_agent() -> (
    None
):
    server = Server("It was Ann who ", waits=True)
    task = asyncio.ensure_future(
        server.answer(turn("", Resumption("upstream_1", 11, (), "It was Maria", ())))
    )
    await settle()
    server.clock.advance(2.0)
    await settle()

    assert task.done()
    with pytest.raises(AnswerChanged):
        await task
    assert said(server.outputs) == ""


async def test_a_word_that_the_other_filter_let_go_of_late_does_not_wait_for_ever() -> None:
    server = Server("It was Ann", waits=True)
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(0.5)
    await settle()
    assert said(server.outputs) == "It was "
    server.clock.advance(2.0)
    await settle()
    assert said(server.outputs) == f"It was {ANN}"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_each_sentence_has_its_own_time() -> None:
    server = Server("Is it Ann. Is it Maria", waits=True)
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(1.9)
    await settle()
    assert said(server.outputs) == f"Is it {ANN}. Is it "
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_one_that_time_has_cut_and_that_could_not_be_read_is_tried_again() -> None:
    server = Server("It was Ann who", waits=True)
    server.recogniser.fail()
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(2.0)
    await settle()
    assert (said(server.outputs), server.unread) == ("It was ", ["failed"])
    server.recogniser.recover()
    server.clock.advance(2.0)
    await settle()
    assert said(server.outputs) == f"It was {ANN} who"

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert server.clock.pending == 0


# Faults.


async def test_what_could_not_be_read_does_not_leave_and_the_answer_fails() -> None:
    server = Server("well, it is Ann. ", "More.")
    server.recogniser.fail()
    with pytest.raises(NamesUnread):
        await server.answer()

    assert said(server.outputs) == "well, it is "
    assert server.unread == ["failed"]
    assert server.agent.is_closed


async def test_or_it_leaves_and_is_counted_where_it_is_set_so() -> None:
    server = Server("It is Ann. ", "Ask Ann.", fails_closed=False)
    server.recogniser.fail()

    assert said(await server.answer()) == "It is Ann. Ask Ann."
    assert server.unread == ["failed", "failed"]


@pytest.mark.parametrize("ending", ["error", "cancel", "end"])
@pytest.mark.parametrize(("held", "left"), [("Ann", ANN), ("Maria Lo", f"{KNOWN_AS('name', 'maria')} Lo")])
async def test_what_is_held_leaves_at_the_end_redacted(ending: str, held: str, left: str) -> None:
    server = Server(
        f"It is {held}", *([UpstreamCut()] if ending == "error" else []), waits=ending == "cancel"
    )
    task = asyncio.ensure_future(server.answer())
    await settle()
    if ending == "cancel":
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert said(server.outputs) == f"It is {left}"
    assert server.clock.pending == 0


async def test_cancelled_while_a_sentence_is_read_none_of_it_is_lost_or_shown_unread() -> None:
    server = Server("It is Ann. ", waits=True)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    task.cancel()
    await asyncio.sleep(0)
    server.recogniser.recover()
    await asyncio.gather(task, return_exceptions=True)

    assert said(server.outputs) == f"It is {ANN}. "


@pytest.mark.parametrize("text", ["Ann came. and then 12345", "Ann came. " + "and so on. " * 300 + "12345"])
async def test_cancelled_while_a_sentence_is_read_what_follows_it_leaves_too(text: str) -> None:
    server = Server(text, waits=True)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    task.cancel()
    await settle()
    server.recogniser.recover()
    await asyncio.gather(task, return_exceptions=True)

    assert said(server.outputs) == text.replace("Ann", ANN)
    assert server.clock.pending == 0


async def test_cancelled_while_time_cuts_a_sentence_what_came_meanwhile_leaves() -> None:
    goes_on = asyncio.Event()

    class Hesitating(Upstream):
        async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
            yield "It is Ann who "
            await goes_on.wait()
            yield "called, and "
            await asyncio.Event().wait()

    server = Server()
    server.agent = Hesitating([])
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(2.0)
    await settle()
    goes_on.set()
    await settle()
    task.cancel()
    await settle()
    server.recogniser.recover()
    await asyncio.gather(task, return_exceptions=True)

    assert said(server.outputs) == f"It is {ANN} who called, and "


@pytest.mark.parametrize(
    "pieces",
    [
        [ReasoningPiece("it is Ann"), "so then"],
        ["it is Ann", ReasoningPiece("so then")],
        ["it is Ann", FunctionCallPiece(0, "so then", name="f")],
        ["it is Ann", ToolCallPiece(ItemId("item_1"), "so then", ToolHead("mail", "post"))],
    ],
)
async def test_cancelled_while_the_end_of_one_output_is_read_the_next_leaves_too(
    pieces: list[Output],
) -> None:
    async def spoken(_: Turn) -> AsyncGenerator[Output, None]:
        for piece in pieces:
            yield piece
        await asyncio.Event().wait()

    server, given = Server(), turn()
    given.interjection.take = server.outputs.append
    server.recogniser.hang()
    task = asyncio.ensure_future(collect(server.leaks.filtered(given, spoken), server.outputs))
    await settle()
    task.cancel()
    await settle()
    server.recogniser.recover()
    await asyncio.gather(task, return_exceptions=True)
    texts = [str(getattr(each, "text", "")) for each in server.outputs]

    assert said(server.outputs) + arguments(server.outputs) + "".join(texts) in (
        f"it is {ANN}so then",
        f"so thenit is {ANN}",  # thoughts come last here
    )


async def test_stopped_while_its_taker_has_no_room_what_is_held_leaves() -> None:
    server, given = Server("It is Ann", waits=True), turn()
    given.interjection.take = server.outputs.append
    answer = server.leaks.filtered(given, Pipeline(server.agent, Metrics(), server.clock).respond)
    server.outputs.append(await anext(answer))
    await answer.aclose()

    assert said(server.outputs) == f"It is {ANN}"
    assert server.clock.pending == 0


async def test_cancelled_by_its_user_an_answer_waits_for_no_model() -> None:
    """What comes after the cancel is dropped: nothing is read for that."""
    server, given = Server("It is Ann. And Maria", waits=True), turn()
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer(given))
    await settle()
    given.interjection.take = None
    task.cancel()
    await settle()

    assert task.done()
    assert said(server.outputs) == ""
    assert server.recogniser.texts == ["It is Ann."]
    assert server.clock.pending == 0


async def test_cancelled_with_a_model_that_hangs_what_is_held_is_dropped() -> None:
    server = Server("It is Ann. And", waits=True)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert said(server.outputs) == "It is "
