"""I4: one upstream call for all who ask at once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from tests.server.cache.asking import ASKED, Asked, Kitchen, kitchen, said, turn_of
from tests.server.realtime.serving import eventually as until
from unbroken.server.agents.base import UpstreamCut, Usage
from unbroken.server.cache.base import AnswerStore
from unbroken.server.cache.flight import Flights
from unbroken.sessions.items import Reused
from unbroken.sessions.responder import Handle, Output, Working


async def test_i4_all_who_ask_at_once_are_answered_by_one_call(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.outputs = [Working(), Handle("h"), "a ", "b", Usage(3, 2)]
    cache.gate.clear()
    askers = [asyncio.create_task(said(cache, turn_of(ASKED))) for _ in range(20)]
    await until(lambda: cache.counted.hits["flight"] == 19)
    cache.gate.set()
    answers = await asyncio.gather(*askers)
    await cache.settled()

    assert cache.calls == 1
    assert {answer.text for answer in answers} == {"a b"}
    bills = [[output for output in answer.outputs if isinstance(output, Usage)][-1] for answer in answers]
    assert sum(bill.input_tokens for bill in bills) == 3, "it is billed once"
    assert [answer.tier for answer in answers].count("flight") == 19
    handles = sum(Handle("h") in answer.outputs for answer in answers)
    assert handles == 1, "one alone may have the upstream stopped"


async def test_i4_who_comes_late_is_told_so_first_of_all_and_whatever_the_agent_says(
    store: AnswerStore,
) -> None:
    """An agent may say nothing of what it cost, and an asker may leave before it does."""
    cache = kitchen(store)
    cache.outputs = ["a ", "b"]
    cache.gate.clear()
    askers = [asyncio.create_task(said(cache, turn_of(ASKED))) for _ in range(2)]
    await until(lambda: cache.counted.hits["flight"] == 1)
    cache.gate.set()
    first, late = await asyncio.gather(*askers)

    assert first.outputs == ["a ", "b"]
    assert late.outputs == [Usage(reused=Reused("flight", 0.0)), "a ", "b"]


async def test_i4_who_comes_when_it_has_just_failed_asks_anew(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.outputs = [UpstreamCut()]  # type: ignore[list-item]
    with pytest.raises(UpstreamCut):
        await said(cache, turn_of(ASKED))
    cache.outputs = None
    assert (await said(cache, turn_of(ASKED))).text == "answer 2"


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_i4_who_leaves_leaves_alone(store: AnswerStore, leaver: int) -> None:
    cache = kitchen(store)
    cache.gate.clear()
    askers = [asyncio.create_task(said(cache, turn_of(ASKED))) for _ in range(3)]
    await until(lambda: cache.calls == 1 and cache.counted.hits["flight"] == 2)
    askers[leaver].cancel()
    with pytest.raises(asyncio.CancelledError):
        await askers[leaver]
    cache.gate.set()
    answers = [await asker for number, asker in enumerate(askers) if number != leaver]
    await cache.settled()

    assert {answer.text for answer in answers} == {"answer 1"}
    assert cache.calls == 1
    assert cache.stopped == 0
    bills = [[output for output in answer.outputs if isinstance(output, Usage)][-1] for answer in answers]
    assert sum(bill.input_tokens for bill in bills) == 3, "whoever stays pays"
    assert (await cache.ask(ASKED)).tier == "exact"


async def test_i4_the_last_one_takes_the_call_along(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.gate.clear()
    askers = [asyncio.create_task(said(cache, turn_of(ASKED))) for _ in range(2)]
    await until(lambda: cache.calls == 1 and cache.counted.hits["flight"] == 1)
    for asker in askers:
        asker.cancel()
    await asyncio.gather(*askers, return_exceptions=True)

    assert cache.stopped == 1, "by the time the last asker has gone"
    cache.gate.set()
    assert (await cache.ask(ASKED)).text == "answer 2", "a cancelled answer is nobody's"


async def test_i4_one_that_fails_as_it_is_ended_is_nobody_s_and_no_complaint() -> None:
    flights = Flights()

    async def respond() -> AsyncGenerator[Output, None]:
        try:
            await asyncio.Event().wait()
            yield ""
        except asyncio.CancelledError:
            raise UpstreamCut from None

    async def ask() -> AsyncGenerator[Output, None]:
        return respond()

    async def settle(_: Sequence[Output]) -> None:
        raise AssertionError("nobody wants it")

    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    seat = flights.board("key", ask, settle)
    await asyncio.sleep(0)
    await flights.leave(seat)
    del seat
    gc.collect()

    assert len(flights) == 0
    assert complaints == []


async def test_i4_a_failure_is_each_asker_s(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.outputs = ["half", UpstreamCut()]  # type: ignore[list-item]
    cache.gate.clear()
    askers = [asyncio.create_task(said(cache, turn_of(ASKED))) for _ in range(3)]
    await until(lambda: cache.counted.hits["flight"] == 2)
    cache.gate.set()
    assert [type(exc) for exc in await asyncio.gather(*askers, return_exceptions=True)] == [UpstreamCut] * 3
    cache.outputs = None
    assert (await cache.ask(ASKED)).tier is None


async def test_i4_a_slow_asker_holds_up_nobody_and_misses_nothing(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.outputs = [f"{number} " for number in range(2000)]
    async with aclosing(cache.begin(turn_of(ASKED))) as slow:
        first = await anext(slow)
        fast = await said(cache, turn_of(ASKED))
        rest = [output async for output in slow]
    assert [first, *rest] == cache.outputs
    assert fast.text == "".join(map(str, cache.outputs))


async def test_i4_the_agent_waits_for_askers_who_do_not_read(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.outputs = [f"{number} " for number in range(2000)]
    async with aclosing(cache.begin(turn_of(ASKED))) as slow:
        await anext(slow)
        (flight,) = cache.stage._flights._flights.values()
        await until(lambda: len(flight.outputs) >= 256)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(flight.outputs) < 300


async def test_what_ends_takes_its_calls_along(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.gate.clear()
    asker = asyncio.create_task(said(cache, turn_of(ASKED)))
    await until(lambda: cache.calls == 1)
    await cache.stage.stop()
    with pytest.raises(asyncio.CancelledError):
        await asker
    assert cache.stopped == 1
    assert isinstance(await Kitchen(store).ask("x y z"), Asked)
