"""Each rule is seen to be broken, and a history in which none is passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos.checker import check_generations, check_history, check_words
from tests.chaos.history import Witness
from tests.chaos.logs import check_acknowledged, check_log, check_shown
from tests.chaos.planting import PAST, TURN, Tape, log_of, written
from tests.chaos.run import check_all
from tests.chaos.words import answer_to, digest, prompt, words_of
from unbroken.sessions.entries import CancelAccepted, Deltas, ItemAdded, ResponseDone, ResponseStarted
from unbroken.sessions.ids import ItemId, ResponseId
from unbroken.sessions.items import Message, ResponseRequest, Text

WORDS = words_of(TURN, PAST)
ANSWER = answer_to(TURN, PAST)


def rules(tape: Tape) -> list[str]:
    return [violation.rule for violation in check_history(tape.history)]


def whole(tape: Tape) -> Tape:
    return tape.connect().begin().words().end(ANSWER)


def test_a_whole_answer_passes() -> None:
    assert rules(whole(Tape())) == []


def test_an_answer_over_two_connections_passes() -> None:
    tape = Tape().connect().begin().words(1).lose().connect(after="x", resumed=True)
    assert rules(tape.delta(WORDS[1] + WORDS[2]).end(ANSWER)) == []


def test_an_answer_that_starts_over_with_a_snapshot_passes() -> None:
    tape = Tape().connect().begin().words(2).lose().connect(after="x", resumed=False)
    assert rules(tape.begin().delta(WORDS[0] + WORDS[1]).delta(WORDS[2]).end(ANSWER)) == []


def test_a_second_attempt_after_one_that_was_lost_passes() -> None:
    tape = Tape().connect().begin().words(1).end(WORDS[0], "interrupted")
    tape.begin("s")
    for word in WORDS:
        tape.delta(word, "s")
    assert rules(tape.end(ANSWER, response_id="s")) == []


PLANTED: dict[str, tuple[str, Callable[[Tape], object]]] = {
    "a word is lost": (
        "I8",
        lambda tape: tape.begin().delta(WORDS[0]).delta(WORDS[2]).end(WORDS[0] + WORDS[2]),
    ),
    "a word is doubled": (
        "I8",
        lambda tape: tape.begin().words().delta(WORDS[2]).end(ANSWER + WORDS[2]),
    ),
    "a word is altered": ("I8", lambda tape: tape.begin().delta("other ").end("other ")),
    "part of an answer is wrong": ("I8", lambda tape: tape.begin().delta("x").end("x", "cancelled")),
    "the pieces are not the text": ("I8", lambda tape: tape.begin().words(2).end(ANSWER)),
    "a piece comes after the end": ("I7", lambda tape: tape.begin().words().end(ANSWER).delta("more")),
    "the end comes twice": ("I7", lambda tape: tape.begin().words().end(ANSWER).end(ANSWER)),
    "the beginning comes twice": ("I1", lambda tape: tape.begin().begin().words().end(ANSWER)),
    "the beginning is left out": ("I1", lambda tape: tape.delta(WORDS[0])),
    "what was seen is seen again": ("I1", lambda tape: tape.begin().words().back(2).delta("").end(ANSWER)),
    "it is answered twice": (
        "I6",
        lambda tape: tape.begin().words().end(ANSWER).begin("s").end("", "failed", "s"),
    ),
    "it is answered twice at once": (
        "I6",
        lambda tape: tape.begin().begin("s").end("", "failed", "s").end(""),
    ),
    "it never ends": ("I12", lambda tape: tape.begin().words()),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_in_a_history_is_found(name: str) -> None:
    rule, plant = PLANTED[name]
    tape = Tape().connect()
    plant(tape)
    assert rule in rules(tape)


def test_another_log_under_a_connection_is_found() -> None:
    tape = whole(Tape())
    frame = next(tape.history.frames())
    tape.see({**frame, "type": "error", "event_id": "event_ffffffff.9.1.0"})
    assert rules(tape) == ["I1"]


def standing(text: str, **answers: str) -> list[str]:
    """Return what is found of a snapshot with that answer. *answers*: what is known to answer what."""
    tape = Tape().connect(after="x", resumed=False)
    asked = {"id": "i", "role": "user", "status": "completed", "content": [{"text": TURN}]}
    said = {"id": "j", "role": "assistant", "status": "completed", "content": [{"text": text}]}
    tape.next("conversation.item.done", item=asked, previous_item_id=None)
    tape.next("conversation.item.done", item=said, previous_item_id="i")
    return [violation.rule for violation in check_history(tape.history, answers=answers)]


def test_an_answer_in_a_snapshot_is_checked() -> None:
    assert standing(ANSWER) == []
    assert standing(ANSWER + WORDS[2]) == ["I8"]


def test_an_answer_to_something_else_in_a_snapshot_is_found() -> None:
    other = prompt("l", 3, 0)
    assert standing(answer_to(other, PAST)) == ["I8"]
    assert standing(ANSWER, j=TURN) == []
    assert standing(ANSWER, j=other) == ["I8"]


# Logs.


def log_rules(*bodies: object) -> list[str]:
    return [violation.rule for violation in check_log(log_of(*bodies))]  # type: ignore[arg-type]


def test_a_whole_log_passes() -> None:
    assert log_rules(*written(*WORDS)) == []


def test_a_log_with_a_second_attempt_passes() -> None:
    first = written(WORDS[0], status="interrupted")
    assert log_rules(*first, *written(*WORDS, response_id="s", attempt=2)) == []


def test_a_zombie_s_writes_are_found() -> None:
    """The owner of before goes on writing when its response has been ended in its stead."""
    zombie = Deltas(ResponseId("r"), ItemId("item-r"), [WORDS[1]], 5)
    assert log_rules(*written(WORDS[0], status="interrupted"), zombie) == ["I7"]


def test_pieces_after_a_cancel_are_found() -> None:
    begun, rest = written(*WORDS)[:3], written(*WORDS)[3:]
    assert "I7" in log_rules(*begun, CancelAccepted(ResponseId("r"), "client"), *rest)


def test_a_second_answer_is_found() -> None:
    assert "I6" in log_rules(*written(*WORDS), *written(*WORDS, response_id="s")[1:])


def test_an_input_that_was_taken_twice_is_found() -> None:
    assert "I5" in log_rules(*written(*WORDS), *written(*WORDS, response_id="s"))


def test_an_attempt_after_one_that_was_not_lost_is_found() -> None:
    again = ResponseStarted(ResponseId("s"), ResponseRequest(metadata={"turn": TURN}), turn=1, attempt=2)
    assert "I6" in log_rules(*written(*WORDS, status="failed"), again)


def test_a_final_text_that_is_not_that_of_its_pieces_is_found() -> None:
    assert log_rules(*written(*WORDS, final="other")) == ["I8"]


def test_an_end_that_is_missing_is_found() -> None:
    assert log_rules(*written(*WORDS)[:-1]) == ["I12"]


def test_a_gap_in_a_log_is_found() -> None:
    log = log_of(*written(*WORDS))
    del log.entries[2]
    assert "I1" in [violation.rule for violation in check_log(log)]


def test_a_log_that_can_t_be_read_to_its_end_is_found() -> None:
    log = replace(log_of(*written(*WORDS)), is_whole=False)
    assert [violation.rule for violation in check_log(log)] == ["I1"]


# Histories beside logs.


def shown() -> Tape:
    """A history that goes with the log of :func:`kept`."""
    tape = Tape().connect()
    tape.next("input").begin().next("response.output_item.added").words()
    return tape.next("response.output_text.done", response_id="r", item_id="item-r", text=ANSWER).end(ANSWER)


def test_a_history_that_the_log_holds_passes() -> None:
    assert list(check_shown(shown().history, log_of(*written(*WORDS)))) == []


def test_a_branch_that_the_log_doesn_t_hold_is_found() -> None:
    log = log_of(*written(*WORDS))
    log.entries[-1] = type(log.entries[-1])(log.entries[-1].seq, 7, log.entries[-1].body)  # type: ignore[arg-type]
    assert [violation.rule for violation in check_shown(shown().history, log)] == ["I2"]


def test_a_frame_that_was_left_out_is_found() -> None:
    tape = Tape().connect()
    tape.next("input").begin().back(-1).words().end(ANSWER)
    assert "I1" in [violation.rule for violation in check_shown(tape.history, log_of(*written(*WORDS)))]


def acknowledged() -> Tape:
    request = {"type": "response.create", "response": {"metadata": {"turn": TURN}}}
    return Tape().connect().send(request).begin().words().end(ANSWER)


def test_an_acknowledged_input_that_is_kept_passes() -> None:
    assert list(check_acknowledged(acknowledged().history, log_of(*written(*WORDS)))) == []


@pytest.mark.parametrize("is_there", [True, False])
def test_an_acknowledged_input_that_is_gone_is_found(is_there: bool) -> None:
    log = log_of() if is_there else None
    assert [violation.rule for violation in check_acknowledged(acknowledged().history, log)] == ["I9"]


def test_an_acknowledged_request_that_ended_while_it_waited_passes() -> None:
    ended = ResponseDone(ResponseId("r"), "interrupted", 0, metadata={"turn": TURN})
    assert list(check_acknowledged(acknowledged().history, log_of(ended))) == []


def test_an_acknowledged_input_that_is_gone_and_told_of_passes() -> None:
    tape = acknowledged().lose().connect(after="x", resumed=False)
    assert list(check_acknowledged(tape.history, log_of())) == []


@pytest.mark.parametrize(("told", "found"), [({}, ["I9"]), ({"durable": False}, [])])
def test_a_session_that_is_gone_is_found_unless_it_was_said_not_to_be_saved(
    told: dict[str, bool], found: list[str]
) -> None:
    tape = Tape().connect()
    tape.see({"type": "session.updated", "session": {"unbroken": told}, "event_id": "event_0.0.0.0-own"})
    person = Witness("p", [tape.history], {}, ["session_not_found"])
    assert [each.rule for each in check_all([person], {}, left=set(), may_lose=False)] == found


# What agents were asked for.


def test_what_is_produced_twice_is_found() -> None:
    found = check_generations([("r", "k"), ("r", "k"), ("s", "k")], {"r": "k", "s": "k"}, may_drop=False)
    assert [violation.where for violation in found] == ["r"]


def test_what_is_produced_and_told_to_nobody_is_found() -> None:
    journal = [("r", "k"), ("s", "k")]
    found = check_generations(journal, {"r": "k"}, may_drop=False)
    assert [violation.where for violation in found] == ["s"]
    assert list(check_generations(journal, {"r": "k"}, may_drop=True)) == []


def test_what_is_produced_for_another_turn_is_found() -> None:
    found = check_generations([("r", "k")], {"r": "l"}, may_drop=True)
    assert [violation.rule for violation in found] == ["I6"]


def test_what_a_log_has_but_the_end_of_is_told_to_somebody() -> None:
    """The log of a session that rests with nobody connected has forgotten the beginning."""
    assert log_of(*written(*WORDS)[-1:], floor=5).turns() == {"r": TURN}


# What the agent was told.

HELLO = prompt("h", 1, 0)


def talked(past: str, *, previous: str | None = "i") -> list[str]:
    """Return what is found where an answer to the second question knows of *past*."""
    tape = Tape().connect().item("h", "user", HELLO, None).item("i", "user", TURN, previous and "h")
    tape.begin().item("item-r", "assistant", "", previous)
    for word in words_of(TURN, past):
        tape.delta(word)
    return rules(tape.end(answer_to(TURN, past)))


def test_an_answer_that_knows_all_that_was_said_passes() -> None:
    assert talked(digest([("user", HELLO), ("user", TURN)])) == []


@pytest.mark.parametrize(
    "told",
    [
        [("user", TURN)],
        [("user", TURN), ("user", HELLO)],
        [("assistant", HELLO), ("user", TURN)],
        [("user", HELLO), ("user", TURN), ("user", TURN)],
    ],
    ids=["forgotten", "in another order", "another's", "twice"],
)
def test_an_answer_to_another_conversation_is_found(told: list[tuple[str, str]]) -> None:
    assert set(talked(digest(told))) == {"I8"}


@pytest.mark.parametrize(
    ("status", "rules"), [("completed", ["I8"]), ("failed", []), ("cancelled", []), ("interrupted", [])]
)
@pytest.mark.parametrize("count", [0, 3])
def test_an_answer_whose_agent_failed_is_not_whole(count: int, status: str, rules: list[str]) -> None:
    turn = prompt("k", count, 0, fails=True)
    found = check_words("here", turn, status, answer_to(turn, PAST), PAST)
    assert [violation.rule for violation in found] == rules


def test_words_of_two_attempts_are_not_one_answer() -> None:
    other = words_of(TURN, digest([]))
    tape = Tape().connect().begin().delta(WORDS[0]).delta(other[1]).delta(other[2])
    assert "I8" in rules(tape.end(WORDS[0] + other[1] + other[2]))


def heard(past: str, *, standing: tuple[tuple[str, str, str], ...] = ()) -> list[str]:
    """Return what is found of a log in which an answer knows of *past*."""
    asked = ItemAdded(Message(ItemId("i"), "user", (Text(TURN),)), ItemId("h") if standing else None)
    log = log_of(asked, *written(*words_of(TURN, past), previous=ItemId("i")))
    return [violation.rule for violation in check_log(replace(log, standing=standing))]


def test_a_log_s_answer_that_knows_all_that_was_said_passes() -> None:
    assert heard(digest([("user", TURN)])) == []
    assert heard(digest([("user", HELLO), ("user", TURN)]), standing=(("h", "user", HELLO),)) == []


def test_a_log_s_answer_to_another_conversation_is_found() -> None:
    assert heard(digest([("user", HELLO), ("user", TURN)])) == ["I8"]
    assert heard(digest([("user", TURN)]), standing=(("h", "user", HELLO),)) == ["I8"]


def test_a_log_that_grows_without_bound_is_found() -> None:
    log = log_of(*written(*WORDS))
    assert check_log(log) == []
    for grown in (replace(log, names=2000), replace(log, bytes=20 << 20)):
        assert [violation.rule for violation in check_log(grown)] == ["I10"]
