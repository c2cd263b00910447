from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sessions.conversation import settle
from tests.sessions.running import TURN, Bench
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import CallHead, ToolHead, Usage
from unbroken.sessions.responder import (
    Finish,
    FunctionCallPiece,
    Handle,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
)
from unbroken.sessions.response import Outcome
from unbroken.sessions.run import CANCELLED, RunLimits

# What is produced.


async def test_pieces_are_kept_until_they_are_taken(bench: Bench) -> None:
    await bench.start()
    await bench.say("a", "", "bc")
    assert bench.take() == ["a", "bc"]
    assert bench.take() == []

    await bench.say("d")
    assert bench.take() == ["d"]


async def test_every_piece_is_told_of(bench: Bench) -> None:
    await bench.start()
    before = bench.notified
    await bench.say("a")

    assert bench.notified == before + 1


async def test_the_longest_gap_between_pieces_is_known(bench: Bench) -> None:
    await bench.start()
    for seconds, piece in ((9.0, "a"), (0.2, "b"), (0.7, "c"), (0.1, "d")):
        bench.clock.advance(seconds)
        await bench.say(piece)
        bench.run.take()

    assert bench.run.longest_gap == pytest.approx(0.7), "the wait for the first is none"


async def test_the_time_that_tools_take_is_no_gap(bench: Bench) -> None:
    await bench.start()
    await bench.say("a", ToolCallPiece(ItemId("i"), "{}", ToolHead("f", "tools")), RunsTools((ItemId("i"),)))
    bench.run.take()
    bench.run.note_started(ItemId("i"))
    bench.clock.advance(9.0)
    await bench.say(ToolEnded(ItemId("i"), "done"), "b")
    bench.run.take()

    assert bench.run.longest_gap is None, "the agent isn't to blame"


async def test_pieces_that_are_taken_together_are_one(bench: Bench) -> None:
    """Nothing is measured per piece."""
    await bench.start()
    await bench.say("a")
    bench.clock.advance(0.004)
    await bench.say("b")
    assert bench.run.longest_gap is None
    bench.run.take()
    bench.clock.advance(0.5)
    await bench.say("c")

    assert bench.run.longest_gap == pytest.approx(0.504), "from when those before began to come"


async def test_an_answer_that_just_ends_has_completed(bench: Bench) -> None:
    await bench.start()
    await bench.say("a")

    assert await bench.end() == Outcome(status="completed")
    assert bench.take() == ["a"], "what was said before the end is still there to be taken"
    assert bench.clock.pending == 0


async def test_an_answer_of_nothing_completes(bench: Bench) -> None:
    await bench.start()

    assert await bench.end() == Outcome(status="completed")


async def test_the_last_bill_and_the_reason_to_stop_are_passed_on(bench: Bench) -> None:
    await bench.start()
    await bench.say(Usage(1, 1), "a", Finish("content_filter"), Usage(5, 6, 2))

    assert await bench.end() == Outcome(status="incomplete", reason="content_filter", usage=Usage(5, 6, 2))


async def test_a_handle_is_told_of_at_once(bench: Bench) -> None:
    await bench.start()
    before = bench.notified
    await bench.say(Handle("upstream_1"))

    assert bench.run.handle == "upstream_1"
    assert bench.notified == before + 1


async def test_the_responder_waits_when_nobody_takes(bench: Bench) -> None:
    """A store that is slow must not let an answer pile up in memory."""
    await bench.start()
    await bench.say(*map(str, range(600)))
    taken: list[str] = []
    for held in (256, 256, 88):
        pieces = bench.take()
        assert len(pieces) == held
        taken += pieces
        await settle()
    assert taken == [str(n) for n in range(600)]


async def test_a_responder_that_waits_to_be_taken_from_can_be_stopped(bench: Bench) -> None:
    await bench.start()
    await bench.say(*["x"] * 300)
    bench.run.stop(CANCELLED)
    await settle()

    assert bench.run.outcome == CANCELLED
    assert bench.turn.is_closed


# The limit of an answer.


@pytest.mark.parametrize(
    ("pieces", "limit", "expected"),
    [
        (["abc", "def"], 6, "abcdef"),
        (["abc", "def"], 5, "abcde"),
        (["abc", "def"], 3, "abc"),
        (["éé"], 3, "é"),
        (["a😀"], 4, "a"),
        (["a😀"], 5, "a😀"),
        (["\ud83d", "\ude00"], 3, ""),
    ],
)
async def test_an_answer_is_cut_at_its_limit_between_characters(
    pieces: list[str], limit: int, expected: str
) -> None:
    bench = Bench(RunLimits(output_bytes=limit))
    await bench.start()
    await bench.say(*pieces)
    if bench.run.outcome is None:
        await bench.end()

    is_cut = expected != "".join(pieces)
    assert bench.text() == expected
    assert bench.outcome == (
        Outcome(status="incomplete", reason="max_output_tokens") if is_cut else Outcome(status="completed")
    )
    assert bench.turn.is_closed


async def test_what_comes_behind_the_cut_is_not_waited_for() -> None:
    bench = Bench(RunLimits(output_bytes=2))
    await bench.start()
    await bench.say("abc", "def", Usage(9, 9))

    assert bench.text() == "ab"
    assert bench.outcome.status == "incomplete"


# Broken characters.


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["\ud83d", "\ude00"], "😀"),
        (["a\ud83d", "\ude00b"], "a😀b"),
        (["\ud83d", "x"], "\ufffdx"),
        (["\ude00x"], "\ufffdx"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
        (["é\ud83d", "", "\ude00"], "é😀"),
    ],
)
async def test_halves_of_a_character_are_joined_across_pieces(
    bench: Bench, pieces: list[str], expected: str
) -> None:
    await bench.start()
    await bench.say(*pieces)

    assert bench.text() == expected


@given(st.lists(st.text(st.characters(codec=None), max_size=5), max_size=12))
def test_whatever_is_said_can_be_written(pieces: list[str]) -> None:
    """A lone half of a surrogate pair can't be encoded: it would break the log for everybody."""

    async def produce() -> str:
        bench = Bench()
        await bench.start()
        await bench.say(*pieces)
        await bench.end()
        return bench.text()

    text = asyncio.run(produce())

    text.encode()
    whole = "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert text == whole


# Function calls.


async def test_outputs_are_taken_in_the_order_in_which_they_began() -> None:
    bench = Bench()
    await bench.start()
    await bench.say(FunctionCallPiece(3, "{", "k", "f"), "text", FunctionCallPiece(1, "", "", "g"))
    f, text, g = bench.run.take()
    await bench.say(FunctionCallPiece(3, "}"))
    (again,) = bench.run.take()

    assert (f.index, f.head, f.pieces, f.is_ended) == (0, CallHead("k", "f"), ["{"], False)
    assert (text.index, text.head, text.pieces, text.is_ended) == (1, None, ["text"], True)
    assert isinstance(g.head, CallHead)
    assert (g.index, g.head.name, g.pieces) == (2, "g", [])
    assert g.head.call_id.startswith("call_")
    assert (again.index, again.item_id, again.pieces) == (0, f.item_id, ["}"])
    assert bench.run.take() == []
    assert (await bench.end()).status == "completed"


async def test_no_two_calls_have_one_name() -> None:
    bench = Bench()
    bench.run.start(bench.spawn, bench.responder, TURN, {"taken"})
    await settle()
    await bench.say(
        *(FunctionCallPiece(n, "", name, "f") for n, name in enumerate(["taken", "k", "k", "\n"]))
    )
    ids = [taken.head.call_id for taken in bench.run.take() if isinstance(taken.head, CallHead)]

    assert ids[1] == "k"
    assert len({"taken", *ids}) == 5
    await bench.end()


@pytest.mark.parametrize("name", ["", "a b", "x" * 65])
async def test_a_call_of_no_function_fails(name: str) -> None:
    bench = Bench()
    await bench.start()
    await bench.say(FunctionCallPiece(0, "{}", "k", name))

    assert bench.outcome.failure is not None
    assert bench.outcome.failure.code == "agent_error"


async def test_calls_and_text_share_the_bound() -> None:
    bench = Bench(RunLimits(output_bytes=600))
    await bench.start()
    await bench.say("x" * 80, FunctionCallPiece(0, "{" + 9 * "y", "k", "f"))

    assert (bench.outcome.status, bench.outcome.reason) == ("incomplete", "max_output_tokens")
    assert [taken.pieces for taken in bench.run.take()] == [["x" * 80], ["{" + 7 * "y"]]


async def test_more_calls_than_there_is_room_for_are_not_begun() -> None:
    bench = Bench(RunLimits(output_bytes=1200))
    await bench.start()
    await bench.say(*(FunctionCallPiece(n, "", "", "f") for n in range(9)))

    assert bench.outcome.status == "incomplete"
    assert len(bench.run.take()) == 2


async def test_pieces_of_calls_wait_for_the_store_too() -> None:
    bench = Bench(RunLimits(stall_timeout=10))
    await bench.start()
    await bench.say(*(FunctionCallPiece(0, "x", "k", "f") for _ in range(600)))
    taken = 0
    while pieces := bench.take():
        assert len(pieces) <= 256
        taken += len(pieces)
        await settle()

    assert taken == 600
    await bench.end()


@pytest.mark.parametrize("silence", [(), ("",), ("", "")])
async def test_a_call_without_arguments_has_empty_ones(silence: tuple[str, ...]) -> None:
    """Clients read them as JSON, which nothing isn't; and nothing is what some models say for none."""
    bench = Bench()
    await bench.start()
    await bench.say("text", FunctionCallPiece(0, "", "k", "f"), FunctionCallPiece(1, "[1]", "l", "g"))
    await bench.say(*(FunctionCallPiece(0, piece) for piece in silence))
    await bench.end()

    assert [taken.pieces for taken in bench.run.take()] == [["text"], ["{}"], ["[1]"]]


async def test_a_call_that_was_cut_short_is_given_no_arguments() -> None:
    bench = Bench()
    await bench.start()
    await bench.say(FunctionCallPiece(0, "", "k", "f"), Finish("max_output_tokens"))
    await bench.end()

    assert [taken.pieces for taken in bench.run.take()] == [[]]


async def test_surrogates_are_joined_within_each_output() -> None:
    bench = Bench()
    await bench.start()
    call = FunctionCallPiece(0, "\ud83d", "k", "f")
    await bench.say("\ud83d", call, "\ude00", FunctionCallPiece(0, "\ude00"), FunctionCallPiece(0, "\ud83d"))
    await bench.end()

    assert ["".join(taken.pieces) for taken in bench.run.take()] == ["\ufffd", "😀\ufffd", "\ufffd"]
