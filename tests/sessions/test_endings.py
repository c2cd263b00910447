"""What a session remembers of responses that have ended, and where its log has what it has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.sessions.told import ID, Driven, Told, ask, say, steps
from unbroken.sessions.endings import Ended, Endings
from unbroken.sessions.entries import (
    Body,
    CreateResponse,
    Deltas,
    ResponseDone,
    ResponseStarted,
    Submitted,
    numbered,
)
from unbroken.sessions.event_log import EventLog
from unbroken.sessions.ids import ChainId, Incarnation, ItemId, Nonce, ResponseId
from unbroken.sessions.items import Concurrency, ResponseRequest
from unbroken.sessions.session import Session


def ended(number: int, metadata: dict[str, str] | None = None) -> Ended:
    return Ended(ResponseId(f"r{number}"), "completed", None, None, metadata=metadata)


@given(st.lists(st.integers(0, 4_000), max_size=80))
def test_what_is_remembered_is_bounded_in_number_and_bytes(sizes: list[int]) -> None:
    endings = Endings()
    for number, size in enumerate(sizes):
        endings.note(ended(number, {"said": "x" * size}))

    kept = list(endings)
    assert [each.id for each in kept] == [f"r{number}" for number in range(len(sizes))][
        -len(kept) or len(sizes) :
    ]
    assert len(kept) <= 32
    assert endings.size == sum(each.size for each in kept)
    assert endings.size <= 16 * 1024 or len(kept) == 1
    assert bool(kept) is bool(sizes), "of the last one there is always one"


def test_a_response_is_known_when_it_has_ended() -> None:
    told = Told()
    told.do(say("u1"))
    told.do(ask("r1"))
    told.produce("r1", "a")
    assert told.session.endings.get("r1") is None
    told.end("r1")

    known = told.session.endings.get("r1")
    assert known is not None
    assert (known.status, known.anchor, known.output) == ("completed", "u1", (known.end,))
    assert known.end is not None
    assert told.session.item(known.end) is not None


def test_one_beside_the_conversation_isnt_remembered() -> None:
    told = Told()
    told.do(ask("b1", beside=True))
    told.produce("b1", "a")
    told.end("b1")

    assert told.session.endings.get("b1") is None


@given(st.sampled_from(Concurrency), steps)
def test_what_is_remembered_moves_with_the_session(policy: Concurrency, taken: list[object]) -> None:
    driven = Driven(policy)
    for step in taken:
        driven.step(step)
    session = driven.session
    restored = Session.restore(ID, session.limits, session.snapshot())

    assert list(restored.endings) == list(session.endings)
    assert restored.endings.size == session.endings.size


def test_a_log_says_where_responses_and_inputs_are() -> None:
    request = ResponseRequest()
    created = Submitted(CreateResponse(ResponseId("r1"), request), ChainId("c"))
    log = EventLog(Incarnation("00000001"))
    bodies: list[Body] = [
        created,
        ResponseStarted(ResponseId("r1"), request, turn=1),
        Deltas(ResponseId("r1"), ItemId("i"), ["a", "b"], 1),
        ResponseDone(ResponseId("r1"), "completed", 3),
        ResponseDone(ResponseId("r2"), "cancelled", 0),  # while it waited, and its beginning is forgotten
    ]
    for entry in numbered(bodies, 1, Nonce(1)):
        log.append(entry)

    assert [log.beginning_of(name) for name in ("r1", "r2", "r3")] == [2, 6, None]
    assert [log.input_at(seq) for seq in (0, 1, 2, 3, 4, 7)] == [None, created, None, None, None, None]
    log.forget(2)
    assert log.beginning_of("r1") is None
    assert log.input_at(1) is None
