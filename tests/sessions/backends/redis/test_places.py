from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import TimeoutError

from tests.fakes.clock import FakeClock
from unbroken.sessions.backends.redis.places import Places, TooManyCalls


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def places(clock: FakeClock, count: int = 1, patience: float = 60.0) -> Places:
    return Places(count, patience, clock.monotonic)


async def test_so_many_at_once_and_the_rest_in_the_order_in_which_they_came() -> None:
    given = list[int]()
    these = places(FakeClock(), 2)

    async def call(number: int) -> None:
        since = await these.take()
        given.append(number)
        await gates[number].wait()
        these.give_back(since, is_answered=True, is_late=False)

    gates = [asyncio.Event() for _ in range(5)]
    tasks = [asyncio.create_task(call(number)) for number in range(5)]
    await turns()
    assert given == [0, 1]
    gates[1].set()
    await turns()
    assert given == [0, 1, 2]
    for gate in gates:
        gate.set()
    await asyncio.gather(*tasks)
    assert given == [0, 1, 2, 3, 4]
    assert await these.take() is not None, "all places are free"


async def test_whoever_has_no_turn_in_time_is_told_so() -> None:
    these = places(FakeClock(), patience=0.0)
    await these.take()
    with pytest.raises(TooManyCalls):
        await these.take()


async def test_behind_a_call_that_a_server_does_not_answer_nobody_waits_to_find_out_the_same() -> None:
    clock = FakeClock()
    these = places(clock)
    since = await these.take()
    waiting = [asyncio.create_task(these.take()) for _ in range(3)]
    await turns()
    clock.advance(2)
    these.give_back(since, is_answered=False, is_late=True)
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(each) for each in results] == [TimeoutError] * 3
    assert await these.take() == clock.monotonic(), "the place is free, and whoever comes next asks"


async def test_one_late_call_among_others_that_are_answered_is_nobody_else_s_business() -> None:
    clock = FakeClock()
    these = places(clock, 2)
    late, other = await these.take(), await these.take()
    waiting = asyncio.create_task(these.take())
    after = asyncio.create_task(these.take())
    await turns()
    clock.advance(1)
    these.give_back(other, is_answered=True, is_late=False)
    clock.advance(1)
    these.give_back(late, is_answered=False, is_late=True)
    assert await waiting == await after == clock.monotonic()


@pytest.mark.parametrize("is_given", [False, True])
async def test_whoever_leaves_takes_no_place_along(is_given: bool) -> None:
    these = places(FakeClock())
    since = await these.take()
    leaving, staying = [asyncio.create_task(these.take()) for _ in range(2)]
    await turns()
    if is_given:
        these.give_back(since, is_answered=True, is_late=False)
    leaving.cancel()
    if not is_given:
        await turns()
        these.give_back(since, is_answered=True, is_late=False)
    assert await staying is not None
    assert leaving.cancelled()
