"""Where an answer ends because its client named a text that ends it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.agents.agent_contract import text_of
from unbroken.server.agents.base import AgentOutput, Finish, FunctionCallPiece, Usage, Working
from unbroken.server.agents.stops import Stops, until_stop

_LETTERS = st.text("ab", max_size=12)
_TEXTS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4)


def cut(pieces: Sequence[str], texts: Sequence[str]) -> tuple[list[str], bool]:
    stops = Stops(tuple(texts))
    passed: list[str] = []
    for piece in pieces:
        passed.append(stops.feed(piece))
        if stops.is_found:
            return passed, True
    return [*passed, stops.rest()], False


@given(pieces=st.lists(_LETTERS, max_size=12), texts=_TEXTS)
def test_an_answer_ends_at_the_first_text_however_it_is_cut(pieces: list[str], texts: list[str]) -> None:
    whole = "".join(pieces)
    places = [whole.find(text) for text in texts if text in whole]

    passed, is_found = cut(pieces, texts)

    assert is_found == bool(places)
    # Of those that are found when a piece has come: a longer one may begin earlier, and end later.
    assert whole.startswith("".join(passed))
    if not places:
        assert "".join(passed) == whole
    else:
        assert not any(text in "".join(passed) for text in texts)


@given(pieces=st.lists(_LETTERS, max_size=12), texts=_TEXTS)
def test_no_part_of_one_is_ever_passed_on(pieces: list[str], texts: list[str]) -> None:
    """So whoever goes on behind what was passed on finds the text whole."""
    whole, stops = "".join(pieces), Stops(tuple(texts))
    passed = ""
    for piece in pieces:
        passed += stops.feed(piece)
        if stops.is_found:
            break
        assert all(whole.find(text) in (-1, whole.find(text, len(passed))) for text in texts)


@given(pieces=st.lists(_LETTERS, max_size=8), text=st.text("ab", min_size=1, max_size=5))
def test_with_one_text_the_place_is_exact(pieces: list[str], text: str) -> None:
    whole = "".join(pieces)

    assert "".join(cut(pieces, [text])[0]) == whole.partition(text)[0]


async def outputs_of(*outputs: AgentOutput, closed: list[bool]) -> AsyncGenerator[AgentOutput, None]:
    try:
        for output in outputs:
            yield output
    finally:
        closed.append(True)


async def test_what_ends_an_answer_ends_the_work_too() -> None:
    closed: list[bool] = []
    source = outputs_of("one S", "TOP two", Usage(1, 9), closed=closed)

    outputs = [output async for output in until_stop(source, ("STOP",))]

    assert (outputs, closed) == (["one ", Finish("completed")], [True])


async def test_what_was_held_back_comes_ahead_of_a_call_and_at_the_end() -> None:
    call: Any = FunctionCallPiece(0, name="f")
    source = outputs_of("a S", Working(), call, "b S", closed=[])

    outputs = [output async for output in until_stop(source, ("STOP",))]

    assert outputs == ["a ", Working(), "S", call, "b ", "S"]


@pytest.mark.parametrize("texts", [(), ("never",)])
async def test_where_none_comes_nothing_changes(texts: tuple[str, ...]) -> None:
    outputs = [output async for output in until_stop(outputs_of("a ", "b", closed=[]), texts)]

    assert text_of(outputs) == "a b"
