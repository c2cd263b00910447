"""What the gate holds and settles; over real doors in ``tests/server/realtime/test_quota.py``."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import structlog

from tests.server.quota.gating import ALICE, LONG, RESPONSE, World
from unbroken.server.auth.directory import MemoryDirectory
from unbroken.server.auth.principal import Principal
from unbroken.server.plan_tables import Mode
from unbroken.server.quota.base import Amount, Scope
from unbroken.server.quota.gate import UnknownPrincipal
from unbroken.sessions.entries import Entry, ResponseDone
from unbroken.sessions.ids import Nonce, PrincipalId
from unbroken.sessions.items import Usage
from unbroken.sessions.responder import Finish, Output, Working


async def test_what_was_said_is_held_before_it_is_let_through() -> None:
    world = World(tokens_per_day=4096)
    await world.reserve()
    seen = 0
    async for piece in world.metered(["x" * 400] * 100):
        if isinstance(piece, str):
            seen += 100
            assert (await world.used())["td"] >= seen

    assert piece == Finish("quota_exceeded")
    assert 4096 - 256 <= seen <= 4096


@pytest.mark.parametrize("size", [1, 3, 100, 4000])
async def test_f2_an_answer_counts_the_same_however_it_is_cut(size: int) -> None:
    """F2: streamed word by word, or all of it at once, where nobody tells what it took."""
    world = World()
    await world.reserve()
    text = "some words " * 364
    await world.answer(*(text[at : at + size] for at in range(0, len(text), size)))
    record = await world.end("cancelled", text=text)

    assert record.output_tokens == 1001
    assert (await world.used())["td"] == record.tokens


async def test_one_piece_that_is_too_large_is_not_let_through() -> None:
    world = World(tokens_per_day=4096)
    await world.reserve()

    assert await world.answer("x", "y" * 20_000) == ["x", Finish("quota_exceeded")]
    assert (await world.used())["td"] <= 4096


@pytest.mark.parametrize(
    "quota", [{"tokens_per_minute": 100}, {"cost_per_day": "0.001"}, {"tenant_tokens_per_day": 100}]
)
async def test_a_small_limit_is_no_reason_to_refuse_everything(quota: dict[str, Any]) -> None:
    """Of one, not all is reserved for the first part of an answer; and the last of it can be used."""
    world = World(**quota)
    await world.reserve()
    said = await world.answer(*["four"] * 200)

    assert said[-1] == Finish("quota_exceeded")
    assert 75 <= len(said) - 1 <= 100


async def test_cancelled_once_the_agent_was_asked_counts_what_it_was_sent() -> None:
    """It reads, and bills, whether anybody waits for it or not."""
    world = World()
    await world.reserve()
    await world.answer(Working(), text="x" * 4000)
    record = await world.end("cancelled")

    assert 1000 <= record.input_tokens <= 1100
    assert (record.output_tokens, record.is_estimate) == (0, True)


@pytest.mark.parametrize(
    ("outputs", "tokens"),
    [(["x" * 400], 100), ([Usage(10, 5), "x" * 400], 115), ([Working()], 0)],
    ids=["said", "told", "nothing"],
)
async def test_what_a_draining_node_ends_counts_as_far_as_it_came(outputs: list[Output], tokens: int) -> None:
    """It knows what was said: it isn't as if it had been lost."""
    world = World()
    await world.reserve()
    await world.answer(*outputs)

    assert (await world.end("interrupted")).tokens == tokens


async def test_what_was_lost_with_another_node_counts_nothing() -> None:
    world = World()
    await world.reserve()

    assert (await world.end("interrupted", text="x" * 400)).tokens == 0


@pytest.mark.parametrize("status", ["cancelled", "interrupted", "incomplete"])
async def test_what_ends_before_the_agent_was_asked_counts_nothing(status: str) -> None:
    world = World()
    await world.reserve()
    record = await world.end(status)

    assert (record.tokens, record.cost) == (0, 0)
    assert (await world.used())["rd"] == 1


async def test_without_budget_the_agent_is_not_asked() -> None:
    """It waited for so long that its budget lapsed, and another took that."""
    world = World(tokens_per_day=2000)
    await world.reserve()
    world.clock.advance(301)
    await world.ledger.settle("acme", "other", (Scope("u", ALICE.id),), Amount(1999), None)

    assert await world.answer("x") == [Finish("quota_exceeded")]
    assert not world.asked
    assert (await world.end("incomplete")).tokens == 0


async def test_what_a_provider_tells_in_between_is_held_with_the_next_piece() -> None:
    """An agent may have rounds of its own, which all send everything: the estimate knows of one alone."""
    world = World(tokens_per_day=10_000)
    await world.reserve()
    said = await world.answer("x", Usage(5000, 10), "y", Usage(12_000, 20), "z")

    assert said == ["x", Usage(5000, 10), "y", Usage(12_000, 20), Finish("quota_exceeded")]
    assert 5000 <= (await world.used())["td"] <= 10_000
    await world.end("incomplete", Usage(12_000, 20))
    # The last piece was cut off here, and said by the provider.
    assert (await world.used())["td"] == 12_021


@pytest.mark.parametrize("mode", ["on", "shadow"])
async def test_whom_nobody_knows_is_counted_for_nobody(mode: Mode) -> None:
    """Unless the operator would rather have nothing that isn't counted. In the shadow nobody is refused."""
    for is_strict in (False, True):
        world = World(is_strict=is_strict, mode=mode)
        if is_strict and mode == "on":
            with pytest.raises(UnknownPrincipal):
                await world.answer("x")
            assert not world.asked
        else:
            assert await world.answer("x") == ["x"]
        assert (await world.used())["rd"] == 0


async def test_a_turn_that_runs_is_settled_though_its_user_is_forgotten_meanwhile() -> None:
    world = World()
    await world.reserve()
    await world.answer("x" * 400)
    world.clock.advance(8 * 86_400)
    assert await world.directory.known(ALICE.id) is None

    assert (await world.end("completed", Usage(10, 100))).tokens == 110


class FrozenDirectory(MemoryDirectory):
    """Says nothing to anybody."""

    async def find(self, principal_id: PrincipalId) -> Principal | None:
        await asyncio.Event().wait()
        return await super().find(principal_id)


async def test_a_turn_that_can_not_be_settled_before_the_node_ends_is_said_to_be_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody could say in time for whom to count it."""
    monkeypatch.setattr("unbroken.server.quota.gate._SETTLING", 0.0)
    world = World(directory=FrozenDirectory)
    world.gate.ended(world.session, ResponseDone(RESPONSE, "completed", 1, (), usage=Usage(1, 1)))
    with structlog.testing.capture_logs() as logs:
        await world.gate.aclose()

    assert [entry["turns"] for entry in logs if entry["event"] == "usage lost"] == [1]


async def test_where_nothing_is_counted_a_turn_leaves_nothing_behind() -> None:
    """Its plan is none of those for which it is."""
    world = World(mode="off", tokens_per_day=10)
    await world.directory.note(ALICE)
    assert world.gate.asker(ALICE, None) is None
    assert await world.answer_in_rounds(("hi", ["x" * 4000, Usage(1, 1000)]), (LONG, ["y"])) == [
        "x" * 4000,
        Usage(1, 1000),
        "y",
    ]
    world.gate.ended(world.session, ResponseDone(RESPONSE, "completed", 1, (), usage=Usage(1, 1000)))
    await world.gate.settled()

    assert set((await world.used()).values()) == {0}
    assert await world.ledger.records("acme", 1) == []


@pytest.mark.parametrize(
    ("asked_by", "last_noted", "is_counted"), [("default", "free", True), ("free", "default", False)]
)
async def test_a_response_that_another_node_ran_is_settled_by_the_plan_that_it_was_asked_by(
    asked_by: str, last_noted: str, *, is_counted: bool
) -> None:
    """Whatever other plan its user has come by since."""
    world = World(tokens_per_day=10_000)
    await world.directory.note(replace(ALICE, plan=last_noted))
    world.begin(asked_by)
    done = ResponseDone(RESPONSE, "interrupted", 1, (), usage=Usage(1, 10))
    world.session.apply(Entry(world.session.applied + 1, Nonce(1), done))
    world.gate.ended(world.session, done)
    await world.gate.settled()

    assert len(await world.ledger.records("acme", 1)) == is_counted
