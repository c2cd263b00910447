from __future__ import annotations

from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import ApprovalHead, CallHead, Head, ReasoningHead, ToolHead
from unbroken.sessions.outputs import Outputs, Taken
from unbroken.sessions.responder import (
    AsksApproval,
    FunctionCallPiece,
    ReasoningPiece,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
)

Piece: TypeAlias = str | FunctionCallPiece | ReasoningPiece | ToolCallPiece

A, B = ItemId("item_a"), ItemId("item_b")
MAIL = ToolHead("mail", "tools")


def feed(outputs: Outputs, *pieces: Piece) -> bool:
    """Take all in, and say whether there was room."""
    return all(outputs.add_text(each) if isinstance(each, str) else outputs.add(each) for each in pieces)


def shown(news: list[Taken]) -> list[tuple[int, type[Head] | None, str, bool]]:
    return [
        (each.index, None if each.head is None else type(each.head), "".join(each.pieces), each.is_ended)
        for each in news
    ]


def test_each_change_of_kind_begins_an_output_and_ends_what_was_said() -> None:
    outputs = Outputs(10_000)
    feed(outputs, ReasoningPiece("Hm"), "One", " two", ToolCallPiece(A, "{}", MAIL), "three")

    assert shown(outputs.take()) == [
        (0, ReasoningHead, "Hm", True),
        (1, None, "One two", True),
        (2, ToolHead, "{}", False),
        (3, None, "three", False),
    ]
    assert not outputs
    feed(outputs, " four", ReasoningPiece("so"))
    assert shown(outputs.take()) == [(3, None, " four", True), (4, ReasoningHead, "so", False)]


def test_function_calls_stay_open_whatever_follows() -> None:
    outputs = Outputs(10_000)
    feed(outputs, FunctionCallPiece(0, "{", "k", "f"), "text", FunctionCallPiece(0, "}"))

    assert shown(outputs.take()) == [(0, CallHead, "{}", False), (1, None, "text", False)]


def test_a_call_of_a_tool_is_run_and_ends_with_its_result() -> None:
    outputs = Outputs(10_000)
    feed(outputs, ToolCallPiece(A, "{}", MAIL), ToolCallPiece(B, "", MAIL))
    outputs.take()
    outputs.run(RunsTools((A, B)))
    assert [(each.item_id, each.is_run, each.is_ended) for each in outputs.take()] == [
        (A, True, False),
        (B, True, False),
    ]
    outputs.end_tool(ended := ToolEnded(B, "sent"))
    (taken,) = outputs.take()
    assert (taken.item_id, taken.is_run, taken.is_ended, taken.result) == (B, False, True, ended)

    with pytest.raises(KeyError):
        outputs.end_tool(ended)
    with pytest.raises(KeyError):
        outputs.run(RunsTools((B,)))
    with pytest.raises(ValueError, match="says which tool it is"):
        outputs.add(ToolCallPiece(B, "{}"))


def test_a_request_for_approval_is_whole_at_once_and_counts() -> None:
    head = ApprovalHead("mail", "tools", "{" + 100 * " " + "}")
    outputs = Outputs(700)

    assert outputs.ask(AsksApproval(A, head))
    assert not outputs.ask(AsksApproval(B, head))
    (taken,) = outputs.take()
    assert (taken.item_id, taken.head, taken.is_ended) == (A, head, True)


def test_reasoning_counts_as_a_part_of_the_answer() -> None:
    outputs = Outputs(600)

    assert not feed(outputs, ReasoningPiece("x" * 80), "y" * 80)
    assert shown(outputs.take()) == [(0, ReasoningHead, "x" * 80, True)]


def test_a_thousand_little_outputs_are_too_much() -> None:
    outputs = Outputs(64 * 1024)
    pieces: list[Piece] = [ReasoningPiece("x"), "y"]

    assert not feed(outputs, *pieces * 500)
    assert len(outputs.take()) <= 130


words = st.text(max_size=3)
numbers = st.integers(0, 1)
pieces = st.one_of(
    words.filter(bool),
    st.builds(ReasoningPiece, words.filter(bool)),
    st.builds(lambda n, text: FunctionCallPiece(n, text, f"k{n}", "f"), numbers, words),
    st.builds(lambda n, text: ToolCallPiece(ItemId(f"t{n}"), text, MAIL), numbers, words),
)


@given(st.lists(pieces, max_size=30), st.sets(st.integers(0, 30)))
def test_however_it_is_taken_the_outputs_are_the_same(said: list[Piece], taken_at: set[int]) -> None:
    """Nothing is lost or doubled between two takes, and none is said to end twice."""
    bit_by_bit, at_once = Outputs(10**6), Outputs(10**6)
    news: list[Taken] = []
    for number, piece in enumerate(said):
        feed(bit_by_bit, piece)
        feed(at_once, piece)
        if number in taken_at:
            news += bit_by_bit.take()
    for outputs in (bit_by_bit, at_once):
        outputs.complete(is_whole=False)
    news += bit_by_bit.take()
    whole = at_once.take()

    joined: dict[int, str] = {}
    ends: list[int] = []
    for taken in news:
        if taken.index not in joined:
            assert taken.index == len(joined), "they begin in order"
        joined[taken.index] = joined.get(taken.index, "") + "".join(taken.pieces)
        ends += [taken.index] if taken.is_ended else []
    assert joined == {taken.index: "".join(taken.pieces) for taken in whole}
    assert sorted(ends) == [taken.index for taken in whole if taken.is_ended]
    assert len(set(ends)) == len(ends)
