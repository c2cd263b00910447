"""Responses of a session: several of them, cancels, and how they end."""

from __future__ import annotations

import pytest

from tests.sessions.told import (
    BUSY,
    CANCELLED,
    COMPLETED,
    FAILURE,
    Told,
    ask,
    kinds,
    say,
    told_in,
)
from unbroken.sessions.entries import (
    CancelAccepted,
    CancelResponse,
    DeleteItem,
    Deltas,
    HandleNoted,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseStarted,
    UpdateConfig,
)
from unbroken.sessions.ids import ItemId, ResponseId
from unbroken.sessions.items import Concurrency, Message, Text, Usage
from unbroken.sessions.response import Outcome
from unbroken.sessions.session import SessionLimits

# Several responses.


def test_queued_responses_start_one_by_one_in_order() -> None:
    told = Told(Concurrency.QUEUE)
    for name in ("r1", "r2", "r3"):
        told.do(ask(name))

    assert told.states() == {"r1": "starting", "r2": "queued", "r3": "queued"}
    assert told.promote() == []
    told.end("r1")
    (started,) = told.promote()
    assert isinstance(started, ResponseStarted)
    assert (started.response_id, started.turn) == ("r2", 4)
    assert told.promote() == []
    told.end("r2")
    told.promote()
    assert told.states() == {"r3": "starting"}


def test_a_queued_response_answers_what_had_been_said_when_it_was_asked_for() -> None:
    """And what was asked before it has been answered by then."""
    told = Told(Concurrency.QUEUE)
    for number in (1, 2, 3):
        told.do(say(f"u{number}"))
        told.do(ask(f"r{number}"))
    prompts: list[list[str]] = []
    for number in (1, 2, 3):
        prompts.append([item.id for item in told.session.prompt(ResponseId(f"r{number}"))])
        told.produce(f"r{number}", "answer")
        told.end(f"r{number}")
        told.promote()

    assert prompts == [
        ["u1"],
        ["u1", "answer_r1", "u2"],
        ["u1", "answer_r1", "u2", "answer_r2", "u3"],
    ]
    assert told.order() == ["u1", "answer_r1", "u2", "answer_r2", "u3", "answer_r3"]


def test_an_answer_stands_behind_what_it_answers_whatever_was_said_before_its_first_word() -> None:
    told = Told()
    told.do(say("u1"))
    told.do(ask("r1"))
    told.do(say("u2"))
    told.produce("r1", "late")
    told.end("r1")

    assert told.order() == ["u1", "answer_r1", "u2"]


def test_two_answers_to_the_same_message_stand_in_the_order_they_were_asked_for() -> None:
    for has_begun in (False, True):
        told = Told(Concurrency.QUEUE)
        told.do(say("u1"))
        told.do(ask("r1"))
        if has_begun:
            told.produce("r1", "first")
        told.do(ask("r2"))
        told.do(say("u2"))
        told.produce("r1", "first")
        told.end("r1")
        told.promote()
        assert [item.id for item in told.session.prompt(ResponseId("r2"))] == ["u1", "answer_r1"]
        told.produce("r2", "second")
        told.end("r2")

        assert told.order() == ["u1", "answer_r1", "answer_r2", "u2"]


def test_what_an_answer_was_to_stand_behind_may_be_deleted() -> None:
    told = Told(Concurrency.QUEUE)
    told.do(say("u1"))
    told.do(say("u2"))
    told.do(ask("r1"))
    told.do(say("u3"))
    told.do(DeleteItem("u2"))
    told.produce("r1", "answer")
    told.end("r1")

    assert told.order() == ["u1", "answer_r1", "u3"]
    told.do(ask("r2"))
    for name in told.order():
        told.do(DeleteItem(name))
    told.do(say("u4"))
    assert told.session.prompt(ResponseId("r2")) == ()
    told.produce("r2", "to nothing")
    assert told.end("r2")
    assert told.order() == ["answer_r2", "u4"]


def test_an_answer_reads_the_items_it_was_given_instead() -> None:
    told = told_in("item")
    given = (Message(ItemId("x"), "user", (Text("only this"),)),)
    told.do(ask("r1", beside=True, given=given))
    told.do(ask("r2", beside=True, given=()))

    assert told.session.prompt(ResponseId("r1")) == given
    assert told.session.prompt(ResponseId("r2")) == ()


def test_the_queue_is_bounded() -> None:
    told = Told(Concurrency.QUEUE, SessionLimits(queued=2))
    codes = [told.code_of(ask(f"r{n}")) for n in range(4)]

    assert codes == [None, None, None, "response_queue_full"]
    told.end("r0")
    told.promote()
    assert told.code_of(ask("r9")) is None


def test_responses_beside_the_conversation_are_bounded_and_do_not_wait() -> None:
    told = Told(limits=SessionLimits(beside=2))
    told.do(ask("r1"))
    codes = [told.code_of(ask(f"b{n}", beside=True)) for n in range(3)]

    assert codes == [None, None, "too_many_responses"]
    told.end("b0")
    assert told.code_of(ask("b9", beside=True)) is None
    assert told.code_of(ask("r2")) == BUSY


def test_a_response_beside_leaves_the_conversation_free() -> None:
    told = Told()
    told.do(ask("b1", beside=True))

    assert told.code_of(ask("r1")) is None
    told.produce("b1", "x")
    told.produce("r1", "y")
    told.end("b1")
    told.end("r1")
    assert told.order() == ["answer_r1"]


def test_interrupting_stops_all_that_runs_and_waits_and_puts_the_new_one_last() -> None:
    told = Told(Concurrency.QUEUE)
    told.do(ask("r1"))
    told.do(ask("r2"))
    told.do(ask("b1", beside=True))
    told.do(UpdateConfig(concurrency=Concurrency.INTERRUPT))

    bodies = told.do(ask("r3"))

    assert kinds(bodies) == ["CancelAccepted", "CancelAccepted", "ResponseQueued"]
    assert [body.reason for body in bodies if isinstance(body, CancelAccepted)] == ["superseded"] * 2
    assert told.states() == {"r1": "cancelling", "r2": "cancelling", "b1": "starting", "r3": "queued"}
    assert told.promote() == [], "not before the others have ended"
    (*_, done) = told.end("r1", CANCELLED)
    assert isinstance(done, ResponseDone)
    assert done.reason == "superseded"
    assert told.promote() == []
    told.end("r2", CANCELLED)
    assert kinds(told.promote()) == ["ResponseStarted"]


def test_interrupting_twice_asks_nothing_twice() -> None:
    told = Told(Concurrency.INTERRUPT)
    told.do(ask("r1"))
    told.do(ask("r2"))

    bodies = told.do(ask("r3"))

    assert [body.response_id for body in bodies if isinstance(body, CancelAccepted)] == ["r2"]


def test_an_idle_conversation_is_not_interrupted() -> None:
    assert kinds(Told(Concurrency.INTERRUPT).do(ask("r1"))) == ["ResponseStarted"]


# Cancelling.


def test_a_cancel_without_an_id_stops_the_conversation_and_what_waits() -> None:
    told = Told(Concurrency.QUEUE)
    told.do(ask("r1"))
    told.do(ask("r2"))
    told.do(ask("b1", beside=True))
    told.do(CancelResponse())

    assert told.states() == {"r1": "cancelling", "r2": "cancelling", "b1": "starting"}


def test_a_cancel_by_id_stops_that_one_alone() -> None:
    told = Told(Concurrency.QUEUE)
    for command in (ask("r1"), ask("r2"), ask("b1", beside=True)):
        told.do(command)
    told.do(CancelResponse("r2"))
    told.do(CancelResponse("b1"))

    assert told.states() == {"r1": "starting", "r2": "cancelling", "b1": "cancelling"}
    told.end("r2", CANCELLED)
    told.end("r1")
    assert told.promote() == []


def test_a_response_cancelled_while_it_waited_ends_without_having_begun() -> None:
    told = Told(Concurrency.QUEUE)
    told.do(ask("r1"))
    told.do(ask("r2", metadata={"k": "v"}))
    told.do(CancelResponse("r2"))

    (done,) = told.end("r2", CANCELLED)

    assert isinstance(done, ResponseDone)
    assert (done.status, done.ordinal, done.output, done.metadata) == ("cancelled", 0, (), {"k": "v"})


def test_a_cancel_by_the_id_of_one_that_was_cut_off_stops_the_attempt_that_stands_for_it() -> None:
    told = Told(Concurrency.QUEUE)
    told.do(ask("r1"))
    told.do(ask("other"))
    first = told.session.responses[ResponseId("r1")]
    for number, (name, again) in enumerate((("r1", "r2"), ("r2", "r3")), 2):
        told.end(name, Outcome(status="interrupted", failure=FAILURE))
        told.write(ResponseStarted(ResponseId(again), first.request, turn=first.turn, attempt=number))

    assert kinds(told.do(CancelResponse("r1"))) == ["CancelAccepted"]
    assert told.states() == {"other": "queued", "r3": "cancelling"}
    told.end("r3", CANCELLED)
    assert told.code_of(CancelResponse("r1")) == "response_cancel_not_active"


def test_a_second_cancel_is_harmless() -> None:
    told = told_in("cancelling")

    assert told.do(CancelResponse()) == []
    assert told.do(CancelResponse("r1")) == []
    assert not told.session.has_inputs
    assert kinds(told.end("r1", CANCELLED)) == ["OutputDone", "ResponseDone"]


# Ends.


@pytest.mark.parametrize(
    ("outcome", "item_status"),
    [
        (Outcome(status="completed", usage=Usage(3, 4, 1)), "completed"),
        (Outcome(status="incomplete", reason="max_output_tokens", usage=Usage(1, 1)), "incomplete"),
        (Outcome(status="failed", failure=FAILURE), "incomplete"),
        (Outcome(status="interrupted", failure=FAILURE), "incomplete"),
    ],
)
def test_an_end_holds_everything(outcome: Outcome, item_status: str) -> None:
    """The final entries hold the final text, so that codecs need no memory."""
    told = told_in("item")
    told.do(ask("r1", metadata={"k": "v"}))
    told.write(HandleNoted(ResponseId("r1"), "upstream_1", 1))
    told.produce("r1", "a", "bc")

    output, done = told.end("r1", outcome)

    assert isinstance(output, OutputDone)
    assert isinstance(done, ResponseDone)
    assert (output.item.text, output.item.status, output.previous) == ("abc", item_status, "u1")
    assert (output.ordinal, done.ordinal) == (5, 6)
    assert done.output == (output.item,)
    assert (done.status, done.reason, done.failure) == (outcome.status, outcome.reason, outcome.failure)
    assert done.usage == outcome.usage
    assert done.metadata == {"k": "v"}
    assert not told.session.is_running
    assert told.session.item("answer_r1") == output.item


@pytest.mark.parametrize(
    "outcome",
    [COMPLETED, Outcome(status="failed", failure=FAILURE), Outcome(status="incomplete", reason="x")],
)
def test_a_cancelled_response_ends_as_cancelled_whatever_it_came_to(outcome: Outcome) -> None:
    output, done = told_in("cancelling").end("r1", outcome)

    assert isinstance(output, OutputDone)
    assert isinstance(done, ResponseDone)
    assert output.item.status == "incomplete"
    assert (done.status, done.reason, done.failure) == ("cancelled", "client", None)


def test_the_loss_of_its_owner_outranks_a_cancel() -> None:
    (*_, done) = told_in("cancelling").end("r1", Outcome(status="interrupted", failure=FAILURE))

    assert isinstance(done, ResponseDone)
    assert (done.status, done.failure) == ("interrupted", FAILURE)


def test_an_answer_that_produced_nothing_has_no_item() -> None:
    told = told_in("starting")

    (done,) = told.end("r1")

    assert isinstance(done, ResponseDone)
    assert (done.output, done.ordinal) == ((), 1)
    assert told.order() == ["u1"]


def test_ordinals_count_the_entries_of_a_response() -> None:
    """Protocols that number a response's frames derive the numbers from them."""
    told = Told(Concurrency.QUEUE)
    told.do(ask("r1"))
    told.do(ask("r2"))
    told.produce("r1", "x")
    told.end("r1")
    told.promote()
    told.produce("r2", "a", "b")
    told.produce("r2", "c")
    told.end("r2")

    ordinals: list[tuple[str, int]] = []
    for entry in told.entries:
        body = entry.body
        if (
            isinstance(body, ResponseStarted | OutputStarted | Deltas | OutputDone | ResponseDone)
            and body.response_id == "r2"
        ):
            ordinals.append((type(body).__name__, body.ordinal))
    assert ordinals == [
        ("ResponseStarted", 0),
        ("OutputStarted", 1),
        ("Deltas", 2),
        ("Deltas", 4),
        ("OutputDone", 5),
        ("ResponseDone", 6),
    ]
