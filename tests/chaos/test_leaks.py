"""What was to be kept back is seen to be found, wherever it is."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.checker import check_words
from tests.chaos.leaks import check_kept, check_told
from tests.chaos.planting import PAST, TURN, Tape, log_of, written
from tests.chaos.words import SECRET, answer_to, prompt, words_of

WORDS = words_of(TURN, PAST)


def whole() -> Tape:
    return Tape().connect().begin().words().end(answer_to(TURN, PAST))


def leaked() -> Tape:
    """A history in which it is shown, in two pieces."""
    return Tape().connect().begin().delta(SECRET[:5]).delta(SECRET[5:])


def test_what_was_to_be_kept_back_and_is_shown_is_found() -> None:
    assert [each.rule for each in check_told(leaked().history)] == ["I13"]
    assert list(check_told(whole().history)) == []


def test_what_was_to_be_kept_back_and_stands_in_a_log_is_found() -> None:
    log = log_of(*written(SECRET[:5], SECRET[5:], final="[email abc]"))
    assert [each.rule for each in check_kept(log)] == ["I13"]
    assert [each.rule for each in check_kept(log_of(*written(*WORDS, final=SECRET)))] == ["I13", "I13"]
    standing = replace(log_of(), standing=(("item", "assistant", SECRET),))
    assert [each.rule for each in check_kept(standing)] == ["I13"]
    assert list(check_kept(log_of(*written(*WORDS)))) == []


def test_an_answer_of_which_something_was_kept_back_is_that_answer() -> None:
    turn = prompt("k", 6, 0)
    said = answer_to(turn, PAST)
    assert SECRET in said
    assert check_words("here", turn, "completed", said.replace(SECRET, "[email abc]"), PAST) == []
    found = check_words("here", turn, "completed", said.replace(SECRET, "[email "), PAST)
    assert [each.rule for each in found] == ["I8"]


def test_a_node_that_takes_over_in_the_middle_of_it_must_not_show_the_rest() -> None:
    turn = prompt("k", 6, 0)
    said = answer_to(turn, PAST).replace(SECRET, SECRET[12:])
    assert [each.rule for each in check_words("here", turn, "completed", said, PAST)] == ["I8"]
