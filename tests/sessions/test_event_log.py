from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.sessions.entries import Body, Deltas, Entry, ItemDeleted, ResponseDone, ResponseStarted, width
from unbroken.sessions.errors import OutOfOrder
from unbroken.sessions.event_log import EventLog, Position, Record, Slice, Verdict
from unbroken.sessions.ids import Incarnation, ItemId, Nonce, ResponseId
from unbroken.sessions.items import ResponseRequest

LIFE = Incarnation("0a0a0a0a")
OTHER_LIFE = Incarnation("0b0b0b0b")


def mark(name: str) -> ItemDeleted:
    return ItemDeleted(ItemId(name))


def pieces(*parts: str, response: str = "r", item: str = "i") -> Deltas:
    return Deltas(ResponseId(response), ItemId(item), list(parts), ordinal=2)


def log_of(*batches: list[Body], floor: int = 0) -> EventLog:
    """Return a log with each batch under a nonce of its own: 101, 102, ..."""
    log = EventLog(LIFE, floor=floor, floor_nonce=Nonce(100 if floor else 0))
    for index, batch in enumerate(batches):
        for body in batch:
            log.append(Entry(log.head + 1, Nonce(101 + index), body))
    return log


def flat(records: list[Record]) -> list[tuple[int, int, Any]]:
    """Return records number by number: sequence, nonce, and the piece or the body."""
    out: list[tuple[int, int, Any]] = []
    for record in records:
        if isinstance(record, Slice):
            numbers = range(record.seq, record.seq + len(record.parts))
            out += zip(numbers, record.nonces, record.parts, strict=True)
        else:
            out.append((record.seq, record.nonce, record.body))
    return out


def test_an_entry_that_leaves_a_gap_is_refused() -> None:
    log = log_of([mark("a")])

    with pytest.raises(OutOfOrder, match="expected entry 2, got 3"):
        log.append(Entry(3, Nonce(1), mark("b")))
    with pytest.raises(OutOfOrder, match="expected entry 2, got 1"):
        log.append(Entry(1, Nonce(1), mark("b")))


def test_pieces_of_one_output_are_read_as_one_slice_across_batches() -> None:
    log = log_of([mark("a"), pieces("x", "y")], [pieces("z")])

    (slice_,) = log.read(1, 10)

    assert isinstance(slice_, Slice)
    assert (slice_.seq, list(slice_.parts), list(slice_.nonces)) == (2, ["x", "y", "z"], [101, 101, 102])
    assert slice_.last == log.head == 4


def test_a_read_may_begin_and_end_inside_an_answer() -> None:
    log = log_of([pieces("a", "b", "c", "d")])

    (middle,) = log.read(1, 2)

    assert isinstance(middle, Slice)
    assert (middle.seq, list(middle.parts), middle.ordinal) == (2, ["b", "c"], 3)


def test_answers_side_by_side_stay_apart() -> None:
    log = log_of([pieces("a"), pieces("b", response="s", item="j"), pieces("c")])

    assert [list(record.parts) for record in log.read(0, 9) if isinstance(record, Slice)] == [
        ["a"],
        ["b"],
        ["c"],
    ]


@pytest.mark.parametrize(
    ("position", "verdict"),
    [
        (Position(LIFE, 0, Nonce(0)), Verdict.HELD),
        (Position(LIFE, 1, Nonce(101)), Verdict.HELD),
        (Position(LIFE, 3, Nonce(102)), Verdict.HELD),
        (Position(LIFE, 3, Nonce(101)), Verdict.OTHER_BRANCH),
        (Position(LIFE, 4, Nonce(102)), Verdict.FUTURE),
        (Position(LIFE, 10**17, Nonce(102)), Verdict.FUTURE),
        (Position(OTHER_LIFE, 1, Nonce(101)), Verdict.OTHER_BRANCH),
        (Position(Incarnation(""), 0, Nonce(0)), Verdict.OTHER_BRANCH),
    ],
)
def test_a_position_is_judged(position: Position, verdict: Verdict) -> None:
    assert log_of([mark("a")], [pieces("x", "y")]).check(position) is verdict


def test_positions_around_the_floor() -> None:
    log = log_of([mark("a")], [mark("b")], [mark("c")])
    log.forget(2)

    assert log.check(Position(LIFE, 1, Nonce(101))) is Verdict.BELOW_FLOOR
    assert log.check(Position(LIFE, 2, Nonce(102))) is Verdict.HELD
    assert log.check(Position(LIFE, 2, Nonce(9))) is Verdict.OTHER_BRANCH
    assert log.check(Position(LIFE, 0, Nonce(0))) is Verdict.BELOW_FLOOR
    assert flat(log.read(2, 9)) == [(3, 103, mark("c"))]


def test_forgetting_leaves_a_run_whole_that_goes_beyond() -> None:
    log = log_of([mark("a"), pieces("x", "y", "z")])
    log.forget(3)

    assert log.floor == 1
    assert [piece for _, _, piece in flat(log.read(1, 9))] == ["x", "y", "z"]


def start(response: str) -> ResponseStarted:
    return ResponseStarted(ResponseId(response), ResponseRequest(), turn=1)


def done(response: str) -> ResponseDone:
    return ResponseDone(ResponseId(response), "completed", 9)


def test_what_an_attached_cursor_needs_is_kept_up_to_the_maximum() -> None:
    batches: list[list[Body]] = [[mark(str(n))] for n in range(100)]
    log = log_of(*batches)
    before = log.size

    assert log.trim(retain=0, maximum=before, attached=10, running=None, latest=100) == 10
    assert log.trim(retain=0, maximum=before // 2, attached=10, running=None, latest=100) > 10
    assert log.size <= before // 2


def test_what_is_being_said_is_kept_up_to_the_maximum() -> None:
    """A response may run for long, and a client may send much meanwhile: nothing outranks the bound."""
    log = log_of([mark("a"), start("r"), pieces(*"abc")])

    assert log.trim(retain=0, maximum=log.size, attached=None, running=2, latest=9) == 1
    assert log.trim(retain=0, maximum=0, attached=None, running=2, latest=9) == log.head


def test_what_was_committed_last_is_kept_whatever_its_size() -> None:
    """Else a cursor that keeps up could lose it unseen, and be reset for ever."""
    log = log_of([mark("a")], [mark("b" * 1000)])

    assert log.trim(retain=0, maximum=0, attached=1, running=None, latest=1) == 1


def test_an_answer_of_many_pieces_is_cheap_once_packed() -> None:
    log = log_of([start("r"), *[pieces(" word") for _ in range(1000)], done("r")])
    unpacked = log.size
    log.pack(ResponseId("r"))

    assert log.size < unpacked / 4
    assert log.size < 1000 * (len(" word") + 10) + 2000


bodies = st.one_of(
    st.builds(mark, st.text(max_size=3)),
    st.builds(
        lambda parts, response: pieces(*parts, response=response, item="i" + response),
        st.lists(st.text(max_size=4), min_size=1, max_size=5),
        st.sampled_from("rs"),
    ),
    st.builds(start, st.sampled_from("rs")),
    st.builds(done, st.sampled_from("rs")),
)


@given(
    batches=st.lists(st.lists(bodies, min_size=1, max_size=4), max_size=12),
    packs=st.sets(st.sampled_from("rs")),
    forgets=st.integers(0, 80),
    after=st.integers(0, 80),
    limit=st.integers(1, 30),
)
def test_a_log_reads_as_the_list_it_stands_for(
    batches: list[list[Body]], packs: set[str], forgets: int, after: int, limit: int
) -> None:
    """Packing and forgetting change nothing of what is read from above the floor."""
    expected: list[tuple[int, int, Any]] = []
    for index, batch in enumerate(batches):
        for body in batch:
            parts = body.parts if isinstance(body, Deltas) else [body]
            for part in parts:
                expected.append((len(expected) + 1, 101 + index, part))
    log = log_of(*batches)
    for response in packs:
        log.pack(ResponseId(response))
    log.forget(forgets)

    assert log.floor <= forgets
    assert log.head == sum(width(body) for batch in batches for body in batch)
    after = max(log.floor, min(after, log.head))
    assert flat(log.read(after, limit)) == expected[after : after + limit]
    for seq, nonce, _ in expected[log.floor :]:
        assert log.check(Position(LIFE, seq, Nonce(nonce))) is Verdict.HELD
        assert log.check(Position(LIFE, seq, Nonce(7))) is Verdict.OTHER_BRANCH


@given(batches=st.lists(st.lists(bodies, min_size=1, max_size=4), max_size=12), forgets=st.integers(0, 60))
def test_the_account_of_bytes_ends_at_nothing(batches: list[list[Body]], forgets: int) -> None:
    """What is counted in is counted out: a drifting account would trim too much, or never."""
    log = log_of(*batches)
    log.pack(ResponseId("r"))
    log.forget(forgets)
    log.forget(log.head)

    assert log.size == 0
    assert log.floor == log.head
