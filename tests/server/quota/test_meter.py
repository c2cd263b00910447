"""What a turn comes to: in rounds, by what its provider tells, and where the cache has answered."""

from __future__ import annotations

import pytest

from tests.server.quota.gating import LONG, PRICE, World
from unbroken.server.quota.base import MOST
from unbroken.server.quota.refusal import QuotaRefusal
from unbroken.sessions.items import FunctionTool, ResponseRequest, Reused, Usage
from unbroken.sessions.responder import Finish, Output, ReasoningPiece, Working


async def test_what_a_round_sends_is_held_before_its_agent_is_asked() -> None:
    world = World(tokens_per_day=30_000)
    await world.reserve()
    said = await world.answer_in_rounds(("hi", ["x", Usage(5, 1)]), (LONG, ["y", Usage(10_012, 2)]))

    assert said[-1] == Usage(10_012, 2)
    assert world.rounds == 2
    assert 10_000 <= world.most <= 11_400


async def test_a_round_that_there_is_no_budget_for_is_not_begun() -> None:
    """What was said is kept, and paid; what would have been sent isn't."""
    world = World(tokens_per_day=10_000)
    await world.reserve()
    said = await world.answer_in_rounds(("hi", ["x", Usage(5, 1)]), (LONG, ["y"]))

    assert said == ["x", Usage(5, 1), Finish("quota_exceeded")]
    assert world.rounds == 1
    assert (await world.used())["td"] < 10_000
    record = await world.end("incomplete", Usage(5, 1))
    assert (record.input_tokens, record.output_tokens, record.is_estimate) == (5, 1, False)


async def test_a_first_round_sends_the_server_s_tools_too() -> None:
    """Nobody knew of them when the turn began: they are no reason to ask with less than it takes."""
    world = World(tokens_per_day=5000)
    await world.reserve()

    assert await world.answer_in_rounds((LONG, ["x"]), text="hi") == [Finish("quota_exceeded")]
    assert world.rounds == 0
    assert (await world.end("incomplete")).tokens == 0


@pytest.mark.parametrize(
    ("status", "said", "tokens"),
    [("cancelled", [], 10_010), ("failed", [], 6), ("failed", ["y" * 4000], 11_010)],
    ids=["cancelled", "failed before a word", "failed"],
)
async def test_a_round_that_was_cut_short_is_paid_as_a_turn_is(
    status: str, said: list[Output], tokens: int
) -> None:
    world = World(tokens_per_day=30_000)
    await world.reserve()
    await world.answer_in_rounds(("hi", ["x", Usage(5, 1)]), (LONG, [Working(), *said]))
    record = await world.end(status, None if status == "cancelled" else Usage(5, 1))

    assert abs(record.tokens - tokens) < 10


async def test_rounds_of_which_nobody_tells_are_all_counted() -> None:
    world = World(tokens_per_day=30_000)
    await world.reserve()
    await world.answer_in_rounds((LONG, ["x" * 400]), (LONG, ["y" * 400]), text="hi")
    record = await world.end("incomplete")

    assert 20_000 <= record.input_tokens <= 20_010
    assert record.output_tokens == 200


async def test_a_provider_s_last_word_does_not_cut_what_is_complete() -> None:
    world = World(tokens_per_day=2000)
    await world.reserve()

    assert await world.answer("x", Usage(9000, 9000)) == ["x", Usage(9000, 9000)]


@pytest.mark.parametrize("usage", [Usage(2**53 - 1, 2**53 - 1), Usage(2**53 - 1, 0, 2**53 - 1)])
async def test_absurd_figures_are_settled(usage: Usage) -> None:
    """And records still sum to counters."""
    world = World()
    await world.reserve()
    await world.answer("x", usage, "y")
    record = await world.end("completed", usage)
    used = await world.used()

    assert (used["td"], used["cd"]) == (record.tokens, record.cost)
    assert 0 < record.tokens <= MOST
    assert used["turns"] == 0


@pytest.mark.parametrize("usage", [Usage(-5, -5), Usage(None, 7)])  # type: ignore[arg-type]
async def test_an_agent_s_odd_figures_are_no_credit(usage: Usage) -> None:
    world = World(tokens_per_day=5000)
    await world.reserve()
    await world.answer("x", usage, "y" * 8000)

    assert (await world.used())["td"] >= 2000


REUSED = Usage(reused=Reused("exact", 5.0))


async def test_what_was_answered_before_takes_what_it_is_billed() -> None:
    """F7. It is not cut short for a budget that it doesn't need, however long it is."""
    world = World(tokens_per_day=2000)
    await world.reserve()
    said = await world.answer(REUSED, *["x" * 400] * 100)
    record = await world.end("completed", REUSED, "x" * 40_000)

    assert len(said) == 101
    assert (record.tokens, record.cost, record.reused, record.is_estimate) == (0, 0, "exact", False)
    used = await world.used()
    assert (used["td"], used["rd"], used["turns"]) == (0, 1, 0)


async def test_what_was_answered_before_and_is_billed_in_full_is_counted_in_full() -> None:
    """F7, with ``UNBROKEN_CACHE_BILLING=full``."""
    world = World(tokens_per_day=2000)
    await world.reserve()
    billed = Usage(100, 900, 50, Reused("semantic", 5.0))
    await world.answer(billed, *["x" * 400] * 10)
    record = await world.end("completed", billed, "x" * 4000)

    assert (record.tokens, record.reused) == (1000, "semantic")
    assert record.cost == PRICE.cost(100, 900, 50)


async def test_who_joined_a_call_and_is_left_with_it_pays() -> None:
    """The one who made it has gone: then it is theirs."""
    world = World(tokens_per_day=20_000)
    await world.reserve()
    flight = Usage(reused=Reused("flight", 0.0))
    await world.answer(flight, "x" * 4000, Usage(50, 900))
    record = await world.end("completed", Usage(50, 900))

    assert (record.tokens, record.reused) == (950, "")


async def test_who_joined_a_call_needs_a_budget_and_pays_nothing_if_another_does() -> None:
    """Who will pay is known at the end: without a budget, it would be everybody's way around it."""
    world = World(tokens_per_day=2000)
    await world.reserve()
    world.share.owes = False
    flight = Usage(reused=Reused("flight", 0.0))
    said = await world.answer(flight, "x" * 40_000, flight)
    record = await world.end("incomplete", flight)

    assert said == [flight, Finish("quota_exceeded")]
    assert (record.tokens, record.reused) == (0, "flight")
    assert (await world.used())["td"] == 0


@pytest.mark.parametrize("status", ["incomplete", "cancelled", "failed"])
async def test_what_was_told_after_a_round_and_said_since_is_paid_however_it_ends(status: str) -> None:
    world = World(tokens_per_day=100_000)
    await world.reserve()
    await world.answer(Usage(8000, 500), "x" * 4000)
    record = await world.end(status, None if status == "cancelled" else Usage(8000, 500))

    assert 9400 <= record.tokens <= 9600
    assert record.is_estimate


async def test_what_is_thought_and_not_shown_is_paid_by_who_cancels() -> None:
    world = World(tokens_per_day=100_000)
    await world.reserve()
    await world.answer(ReasoningPiece("x" * 40_000))
    record = await world.end("cancelled", None)

    assert record.tokens > 9000


async def test_what_is_thought_before_an_agent_is_settled_on_is_paid_too() -> None:
    """A chain of agents says of it only how much it was."""
    world = World(tokens_per_day=5000)
    await world.reserve()

    said = await world.answer(*[Working(thought=4000)] * 10)
    assert said[-1] == Finish("quota_exceeded")
    assert (await world.end("cancelled")).tokens > 3000


@pytest.mark.parametrize(
    ("status", "usage", "tokens"),
    [
        ("completed", Usage(3, 1), 22),
        ("completed", None, 118),
        ("failed", None, 118),
        ("cancelled", None, 118),
    ],
)
async def test_what_an_agent_has_billed_that_failed_comes_on_top(
    status: str, usage: Usage | None, tokens: int
) -> None:
    world = World()
    await world.reserve()
    await world.answer(Working(spent=Usage(9, 9)), "x" * 400, *([usage] if usage else []))
    record = await world.end(status, usage)

    assert record.tokens == tokens
    assert (record.input_tokens, record.is_estimate) == ((12, False) if usage else (9, True))


async def test_who_pays_nothing_for_a_call_pays_for_no_failure_in_it() -> None:
    world = World()
    world.share.owes = False
    await world.reserve()
    flight = Usage(reused=Reused("flight", 0.0))
    await world.answer(flight, Working(spent=Usage(9, 9)), "x", flight)

    assert (await world.end("completed", flight)).tokens == 0


async def test_definitions_of_functions_are_read_too() -> None:
    world = World(tokens_per_day=5000)
    tool = FunctionTool("f", "d" * 40_000, {})
    with pytest.raises(QuotaRefusal):
        await world.reserve(ResponseRequest(tools=(tool,)))
