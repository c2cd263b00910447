from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.sessions.entries import (
    Body,
    CancelAccepted,
    CancelResponse,
    Command,
    ConfigUpdated,
    CreateItem,
    CreateResponse,
    DeleteItem,
    Deltas,
    Entry,
    Failure,
    HandleNoted,
    ItemAdded,
    ItemDeleted,
    OutputDone,
    OutputStarted,
    Refused,
    ResponseDone,
    ResponseQueued,
    ResponseStarted,
    SessionOpened,
    Submitted,
    TruncateItem,
    UpdateConfig,
)
from unbroken.sessions.errors import IllegalTransition, OutOfOrder, UnknownFormat
from unbroken.sessions.ids import ChainId, ItemId, Nonce, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import Concurrency, Message, ResponseRequest, SessionConfig, Text, Usage
from unbroken.sessions.outputs import Taken
from unbroken.sessions.response import Ongoing, Outcome
from unbroken.sessions.session import Session, SessionLimits
from unbroken.sessions.turn import AttemptState

ID: Final = SessionId("sess_1")
CHAIN: Final = ChainId("c1")
COMPLETED: Final = Outcome(status="completed")
CANCELLED: Final = Outcome(status="cancelled")
FAILURE: Final = Failure("agent_error", "The agent failed.")


class Told:
    """A session and the log it lives by: what it decides is written at once."""

    def __init__(self, policy: Concurrency = Concurrency.REJECT, limits: SessionLimits | None = None) -> None:
        self.session = Session(ID, limits or SessionLimits())
        self.entries: list[Entry] = []
        self.write(SessionOpened(PrincipalId("alice"), SessionConfig("m", concurrency=policy)))

    def write(self, *bodies: Body) -> None:
        for body in bodies:
            entry = Entry(self.session.applied + 1, Nonce(7), body)
            self.session.apply(entry)
            self.entries.append(entry)

    def submit(self, command: Command, event_id: str | None = None) -> int:
        self.write(Submitted(command, CHAIN, event_id))
        return self.session.applied

    def answer(self) -> list[Body]:
        seq, bodies = self.session.decide()
        self.write(*bodies)
        self.session.consume(seq)
        return bodies

    def do(self, command: Command) -> list[Body]:
        self.submit(command)
        return self.answer()

    def code_of(self, command: Command) -> str | None:
        """Do *command*, and return the code it was refused with."""
        bodies = self.do(command)
        return bodies[0].code if bodies and isinstance(bodies[0], Refused) else None

    def produce(self, name: str, *parts: str) -> None:
        response = self.session.responses[ResponseId(name)]
        item_id = ItemId(f"answer_{name}")
        if not response.outputs:
            begun = Taken(0, item_id, None, [])
            self.write(*self.session.write(response.id, [begun], response.ordinal))
        if parts:
            self.write(Deltas(response.id, item_id, list(parts), response.ordinal))

    def end(self, name: str, outcome: Outcome = COMPLETED) -> list[Body]:
        bodies = list(self.session.finish(ResponseId(name), outcome))
        self.write(*bodies)
        return bodies

    def promote(self) -> list[Body]:
        bodies = self.session.promote()
        self.write(*bodies)
        return bodies

    def order(self) -> list[str]:
        return [item.id for item in self.session.items()]

    def states(self) -> dict[str, str]:
        return {each.id: each.attempt.state.value for each in self.session.responses.values()}


def say(name: str, previous: str | None = None, text: str = "hello") -> CreateItem:
    return CreateItem(Message(ItemId(name), "user", (Text(text),)), previous)


def ask(
    name: str,
    *,
    beside: bool = False,
    metadata: dict[str, str] | None = None,
    given: tuple[Message, ...] | None = None,
) -> CreateResponse:
    request = ResponseRequest(in_conversation=not beside, metadata=metadata, input=given)
    return CreateResponse(ResponseId(name), request)


def kinds(bodies: list[Body]) -> list[str]:
    return [type(body).__name__ for body in bodies]


# Every command in every state of a conversation.


def told_in(state: str) -> Told:
    """Return a session in which response ``r1`` is in *state*; in all but the first there is item ``u1``."""
    told = Told()
    if state == "empty":
        return told
    told.do(say("u1"))
    if state == "item":
        return told
    told.do(ask("r1"))
    if state in ("streaming", "cancelling", "ended"):
        told.produce("r1", "a")
    if state == "cancelling":
        told.do(CancelResponse())
    if state == "ended":
        told.end("r1")
    return told


STATES: Final = ("empty", "item", "starting", "streaming", "cancelling", "ended")

BUSY: Final = "conversation_already_has_active_response"

OUTCOMES: Final[list[tuple[Command, tuple[str, ...]]]] = [
    # What is asked, and what follows in each of STATES: a kind of entry, nothing, or the code of a refusal.
    (say("u2"), ("ItemAdded",) * 6),
    (say("u1"), ("ItemAdded", *("item_id_taken",) * 5)),
    (say("u2", previous="u1"), ("item_not_found", *("ItemAdded",) * 5)),
    (say("answer_r1"), (*("ItemAdded",) * 3, *("item_id_taken",) * 3)),
    (DeleteItem("u1"), ("item_not_found", *("ItemDeleted",) * 5)),
    (
        DeleteItem("answer_r1"),
        (*("item_not_found",) * 3, "item_in_progress", "item_in_progress", "ItemDeleted"),
    ),
    (TruncateItem("answer_r1", 0, 500), (*("item_not_found",) * 3, *("unsupported_content_type",) * 3)),
    (TruncateItem("u1", 0, 0), ("item_not_found", *("unsupported_content_type",) * 5)),
    (UpdateConfig(instructions="x"), ("ConfigUpdated",) * 6),
    (ask("r2"), ("ResponseStarted", "ResponseStarted", BUSY, BUSY, BUSY, "ResponseStarted")),
    (ask("r2", beside=True), ("ResponseStarted",) * 6),
    (
        CancelResponse(),
        (
            "response_cancel_not_active",
            "response_cancel_not_active",
            "CancelAccepted",
            "CancelAccepted",
            "",
            "response_cancel_not_active",
        ),
    ),
    (
        CancelResponse("r1"),
        (
            "response_cancel_not_active",
            "response_cancel_not_active",
            "CancelAccepted",
            "CancelAccepted",
            "",
            "response_cancel_not_active",
        ),
    ),
    (CancelResponse("r9"), ("response_cancel_not_active",) * 6),
]


@pytest.mark.parametrize(
    ("state", "command", "expected"),
    [
        (state, command, outcome)
        for command, row in OUTCOMES
        for state, outcome in zip(STATES, row, strict=True)
    ],
)
def test_every_command_in_every_state(state: str, command: Command, expected: str) -> None:
    told = told_in(state)
    seq = told.submit(command, event_id="mine")
    before = told.session.snapshot()

    consumed, bodies = told.session.decide()

    assert told.session.snapshot() == before, "deciding changes nothing"
    assert consumed == seq
    names = [body.code if isinstance(body, Refused) else type(body).__name__ for body in bodies]
    assert names == ([expected] if expected else [])
    for body in bodies:
        if isinstance(body, Refused):
            assert (body.input, body.chain, body.event_id) == (seq, CHAIN, "mine")
    told.write(*bodies)
    told.session.consume(consumed)
    assert not told.session.has_inputs


@pytest.mark.parametrize(
    ("command", "param"),
    [
        (say("u1"), "item.id"),
        (say("u2", previous="gone"), "previous_item_id"),
        (DeleteItem("gone"), "item_id"),
        (DeleteItem("answer_r1"), "item_id"),
        (TruncateItem("gone", 0, 1), "item_id"),
        (TruncateItem("answer_r1", 0, 1), "item_id"),
        (CancelResponse("gone"), "response_id"),
        (ask("r2"), None),
    ],
)
def test_a_refusal_names_the_field_at_fault(command: Command, param: str | None) -> None:
    (refused,) = told_in("streaming").do(command)

    assert isinstance(refused, Refused)
    assert refused.param == param


@pytest.mark.parametrize(
    "command", [say("u2", previous="x" * 60_000), DeleteItem("x" * 60_000), CancelResponse("x" * 60_000)]
)
def test_a_refusal_stays_short_whatever_was_sent(command: Command) -> None:
    """Refusals are kept: one that quoted a whole frame would make a session as large as its client likes."""
    (refused,) = told_in("streaming").do(command)

    assert isinstance(refused, Refused)
    assert len(refused.message) < 300


def test_inputs_are_answered_in_the_order_of_the_log() -> None:
    told = Told()
    for command in (say("u1"), ask("r1"), CancelResponse()):
        told.submit(command)

    answers = [kinds(told.answer()) for _ in range(3)]

    assert answers == [["ItemAdded"], ["ResponseStarted"], ["CancelAccepted"]]
    assert not told.session.has_inputs
    assert told.session.consumed == 4


# The log.


def test_an_entry_out_of_sequence_changes_nothing() -> None:
    told = told_in("streaming")
    before = told.session.snapshot()
    applied = told.session.applied

    for seq in (applied, applied + 2):
        with pytest.raises(OutOfOrder, match=f"expected entry {applied + 1}, got {seq}"):
            told.session.apply(Entry(seq, Nonce(1), ItemDeleted(ItemId("u1"))))

    assert told.session.snapshot() == before


def test_an_entry_of_several_pieces_takes_up_as_many_numbers() -> None:
    told = told_in("streaming")
    before = told.session.applied
    told.produce("r1", "b", "c", "d")

    assert told.session.applied == before + 3


def test_a_piece_after_a_cancel_is_a_bug_that_shows() -> None:
    told = told_in("cancelling")
    with pytest.raises(IllegalTransition):
        told.produce("r1", "late")


def test_a_second_end_is_a_bug_that_shows() -> None:
    told = told_in("streaming")
    (*_, done) = told.end("r1")
    with pytest.raises(KeyError):
        told.write(done)


# Items.


def test_items_stand_where_they_were_put() -> None:
    told = Told()
    told.do(say("b"))
    told.do(say("d"))
    told.do(say("a", previous="root"))
    told.do(say("c", previous="b"))
    told.do(say("e"))

    assert told.order() == ["a", "b", "c", "d", "e"]


def test_where_an_item_is_put_is_in_the_log() -> None:
    """Whoever reads the log needs no memory of what stood where."""
    told = Told()
    bodies = [told.do(command)[0] for command in (say("b"), say("c"), say("a", previous="root"))]

    assert [body.previous for body in bodies if isinstance(body, ItemAdded)] == [None, "b", None]


def test_an_item_said_during_an_answer_comes_behind_it() -> None:
    told = told_in("streaming")
    told.do(say("u2"))
    told.end("r1")

    assert told.order() == ["u1", "answer_r1", "u2"]


def test_an_answer_keeps_its_place_when_what_it_stood_behind_is_deleted() -> None:
    told = told_in("streaming")
    told.do(say("u2"))
    told.do(DeleteItem("u1"))
    told.end("r1")

    assert told.order() == ["answer_r1", "u2"]


def test_a_deleted_item_gives_its_room_back() -> None:
    bare = Message(ItemId("i"), "user", (Text(""),)).size
    told = Told(limits=SessionLimits(conversation_bytes=2 * bare + 10))
    told.do(say("u1", text="éééé"))

    assert told.session.conversation_bytes == bare + 8
    assert told.code_of(say("u2", text="123")) == "conversation_full"
    assert told.code_of(say("u2", text="12")) is None
    told.do(DeleteItem("u1"))
    assert told.session.conversation_bytes == bare + 2
    assert told.code_of(say("u3", text="12345678")) is None


def test_items_without_text_take_room_too() -> None:
    """Else a conversation of nothing could fill the memory."""
    told = Told(limits=SessionLimits(conversation_bytes=100_000))
    codes = [told.code_of(say(f"u{n}", text="")) for n in range(1_000)]

    assert "conversation_full" in codes


def test_answers_count_towards_what_a_conversation_holds() -> None:
    bare = Message(ItemId("i"), "assistant", (Text(""),)).size
    told = Told(limits=SessionLimits(conversation_bytes=bare + 10))
    told.do(ask("r1"))
    told.produce("r1", "12345", "67890")
    told.end("r1")

    assert told.session.conversation_bytes == bare + 10
    assert told.code_of(say("u1", text="x")) == "conversation_full"
    assert told.code_of(ask("r2")) == "conversation_full"
    assert told.code_of(ask("r3", beside=True)) is None


def test_an_answer_beside_the_conversation_takes_none_of_its_room() -> None:
    told = Told()
    told.do(ask("r1", beside=True))
    told.produce("r1", "12345")
    told.end("r1")

    assert told.session.conversation_bytes == 0
    assert told.session.items() == []


def test_the_number_of_items_is_bounded() -> None:
    told = Told(limits=SessionLimits(items=2))

    assert [told.code_of(say(name)) for name in "abc"] == [None, None, "conversation_full"]
    told.do(DeleteItem("a"))
    assert told.code_of(say("c")) is None


def test_an_item_is_found_by_its_id() -> None:
    told = told_in("ended")

    found = told.session.item("answer_r1")

    assert found is not None
    assert (found.text, found.status) == ("a", "completed")
    assert told.session.item("gone") is None


def test_an_item_that_is_being_said_is_not_shown_as_whole() -> None:
    found = told_in("streaming").session.item("answer_r1")

    assert isinstance(found, Message)
    assert found.status == "in_progress"
    assert found.content == ()


# The configuration.


def test_what_a_change_leaves_out_stays() -> None:
    told = Told()
    told.do(UpdateConfig(instructions="be brief", max_output_tokens=5, concurrency=Concurrency.QUEUE))
    told.do(UpdateConfig(max_output_tokens=None))

    assert told.session.config == SessionConfig("m", "be brief", None, Concurrency.QUEUE)


def test_a_change_holds_from_the_next_input_on() -> None:
    told = told_in("streaming")

    assert told.code_of(ask("r2")) == BUSY
    (updated,) = told.do(UpdateConfig(concurrency=Concurrency.QUEUE))
    assert isinstance(updated, ConfigUpdated)
    assert told.code_of(ask("r3")) is None


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


# What is shown.


def test_what_stands_shows_the_answer_in_its_place_as_far_as_it_goes() -> None:
    told = told_in("streaming")
    told.produce("r1", "b")
    told.do(say("u2"))
    told.do(ask("b1", beside=True))
    told.do(ask("b2", beside=True))
    told.produce("b2", "z")

    shown = told.session.standing()

    assert [(each.response_id, each.text) if isinstance(each, Ongoing) else each.id for each in shown] == [
        "u1",
        ("r1", "ab"),
        "u2",
        ("b1", ""),
        ("b2", "z"),
    ]


def test_what_stands_shows_a_response_that_has_said_nothing_and_none_that_waits() -> None:
    told = Told(Concurrency.QUEUE)
    told.do(ask("r1"))
    told.do(ask("r2"))

    (shown,) = told.session.standing()

    assert isinstance(shown, Ongoing)
    assert (shown.response_id, shown.output, shown.request.in_conversation) == ("r1", None, True)


def test_the_oldest_running_response_marks_what_the_log_must_keep() -> None:
    told = Told(Concurrency.QUEUE)
    assert told.session.running_from is None
    told.do(ask("r1"))
    told.do(ask("r2"))
    assert told.session.running_from == 3
    told.end("r1")
    assert told.session.running_from == 5
    told.promote()
    assert told.session.running_from == 5


def test_refusals_are_kept_up_to_a_bound() -> None:
    told = Told()
    for _ in range(300):
        told.do(DeleteItem("gone"))

    inputs = list(told.session.refusals)
    assert len(inputs) == 256
    assert inputs[-1] == told.session.consumed


# Being moved.


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"v":1}', b"\xff", Told().session.snapshot().replace(b'"v":1', b'"v":2')],
)
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(UnknownFormat):
        Session.restore(ID, SessionLimits(), data)


@pytest.mark.parametrize("state", STATES)
def test_a_restored_session_shows_the_same(state: str) -> None:
    told = told_in(state)
    session = told.session

    twin = Session.restore(ID, session.limits, session.snapshot())

    assert twin.standing() == session.standing()
    assert twin.items() == session.items()
    assert twin.conversation_bytes == session.conversation_bytes
    assert twin.running_from == session.running_from
    assert (twin.applied, twin.consumed, twin.principal) == (session.applied, session.consumed, "alice")


NAMES: Final = ("a", "b", "c", "d")

commands: Final[st.SearchStrategy[Command]] = st.one_of(
    st.builds(
        say, st.sampled_from(NAMES), st.sampled_from([None, "root", *NAMES]), st.sampled_from(["", "é", "xy"])
    ),
    st.builds(DeleteItem, st.sampled_from([*NAMES, "answer_r1", "answer_r2"])),
    st.builds(UpdateConfig, instructions=st.sampled_from(["x", "y"])),
    st.builds(UpdateConfig, max_output_tokens=st.sampled_from([None, 3])),
    st.builds(UpdateConfig, concurrency=st.sampled_from(Concurrency)),
    st.builds(CancelResponse, st.sampled_from([None, "r1", "r2", "r3"])),
)

asks: Final = st.builds(lambda beside: ("ask", beside), st.booleans())
progress: Final = st.one_of(
    st.just(("answer",)),
    st.just(("promote",)),
    st.tuples(st.just("produce"), st.integers(0, 9), st.lists(st.sampled_from(["", "a", "é😀"]), max_size=3)),
    st.tuples(st.just("handle"), st.integers(0, 9)),
    st.tuples(
        st.just("end"),
        st.integers(0, 9),
        st.sampled_from(["completed", "failed", "cancelled", "interrupted"]),
    ),
)
steps: Final = st.lists(
    st.one_of(commands, asks, progress, progress, st.just(("answer",))), min_size=8, max_size=40
)


class Driven(Told):
    """A session that random steps are tried on; a step that can't be made now is skipped."""

    def __init__(self, policy: Concurrency) -> None:
        super().__init__(policy, SessionLimits(conversation_bytes=1_000, items=4, beside=2, queued=1))
        self.asked = 0

    def step(self, step: object) -> object:
        """Make one step, and return what the session decided."""
        responses = list(self.session.responses.values())
        match step:
            case ("ask", bool(beside)):
                self.asked += 1
                self.submit(ask(f"r{self.asked}", beside=beside), f"e{self.asked}")
            case ("answer",) if self.session.has_inputs:
                return self.answer()
            case ("promote",):
                return self.promote()
            case ("produce", int(index), list(parts)) if responses:
                response = responses[index % len(responses)]
                if response.attempt.state in (AttemptState.STARTING, AttemptState.STREAMING):
                    self.produce(response.id, *parts)
            case ("handle", int(index)) if responses:
                response = responses[index % len(responses)]
                if response.ordinal:
                    self.write(HandleNoted(response.id, "h", response.ordinal))
            case ("end", int(index), str(status)) if responses:
                response = responses[index % len(responses)]
                if response.attempt.state is AttemptState.QUEUED:
                    return None
                if status == "cancelled" and response.attempt.state is not AttemptState.CANCELLING:
                    return None
                return self.end(response.id, Outcome(status=status))  # type: ignore[arg-type]
            case CreateItem() | DeleteItem() | UpdateConfig() | CancelResponse():
                self.submit(step)
            case _:
                pass
        return None


@given(st.sampled_from(Concurrency), steps, steps)
def test_a_session_restored_at_any_moment_goes_on_as_the_first_would(
    policy: Concurrency, before: list[object], after: list[object]
) -> None:
    first = Driven(policy)
    for step in before:
        first.step(step)
    second = Driven(policy)
    second.session = Session.restore(ID, first.session.limits, first.session.snapshot())
    second.asked = first.asked

    assert second.session.snapshot() == first.session.snapshot()
    for step in after:
        assert first.step(step) == second.step(step)
    assert second.session.snapshot() == first.session.snapshot()
    assert second.session.standing() == first.session.standing()


def test_an_answer_of_nothing_but_an_empty_piece_ends_alike_after_a_restore() -> None:
    first, second = told_in("starting"), Told()
    first.produce("r1", "")
    second.session = Session.restore(ID, first.session.limits, first.session.snapshot())

    assert first.end("r1") == second.end("r1")


@given(st.sampled_from(Concurrency), steps)
def test_a_session_is_what_its_log_makes_of_it(policy: Concurrency, taken: list[object]) -> None:
    live = Driven(policy)
    for step in taken:
        live.step(step)
    rebuilt = Session(ID, live.session.limits)
    for entry in live.entries:
        rebuilt.apply(entry)
    rebuilt.consume(live.session.consumed)

    assert rebuilt.snapshot() == live.session.snapshot()


@given(st.sampled_from(Concurrency), steps)
def test_bounds_and_accounts_hold_whatever_happens(policy: Concurrency, taken: list[object]) -> None:
    live = Driven(policy)
    limits = live.session.limits
    for step in taken:
        live.step(step)
        session = live.session
        conversation = [each for each in session.responses.values() if each.request.in_conversation]
        active = [each for each in conversation if each.attempt.state is not AttemptState.QUEUED]
        beside = len(session.responses) - len(conversation)
        assert beside <= limits.beside
        assert sum(each.ordinal > 0 for each in active) <= 1, "two answers at once in the conversation"
        begun = [Message(said.item_id, "assistant", ()) for each in conversation for said in each.outputs]
        assert session.conversation_bytes == sum(item.size for item in [*session.items(), *begun])
        assert len({item.id for item in session.items()}) == len(session.items())


def test_a_queued_response_is_in_the_log_with_what_it_asked() -> None:
    told = told_in("streaming")
    told.do(UpdateConfig(concurrency=Concurrency.QUEUE))

    (queued,) = told.do(ask("r2", metadata={"k": "v"}))

    assert isinstance(queued, ResponseQueued)
    assert queued.request.metadata == {"k": "v"}
    assert queued.input == told.session.consumed
