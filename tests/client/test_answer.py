"""Whoever takes the pieces of an answer has its text: however it is said, settled, dropped and moved."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from unbroken.client.answer import Answer, Restarted

ITEMS = st.sampled_from(["a", "b", "c"])
TEXTS = st.text(max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), ITEMS, TEXTS),
        st.tuples(st.just("settle"), ITEMS, TEXTS),
        st.tuples(st.just("drop"), ITEMS, TEXTS),
        st.tuples(st.sampled_from(["hold", "release", "take", "move"]), ITEMS, TEXTS),
    )
)


@example([("say", "b", ""), ("say", "a", "1"), ("say", "b", "0"), ("take", "a", "")])
@example([("say", "a", "1"), ("say", "b", "2"), ("take", "a", ""), ("say", "a", "3"), ("take", "a", "")])
@given(STEPS)
def test_its_reader_has_the_text(steps: list[tuple[str, str, str]]) -> None:
    answer, read, is_held = Answer(), "", False
    for step, item, text in steps:
        match step:
            case "say":
                answer.say(item, text)
            case "settle":
                answer.settle(item, text)
            case "drop":
                answer.drop([item])
            case "hold":
                answer.hold()
                is_held = True
            case "release":
                answer.release()
                is_held = False
            case "move":
                answer = Answer.restore(json.loads(json.dumps(answer.state())))
                is_held = False
            case _:
                piece = answer.take()
                assert piece != ""
                assert not (is_held and piece)
                read = piece.text if isinstance(piece, Restarted) else read + (piece or "")
                assert is_held or read == answer.text
        assert answer.size == len(answer.text)


def test_who_has_read_nothing_is_told_of_no_restart() -> None:
    answer = Answer()
    answer.say("a", "one")
    answer.drop(["a"])
    answer.say("b", "two")

    assert answer.take() == "two"
    assert answer.take() is None


def test_what_is_void_is_said_to_be() -> None:
    answer = Answer()
    answer.say("a", "one")
    assert answer.take() == "one"
    answer.drop(["a"])
    assert answer.take() == Restarted("")
    answer.say("b", "two")

    assert answer.take() == "two"


def test_a_text_that_is_as_it_was_said_restarts_nothing() -> None:
    answer = Answer()
    answer.say("a", "one")
    answer.settle("a", "one")
    assert answer.take() == "one"
    answer.settle("b", " and another")
    assert answer.take() == " and another"
    answer.settle("a", "One")

    assert answer.take() == Restarted("One and another")
