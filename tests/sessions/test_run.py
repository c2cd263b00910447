from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, Final

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from structlog.testing import capture_logs

from tests.fakes.clock import FakeClock
from tests.fakes.responder import ManualResponder, ManualTurn
from tests.sessions.conversation import settle
from unbroken.sessions.errors import ResponderError
from unbroken.sessions.ids import ItemId, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import CallHead, ResponseRequest, SessionConfig, ToolHead, Usage
from unbroken.sessions.responder import (
    Finish,
    FunctionCallPiece,
    Handle,
    Output,
    Responder,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
    Turn,
    Working,
)
from unbroken.sessions.response import Outcome
from unbroken.sessions.run import CANCELLED, INTERRUPTED, Run, RunLimits

TURN: Final = Turn(
    session_id=SessionId("sess_1"),
    response_id=ResponseId("r1"),
    principal=PrincipalId("alice"),
    attempt=1,
    config=SessionConfig("m"),
    request=ResponseRequest(),
    items=(),
)


class Bench:
    """One run, its responder and its clock, without an actor."""

    def __init__(self, limits: RunLimits | None = None) -> None:
        self.clock = FakeClock()
        self.responder = ManualResponder()
        self.notified = 0
        self.tasks: list[asyncio.Task[None]] = []
        limits = limits or RunLimits()
        self.run = Run(ResponseId("r1"), limits, self.clock, self.notify)

    def notify(self) -> None:
        self.notified += 1

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    async def start(self, responder: Responder | None = None) -> None:
        self.run.start(self.spawn, responder or self.responder, TURN)
        await settle()

    @property
    def turn(self) -> ManualTurn:
        return self.responder.last

    async def say(self, *pieces: Output) -> None:
        self.turn.say(*pieces)
        await settle()

    async def end(self) -> Outcome:
        self.turn.end()
        await settle()
        return self.outcome

    @property
    def outcome(self) -> Outcome:
        assert self.run.outcome is not None
        return self.run.outcome

    def text(self) -> str:
        return "".join(self.take())

    def take(self) -> list[str]:
        """Return the new pieces of all outputs."""
        return [piece for taken in self.run.take() for piece in taken.pieces]

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.close()


def code_of(outcome: Outcome) -> str | None:
    return None if outcome.failure is None else outcome.failure.code


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


# Time.


@pytest.mark.parametrize("sign", ["a", "", Working(), Usage(1, 1), Handle("h"), Finish()])
async def test_every_sign_of_life_puts_the_stall_off(sign: Output) -> None:
    bench = Bench(RunLimits(stall_timeout=10))
    await bench.start()
    for _ in range(5):
        bench.clock.advance(9.9)
        await bench.say(sign)
        bench.run.take()
        assert bench.run.outcome is None
    bench.clock.advance(20)
    await settle()

    assert code_of(bench.outcome) == "agent_stalled"


async def test_a_responder_that_shows_no_life_fails() -> None:
    bench = Bench(RunLimits(stall_timeout=10))
    await bench.start()
    bench.clock.advance(9.9)
    await settle()
    assert bench.run.outcome is None
    bench.clock.advance(0.2)
    await settle()

    assert bench.outcome.status == "failed"
    assert code_of(bench.outcome) == "agent_stalled"
    assert bench.outcome.failure is not None
    assert "10 seconds" in bench.outcome.failure.message
    assert bench.turn.is_closed
    assert bench.clock.pending == 0


async def test_what_was_billed_before_a_stall_is_still_billed() -> None:
    bench = Bench(RunLimits(stall_timeout=10))
    await bench.start()
    await bench.say(Usage(7, 8))
    bench.clock.advance(21)
    await settle()

    assert bench.outcome.usage == Usage(7, 8)


async def test_signs_of_life_alone_do_not_go_on_for_ever() -> None:
    bench = Bench(RunLimits(stall_timeout=10, turn_timeout=35))
    await bench.start()
    for _ in range(4):
        assert bench.run.outcome is None
        await bench.say("a")
        bench.clock.advance(9)
    await settle()

    assert code_of(bench.outcome) == "turn_timeout"
    assert bench.turn.is_closed


# Being stopped.


async def test_a_stop_closes_the_responder_first(bench: Bench) -> None:
    await bench.start()
    await bench.say("a")
    bench.run.stop(CANCELLED)
    assert bench.run.outcome is None
    await settle()

    assert bench.run.outcome == CANCELLED
    assert bench.turn.is_closed
    assert bench.clock.pending == 0


async def test_the_first_stop_counts(bench: Bench) -> None:
    await bench.start()
    bench.run.stop(CANCELLED)
    bench.run.stop(INTERRUPTED)
    await settle()
    bench.run.stop(INTERRUPTED)

    assert bench.run.outcome == CANCELLED


async def test_a_stop_after_the_end_changes_nothing(bench: Bench) -> None:
    await bench.start()
    await bench.end()
    bench.run.stop(CANCELLED)

    assert bench.outcome.status == "completed"
    assert bench.clock.pending == 0


async def test_a_stop_before_the_responder_was_called_ends_at_once(bench: Bench) -> None:
    """A client may send a request and its cancel in one go; a task cancelled before it ran never runs."""
    bench.run.start(bench.spawn, bench.responder, TURN)
    bench.run.stop(CANCELLED)
    await settle()

    assert bench.run.outcome == CANCELLED
    assert bench.responder.turns == []
    assert bench.clock.pending == 0


async def test_a_responder_that_swallows_the_cancel_is_left_at_its_next_piece(bench: Bench) -> None:
    await bench.start()
    bench.turn.ignores_cancel = True
    bench.run.stop(CANCELLED)
    await settle()
    assert bench.run.outcome is None
    await bench.say("late")

    assert bench.run.outcome == CANCELLED
    assert bench.take() == []
    assert bench.turn.is_closed


@pytest.mark.parametrize("how", ["ignores", "hangs"])
async def test_a_responder_that_does_not_stop_is_not_waited_for(how: str) -> None:
    bench = Bench(RunLimits(stop_timeout=2))
    await bench.start()
    held = asyncio.Event()
    if how == "ignores":
        bench.turn.ignores_cancel = True
    else:
        bench.turn.hangs_on_close = held
    bench.run.stop(CANCELLED)
    bench.clock.advance(1.9)
    await settle()
    assert bench.run.outcome is None

    with capture_logs() as logs:
        bench.clock.advance(0.2)
    assert bench.run.outcome == CANCELLED
    assert [entry["event"] for entry in logs] == ["responder does not stop"]
    before = bench.notified

    held.set()
    await bench.say("late")
    assert bench.run.outcome == CANCELLED
    assert bench.take() == [], "nothing is taken from it any more"
    assert bench.notified == before
    assert all(task.done() for task in bench.tasks)


async def test_a_responder_that_fails_while_it_is_stopped_was_stopped(bench: Bench) -> None:
    class Clumsy:
        async def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
            try:
                yield "a"
                await asyncio.Event().wait()
            finally:
                raise ResponderError("agent_error", "The clean-up failed.")

    await bench.start(Clumsy())
    bench.run.stop(CANCELLED)
    await settle()

    assert bench.run.outcome == CANCELLED


async def test_a_node_that_leaves_interrupts(bench: Bench) -> None:
    await bench.start()
    await bench.say("a")
    for task in bench.tasks:
        task.cancel()
    await settle()

    assert bench.run.outcome == INTERRUPTED
    assert bench.tasks[0].cancelled(), "the node's own cancellation isn't swallowed"
    assert bench.turn.is_closed
    assert bench.clock.pending == 0


# Failures.


async def test_a_failure_with_a_name_is_shown_by_it(bench: Bench) -> None:
    await bench.start()
    await bench.say(Usage(3, 0))
    bench.turn.fail(ResponderError("upstream_cut", "The line broke.", type="rate_limit_error"))
    await settle()

    assert bench.outcome.status == "failed"
    assert bench.outcome.failure is not None
    failure = bench.outcome.failure
    assert (failure.code, failure.message, failure.type) == (
        "upstream_cut",
        "The line broke.",
        "rate_limit_error",
    )
    assert bench.outcome.usage == Usage(3, 0)


async def test_a_crash_shows_nothing_of_its_message(bench: Bench) -> None:
    """It may quote the conversation or a key."""
    await bench.start()
    with capture_logs() as logs:
        bench.turn.fail(RuntimeError("sk-secret"))
        await settle()

    assert code_of(bench.outcome) == "agent_crashed"
    assert "sk-secret" not in repr(bench.outcome)
    (entry,) = logs
    assert (entry["event"], entry["error"]) == ("responder crashed", "RuntimeError")
    assert "sk-secret" not in repr(logs)


@pytest.mark.parametrize("output", [1, b"bytes", object()])
async def test_what_is_no_output_is_a_crash(bench: Bench, output: object) -> None:
    await bench.start()
    await bench.say(output)  # type: ignore[arg-type]

    assert code_of(bench.outcome) == "agent_crashed"


async def test_a_responder_that_cancels_itself_has_crashed(bench: Bench) -> None:
    """Some libraries let a CancelledError of their own escape: nobody asked for a stop."""
    await bench.start()
    bench.turn.fail(asyncio.CancelledError("its own"))
    await settle()

    assert code_of(bench.outcome) == "agent_crashed"
    assert bench.tasks[0].done()
    assert not bench.tasks[0].cancelled()


async def test_a_responder_that_can_not_even_be_called_has_crashed(bench: Bench) -> None:
    class Broken:
        def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
            raise ValueError("no")

    await bench.start(Broken())

    assert code_of(bench.outcome) == "agent_crashed"


def test_logs_are_configured_for_tests() -> None:
    """The tests above capture logs; a configuration that drops them would make them pass for nothing."""
    with capture_logs() as logs:
        structlog.get_logger().info("seen")
    assert logs


async def test_when_to_try_again_is_passed_on(bench: Bench) -> None:
    await bench.start()
    bench.turn.fail(ResponderError("upstream_rate_limited", "Too many.", retry_after=7.5))
    await settle()

    assert bench.outcome.failure is not None
    assert bench.outcome.failure.retry_after == 7.5


class Int64:
    """An integer of somebody else's, as numpy has them."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.mark.parametrize(
    ("said", "billed"),
    [
        (Usage(None, None, None), Usage(0, 0, 0)),  # type: ignore[arg-type]
        (Usage(Int64(7), 2**70, -1), Usage(7, 2**53 - 1, 0)),  # type: ignore[arg-type]
    ],
)
async def test_a_bill_is_in_plain_integers(bench: Bench, said: Usage, billed: Usage) -> None:
    await bench.start()
    await bench.say(said, "a")

    outcome = await bench.end()
    assert outcome == Outcome(status="completed", usage=billed)
    assert outcome.usage is not None
    assert type(outcome.usage.input_tokens) is int


@pytest.mark.parametrize(
    "output",
    [
        Usage("many"),  # type: ignore[arg-type]
        Usage(1.5),  # type: ignore[arg-type]
        Finish("stop"),  # type: ignore[arg-type]
        Handle(object()),  # type: ignore[arg-type]
        Handle("x" * 5000),
    ],
)
async def test_an_output_of_the_wrong_value_is_a_crash(bench: Bench, output: Output) -> None:
    """Written as it is, it would make the session unreadable, for good."""
    await bench.start()
    await bench.say("a", output)

    assert code_of(bench.outcome) == "agent_crashed"


async def test_a_failure_is_told_in_words_that_can_be_written(bench: Bench) -> None:
    await bench.start()
    bench.turn.fail(ResponderError("odd", "half \ud83d of a pair", retry_after=float("inf")))
    await settle()

    failure = bench.outcome.failure
    assert failure is not None
    assert failure.message == "half \ufffd of a pair"
    assert failure.retry_after is UNSET


class Odd(BaseException):
    """What only a bug would make of it."""


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Odd])
async def test_whatever_a_responder_raises_ends_its_own_answer_alone(
    bench: Bench, kind: type[BaseException]
) -> None:
    """Raised out of a task, the first two would end the process with all its sessions."""
    await bench.start()
    await bench.say("a")
    bench.turn.fail(kind())
    await settle()

    assert code_of(bench.outcome) == "agent_crashed"
    await asyncio.wait(bench.tasks)
    if kind is GeneratorExit:
        assert isinstance(bench.tasks[0].exception(), GeneratorExit)
    else:
        assert bench.tasks[0].exception() is None


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
