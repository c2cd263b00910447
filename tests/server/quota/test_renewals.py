"""What is held of turns that run, whether they say anything or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tests.server.quota.gating import RESPONSE, SESSION, World, given_of, turn_of
from unbroken.server.quota.refusal import QuotaRefusal
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.responder import Finish, Output


class SilentAgent:
    """Says one word, then nothing until it *goes_on*."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()

    async def say(self) -> AsyncGenerator[Output, None]:
        yield "one"
        await self.goes_on.wait()
        yield "two"


async def silence(world: World, seconds: int) -> None:
    """Have so much time pass in which no answer says anything."""
    for _ in range(seconds // 10):
        world.clock.advance(10)
        await world.gate.settled()


async def test_a_turn_that_is_silent_for_long_keeps_its_budget_and_its_place() -> None:
    """As long as its stall timeout allows: nobody is let in beyond the cap, and it goes on."""
    world, agent = World(turns=1), SilentAgent()
    await world.reserve()
    answer = world.gate.metered(turn_of(), given_of(""), agent.say())
    assert await anext(answer) == "one"
    speaking = asyncio.ensure_future(anext(answer))
    await silence(world, 3600)
    with pytest.raises(QuotaRefusal, match="run or wait"):
        await world.reserve(response_id=ResponseId("resp_2"))
    agent.goes_on.set()

    assert await speaking == "two"
    assert [piece async for piece in answer] == []
    assert world.clock.pending == 0, "nothing runs that would be held"


async def test_what_waits_behind_a_turn_that_is_silent_keeps_its_place() -> None:
    world, agent = World(turns=2), SilentAgent()
    await world.reserve()
    await world.reserve(response_id=ResponseId("resp_2"))
    world.waiting = [ResponseId("resp_2")]
    answer = world.gate.metered(turn_of(), given_of(""), agent.say())
    await anext(answer)
    await silence(world, 3600)

    assert (await world.used())["turns"] == 2
    await answer.aclose()


async def test_what_a_node_held_that_has_ended_is_given_back() -> None:
    world, agent = World(turns=1), SilentAgent()
    await world.reserve()
    answer = world.gate.metered(turn_of(), given_of(""), agent.say())
    await anext(answer)
    await world.gate.aclose()
    assert world.clock.pending == 0
    await silence(world, 310)

    assert (await world.used())["turns"] == 0
    await answer.aclose()


async def test_a_turn_whose_node_stood_still_for_too_long_does_not_go_on_beyond_the_cap() -> None:
    """Its place has gone to another, which the timer that comes late can't know."""
    world, agent = World(turns=1), SilentAgent()
    await world.reserve()
    answer = world.gate.metered(turn_of(), given_of(""), agent.say())
    await anext(answer)
    world.clock.now += 301
    await world.reserve(response_id=ResponseId("resp_2"))
    await silence(world, 10)
    agent.goes_on.set()

    assert [piece async for piece in answer] == [Finish("quota_exceeded")]
    assert (await world.used())["turns"] == 1


async def test_what_silent_turns_have_is_held_once_at_a_time_however_long_that_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who asks for a turn waits for the same ledger."""
    world, agent = World(turns=1), SilentAgent()
    await world.reserve()
    asked: list[str] = []
    goes_on = asyncio.Event()

    async def slow(tenant: str, turn: str, *, lifetime: float) -> None:
        asked.append(turn)
        await goes_on.wait()

    monkeypatch.setattr(world.ledger, "keep", slow)
    answer = world.gate.metered(turn_of(), given_of(""), agent.say())
    await anext(answer)
    for _ in range(20):
        world.clock.advance(20)
        await asyncio.sleep(0)
    assert asked == [f"{SESSION}:{RESPONSE}"]
    goes_on.set()
    await world.gate.settled()
    await silence(world, 40)

    assert len(asked) > 1
    await answer.aclose()
