"""What a session shows of itself, and what is made of it elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sessions.told import (
    ID,
    STATES,
    Driven,
    Told,
    ask,
    say,
    steps,
    told_in,
)
from unbroken.sessions.entries import (
    DeleteItem,
    ResponseQueued,
    UpdateConfig,
)
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.items import Concurrency, Message
from unbroken.sessions.response import Ongoing
from unbroken.sessions.session import Session, SessionLimits
from unbroken.sessions.turn import AttemptState

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
