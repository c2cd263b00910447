"""What a hit is, and in which modes there are any."""

from __future__ import annotations

import asyncio
import functools
from contextlib import aclosing
from dataclasses import replace

from tests.server.cache.asking import ASKED, REWORDED, SEMANTIC, kitchen, turn_of
from tests.server.realtime.serving import eventually as until
from unbroken.server.agents.base import Usage
from unbroken.server.auth.principal import Principal
from unbroken.server.cache.base import AnswerStore

# What a hit is.


async def test_a_hit_says_what_it_is_and_costs_nothing(store: AnswerStore) -> None:
    cache = kitchen(store)
    await cache.ask(ASKED)
    cache.clock.advance(7)
    bill = next(output for output in (await cache.ask(ASKED)).outputs if isinstance(output, Usage))
    assert (bill.input_tokens, bill.output_tokens) == (0, 0)
    assert bill.reused.tier == "exact"  # type: ignore[union-attr]
    assert bill.reused.age == 7  # type: ignore[union-attr]


async def test_a_hit_may_be_billed_in_full(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, is_free=False))
    await cache.ask(ASKED)
    bill = next(output for output in (await cache.ask(ASKED)).outputs if isinstance(output, Usage))
    assert (bill.input_tokens, bill.output_tokens) == (3, 2)


async def test_a_hit_comes_piece_by_piece_at_its_pace(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, pace=10))
    cache.outputs = ["a ", "b ", "c"]
    await cache.ask(ASKED)
    pieces: list[str] = []

    async def read() -> None:
        async for output in cache.begin(turn_of(ASKED)):
            pieces.extend([output] if isinstance(output, str) else [])

    reading = asyncio.create_task(read())
    for count in (1, 2, 3):
        await until(functools.partial(lambda count: len(pieces) == count, count))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(pieces) == count, "no piece before its time"
        cache.clock.advance(0.1)
    await reading
    assert pieces == cache.outputs


async def test_a_hit_can_be_left(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, pace=1))
    cache.outputs = ["a ", "b"]
    await cache.ask(ASKED)
    async with aclosing(cache.begin(turn_of(ASKED))) as answered:
        await anext(answered)
        await anext(answered)
    assert cache.clock.pending == 0
    assert len(cache.stage._flights) == 0


# Modes.


async def test_in_shadow_each_is_asked_and_what_would_have_been_said_is_compared(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, modes={"default": "shadow"}))
    cache.outputs = ["hold the button"]
    assert [(await cache.ask(ASKED)).tier for _ in range(2)] == [None, None]
    cache.outputs = ["something else altogether"]
    assert (await cache.ask(REWORDED)).tier is None
    assert cache.calls == 3
    assert cache.counted.comparisons == {("exact", True): 1, ("semantic", False): 1}
    assert cache.counted.hits == {}


async def test_a_share_of_hits_is_asked_all_the_same(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, sample=0.1))
    await cache.ask(ASKED)
    cache.draw = 0.05
    assert (await cache.ask(ASKED)).tier is None
    cache.draw = 0.5
    assert (await cache.ask(ASKED)).tier == "exact"
    assert sum(cache.counted.comparisons.values()) == 1


async def test_the_tiers_have_modes_of_their_own(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, semantic={"default": "shadow"}))
    await cache.ask(ASKED)
    assert (await cache.ask(REWORDED)).tier is None
    assert (await cache.ask(ASKED)).tier == "exact"
    assert cache.counted.comparisons.total() == 1


async def test_a_plan_has_modes_of_its_own(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, modes={"default": "on", "free": "off"}))
    free = Principal("f", plan="free")
    await cache.directory.note(free)
    for _ in range(2):
        assert (await cache.ask(ASKED, who=free)).tier is None
    assert cache.counted.misses == {}
    await cache.ask(ASKED)
    assert (await cache.ask(ASKED)).tier == "exact"
