from __future__ import annotations

from typing import Final

import pytest

from tests.sessions.told import (
    BUSY,
    CHAIN,
    STATES,
    Told,
    ask,
    kinds,
    say,
    together,
    told_in,
)
from unbroken.sessions.entries import (
    CancelResponse,
    Command,
    ConfigUpdated,
    DeleteItem,
    Entry,
    ItemAdded,
    ItemDeleted,
    Refused,
    TruncateItem,
    UpdateConfig,
)
from unbroken.sessions.errors import IllegalTransition, OutOfOrder
from unbroken.sessions.ids import ItemId, Nonce
from unbroken.sessions.items import Concurrency, Message, SessionConfig, Text
from unbroken.sessions.session import SessionLimits

OUTCOMES: Final[list[tuple[Command, tuple[str, ...]]]] = [
    # What is asked, and what follows in each of STATES: a kind of entry, nothing, or the code of a refusal.
    (say("u2"), ("ItemAdded",) * 6),
    (say("u1"), ("ItemAdded", *("item_id_taken",) * 5)),
    (say("u2", previous="u1"), ("item_not_found", *("ItemAdded",) * 5)),
    (together("u2"), ("ItemAdded",) * 6),
    (together("u1"), ("ItemAdded", *("item_id_taken",) * 5)),
    (together("u2", "answer_r1", "u2"), ("item_id_taken",) * 6),
    (together(), ("",) * 6),
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
