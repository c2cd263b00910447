"""Threads get on beside a loop that has much to do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from tests.server.realtime.serving import eventually
from unbroken.server.computing_threads import ComputingThreads, Way


class Ways:
    """Counts how often the loop made way, and says how much it has worked."""

    def __init__(self) -> None:
        self.count = 0
        self.share = 1.0

    def make(self, seconds: float) -> None:
        assert 0 < seconds < 0.001
        self.count += 1

    def worked(self) -> float:
        return self.share * time.monotonic()


@pytest.fixture
def ways() -> Ways:
    return Ways()


@pytest.fixture
def way(ways: Ways) -> Way:
    return Way(make=ways.make, worked=ways.worked)


@pytest.fixture
def threads(way: Way) -> Iterator[ComputingThreads]:
    with ComputingThreads(1, "test", way) as each:
        yield each


async def test_the_loop_makes_way_while_something_is_computed(threads: ComputingThreads, ways: Ways) -> None:
    let_go = threading.Event()
    computed = asyncio.get_running_loop().run_in_executor(threads, let_go.wait)
    await eventually(lambda: ways.count >= 3)
    let_go.set()

    assert await computed


async def test_and_not_when_nothing_is(threads: ComputingThreads, way: Way, ways: Ways) -> None:
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(threads, int, "3") == 3
    await eventually(lambda: way._timer is None)
    before = ways.count
    over = asyncio.Event()
    loop.call_later(0.01, over.set)  # five times as long as it would take
    await over.wait()

    assert ways.count == before


async def test_a_loop_that_rests_by_itself_makes_no_way(
    threads: ComputingThreads, way: Way, ways: Ways
) -> None:
    ways.share = 0.5
    let_go = threading.Event()
    loop = asyncio.get_running_loop()
    computed = loop.run_in_executor(threads, let_go.wait)
    ticks: list[object] = []
    for _ in range(5):
        ticks.append(way._timer)
        await eventually(lambda: way._timer is not ticks[-1])
    assert ways.count == 0

    ways.share = 1.0
    await eventually(lambda: ways.count > 0)
    let_go.set()
    assert await computed


async def test_pools_share_one_timer_however_much_there_is_to_do(way: Way) -> None:
    """Each tick lets every thread that wants it have the interpreter: one more would double that."""
    let_go = threading.Event()
    loop = asyncio.get_running_loop()
    timers, computed = set(), []
    with ComputingThreads(2, "one", way) as one, ComputingThreads(1, "other", way) as other:
        for pool in (one, other, one, other):
            computed.append(loop.run_in_executor(pool, let_go.wait))
            timers.add(way._timer)
        let_go.set()

        assert await asyncio.gather(*computed) == [True] * 4
    assert len(timers) == 1


def test_every_loop_makes_way_in_its_turn(threads: ComputingThreads, ways: Ways) -> None:
    async def compute() -> None:
        let_go = threading.Event()
        computed = asyncio.get_running_loop().run_in_executor(threads, let_go.wait)
        before = ways.count
        await eventually(lambda: ways.count > before)
        let_go.set()
        await computed

    asyncio.run(compute())
    asyncio.run(compute())


def test_without_a_loop_it_is_a_pool_like_any_other(threads: ComputingThreads, ways: Ways) -> None:
    assert threads.submit(int, "3").result() == 3
    assert ways.count == 0


async def test_what_fails_fails(threads: ComputingThreads) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await asyncio.get_running_loop().run_in_executor(threads, int, "three")
