"""Names and addresses in answers, from a scripted agent through the pipeline, read by a scripted model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.guards.leaks.answering import arguments, notes, said, turn
from tests.server.guards.leaks.naming import (
    ANN,
    CARD,
    MARIA,
    PLACES,
    REDACTING,
    STREET,
    Server,
    answered,
    settle,
)
from tests.server.guards.leaks.samples import SAMPLES, cut
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS
from unbroken.server.guards.leaks.resumed import AnswerChanged
from unbroken.sessions.ids import ItemId, PrincipalId
from unbroken.sessions.items import ApprovalHead, ToolHead
from unbroken.sessions.responder import (
    AsksApproval,
    Finish,
    FunctionCallPiece,
    ReasoningPiece,
    Resumption,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
    Working,
)


async def test_names_and_addresses_are_replaced_and_told_by_kind_and_a_town_is_not() -> None:
    outputs = await answered(
        "Write to Maria Lo", "pez, 12 High Street, Lon", "don. The capital of France is Paris.", Finish()
    )

    assert said(outputs) == f"Write to {MARIA}, {STREET}. The capital of France is Paris."
    assert notes(outputs) == {"redacted": {"address": 1, "name": 1}}
    assert outputs[-1] == Finish()
    assert "Lo" not in repr(outputs).replace("'content_filter'", "")


WORDS: Final = "Maria Lopez|Ann|Dr. John Smith|at 12 High Street, London|Paris|the|It is|so.|Émile|用户|4"

OTHERS: Final = ["😀", "\n", "\ud83d", "x" * 600, *(sample for _, sample in SAMPLES)]

TEXTS: Final = st.lists(st.sampled_from([*WORDS.split("|"), *OTHERS]), max_size=14).map(" ".join)


@given(text=TEXTS, places=PLACES)
@settings(max_examples=15 * settings().max_examples // 10, deadline=None)
def test_however_the_answer_is_cut_what_leaves_is_the_same(text: str, places: list[int]) -> None:
    whole = said(asyncio.run(answered(text)))

    assert said(asyncio.run(answered(*cut(text, places)))) == whole
    assert said(asyncio.run(answered(*text))) == whole
    assert not any(name in whole for name in ("Maria", "Lopez", "Smith", "High Street"))


@pytest.mark.parametrize("name", ["Maria Lopez", "Dr. Ann Lee", "12 High Street, London"])
def test_split_at_every_place_no_part_of_a_name_leaves(name: str) -> None:
    text = f"Well, {name}'s it is."
    whole = said(asyncio.run(answered(text)))

    assert not set(name.replace(",", "").split()[-2:]) & set(whole.replace("'s", "").split())
    for place in range(len(text)):
        assert said(asyncio.run(answered(text[:place], text[place:]))) == whole


async def test_a_name_has_one_placeholder_in_a_session() -> None:
    outputs = await answered("Ann and ANN? ", "Maria Lopez. Ann's. Mr. Ann.")
    assert said(outputs) == f"{ANN} and ANN? {MARIA}. {ANN}'s. Mr. {ANN}."


async def test_what_has_a_form_is_found_first_and_no_name_takes_anything_from_it() -> None:
    outputs = await answered("Ann pays with 4111 1111 1111 1111, and ", "ann.lee@example.com is hers. Bye")

    assert said(outputs) == f"{ANN} pays with {CARD}, and ann.lee@example.com is hers. Bye"
    assert notes(outputs) == {"redacted": {"card": 1, "name": 1}}


async def test_before_the_first_capital_letter_nothing_waits() -> None:
    server = Server("well, she is with ", "Ann now, and ", waits=True)
    task = asyncio.ensure_future(server.answer())
    await settle()

    assert said(server.outputs) == "well, she is with "
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert said(server.outputs) == f"well, she is with {ANN} now, and "


async def test_a_name_that_blocks_ends_the_answer_and_the_agent_is_closed() -> None:
    server = Server("It was Ann who did it. ", "More.", actions={**REDACTING, "name": "block"})
    outputs = await server.answer()

    assert said(outputs) == "It was "
    assert outputs[-1] == Finish("content_filter")
    assert notes(outputs) == {"blocked": {"name": 1}}
    assert server.agent.is_closed
    assert server.counted == [("name", "block", 1)]


async def test_a_name_that_blocks_at_the_very_end_does_so_too() -> None:
    outputs = await answered("It was Ann", Finish(), actions={**REDACTING, "name": "block"})
    assert (said(outputs), outputs[-1]) == ("It was ", Finish("content_filter"))


async def test_where_nobody_looks_for_names_no_model_is_asked() -> None:
    server = Server("It is Ann.", actions=DEFAULT_ACTIONS)
    assert said(await server.answer()) == "It is Ann."
    assert server.recogniser.texts == []


async def test_sentences_are_read_on_behalf_of_whoever_asked() -> None:
    server = Server("It is Ann.")
    await server.answer(replace(turn(), principal=PrincipalId("bob")))
    assert server.recogniser.principals == {"bob"}
    await server.leaks.finds(turn(), "It is Ann.")
    assert server.recogniser.principals == {"bob", "alice"}


# Calls, thoughts, tools, and resuming.


CALL: Final = json.dumps(
    {"to": "Maria Lopez", "at": "12 High Street, London", "n": 12, "body": "Dear Ann,\nbye"}
)


@given(places=st.lists(st.integers(0, 120), max_size=8))
@settings(deadline=None)
def test_the_arguments_of_calls_stay_json_however_they_come(places: list[int]) -> None:
    pieces = [
        FunctionCallPiece(0, piece, name="" if number else "send")
        for number, piece in enumerate(cut(CALL, places))
    ]
    outputs = asyncio.run(answered("Ok Ann", *pieces, Finish()))
    calls = [each for each in outputs if isinstance(each, FunctionCallPiece)]

    assert json.loads(arguments(outputs)) == {"to": MARIA, "at": STREET, "n": 12, "body": f"Dear {ANN},\nbye"}
    assert calls[0].name == "send"
    assert said(outputs[: outputs.index(calls[0])]) == f"Ok {ANN}"


async def test_a_tools_call_is_written_redacted_before_it_is_run_and_its_result_where_set() -> None:
    item = ItemId("item_1")
    outputs = await answered(
        ToolCallPiece(item, '{"to": "Ann', ToolHead("mail", "post")), ToolCallPiece(item, '"}'),
        RunsTools((item,)), ToolEnded(item, "Sent to Ann."), "Done.", tool_outputs=True,
    )  # fmt: skip
    place = next(number for number, output in enumerate(outputs) if isinstance(output, RunsTools))

    assert arguments(outputs[:place]) == f'{{"to": "{ANN}"}}'
    assert ToolEnded(item, f"Sent to {ANN}.") in outputs


async def test_a_call_that_waits_for_approval_is_shown_redacted() -> None:
    outputs = await answered(AsksApproval(ItemId("item_1"), ApprovalHead("pay", "bank", '{"to": "Ann"}')))
    heads = [each.head.arguments for each in outputs if isinstance(each, AsksApproval)]
    assert heads == [f'{{"to": "{ANN}"}}']


async def test_a_call_whose_arguments_block_is_never_run() -> None:
    item = ItemId("item_1")
    outputs = await answered(
        ToolCallPiece(item, '{"to": "Ann"}', ToolHead("pay", "bank")),
        RunsTools((item,)),
        actions={**REDACTING, "name": "block"},
    )

    assert not any(isinstance(output, RunsTools) for output in outputs)
    assert outputs[-1] == Finish("content_filter")


async def test_thoughts_are_read_and_end_where_words_begin() -> None:
    outputs = await answered(ReasoningPiece("it is An"), ReasoningPiece("n"), "Ann", Working())
    thought = "".join(each.text for each in outputs if isinstance(each, ReasoningPiece))

    assert (thought, said(outputs)) == (f"it is {ANN}", ANN)
    assert Working() in outputs


@given(text=TEXTS, first=PLACES, then=PLACES, taken=st.integers(0, 30))
@settings(max_examples=6 * settings().max_examples // 10, deadline=None)
def test_a_resumed_answer_goes_on_at_the_very_character(
    text: str, first: list[int], then: list[int], taken: int
) -> None:
    whole = said(asyncio.run(answered(text)))
    written = said(asyncio.run(answered(*cut(text, first)))[: taken + 1])
    server = Server(*cut(text, then))
    resumption = Resumption("upstream_1", len(written), (), written, ())

    assert written + said(asyncio.run(server.answer(turn("", resumption)))) == whole


async def test_a_resumed_answer_that_is_not_what_it_was_is_no_continuation() -> None:
    server = Server("It is Ann. And so on.")
    with pytest.raises(AnswerChanged):
        await server.answer(turn("", Resumption("upstream_1", 9, (), "It is Ann", ())))

    assert said(server.outputs) == ""


async def test_a_resumed_call_goes_on_too() -> None:
    pieces: Sequence[FunctionCallPiece] = [
        FunctionCallPiece(0, part, name="f") for part in ('{"a": "An', 'n", "b": "x', 'y"}')
    ]
    known = f'{{"a": "{ANN}", '
    server = Server(*pieces, Finish())
    outputs = await server.answer(turn("", Resumption("upstream_1", 0, (len(known),), "", (known,))))

    assert known + arguments(outputs) == f'{{"a": "{ANN}", "b": "xy"}}'
