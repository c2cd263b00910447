"""How runs end that aren't left to themselves: by time, by a stop, by a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
import structlog
from msgspec import UNSET
from structlog.testing import capture_logs

from tests.sessions.conversation import settle
from tests.sessions.running import TURN, Bench, code_of
from unbroken.sessions.errors import ResponderError
from unbroken.sessions.items import Usage
from unbroken.sessions.responder import (
    Finish,
    Handle,
    Interjection,
    Notes,
    Output,
    Turn,
    Working,
)
from unbroken.sessions.response import Outcome
from unbroken.sessions.run import CANCELLED, INTERRUPTED, RunLimits

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


async def test_a_process_that_stood_still_has_not_heard_yet_what_its_responder_said(bench: Bench) -> None:
    """Woken, it makes the calls that are overdue before it reads anything."""
    await bench.start()
    bench.clock.block(100)
    await bench.say("a")
    assert bench.run.outcome is None
    assert bench.text() == "a"
    bench.clock.advance(61)
    await settle()

    assert code_of(bench.outcome) == "agent_stalled"


async def test_a_process_that_stood_still_beyond_the_deadline_reads_first_what_has_come(
    bench: Bench,
) -> None:
    await bench.start()
    bench.clock.block(10_000)
    await bench.say("a")
    assert bench.run.outcome is None
    bench.clock.advance(1)
    await settle()

    assert code_of(bench.outcome) == "turn_timeout"
    assert bench.text() == "a"


async def test_a_process_that_stands_still_again_and_again_ends_its_answers(bench: Bench) -> None:
    await bench.start()
    for _ in range(200):
        bench.clock.block(9.9)
        await bench.say("a")
        bench.take()
    bench.clock.advance(1)
    await settle()

    assert code_of(bench.outcome) == "turn_timeout"


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


# What the responder says beside.


async def test_the_last_notes_are_part_of_the_end_however_it_comes(bench: Bench) -> None:
    await bench.start()
    await bench.say(Notes({"redacted": {"card": 1}}), "a", Notes({"redacted": {"card": 2}}))
    bench.run.stop(CANCELLED)
    await settle()

    assert bench.run.outcome == replace(CANCELLED, notes={"redacted": {"card": 2}})


async def test_what_is_said_while_the_responder_waits_comes_before_what_it_says_next(bench: Bench) -> None:
    given = replace(TURN, interjection=Interjection())
    bench.run.start(bench.spawn, bench.responder, given)
    await settle()
    await bench.say("a")
    given.interjection.put("b")
    await bench.say("c")

    assert bench.take() == ["a", "b", "c"]


async def test_what_is_said_after_the_end_is_dropped(bench: Bench) -> None:
    given = replace(TURN, interjection=Interjection())
    bench.run.start(bench.spawn, bench.responder, given)
    await settle()
    bench.run.stop(CANCELLED)
    await settle()
    given.interjection.put("late")

    assert bench.take() == []
    assert bench.run.outcome == CANCELLED


class LetsGo:
    """A responder that holds a word until it is stopped."""

    async def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
        yield "a"
        try:
            await asyncio.Event().wait()
        finally:
            turn.interjection.put("b")
            turn.interjection.put(Notes({"held": 1}))


async def test_a_responder_that_its_user_cancels_is_heard_no_more_and_can_see_that(bench: Bench) -> None:
    given = replace(TURN, interjection=Interjection())
    bench.run.start(bench.spawn, LetsGo(), given)
    await settle()
    assert given.interjection.is_heard
    bench.run.stop(CANCELLED)
    assert not given.interjection.is_heard
    await settle()

    assert bench.take() == ["a"]
    assert bench.run.outcome == CANCELLED


async def test_a_responder_that_is_stopped_may_say_what_it_held(bench: Bench) -> None:
    await bench.start(LetsGo())
    await settle()
    bench.run.stop(INTERRUPTED)
    await settle()

    assert bench.take() == ["a", "b"]
    assert bench.run.outcome == replace(INTERRUPTED, notes={"held": 1})
