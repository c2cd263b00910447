"""What an input may take, where nobody waits for it. Who is next is tested with the firewall."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from tests.server.realtime.serving import eventually
from unbroken.server.guards.injection.examiner import Examination, Steps
from unbroken.server.guards.injection.turns import Spent, Turns
from unbroken.sessions.ids import PrincipalId

ANN, BEN = PrincipalId("ann"), PrincipalId("ben")
HARMLESS = Examination(0.0, ())


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as each:
        yield each


def steps(clock: FakeClock, count: int, seconds: float) -> Steps:
    """Take *count* steps, each of so many seconds."""
    for number in range(count):
        if number:
            yield
        clock.advance(seconds)
    return HARMLESS


async def test_what_takes_too_long_is_given_up(threads: ThreadPoolExecutor) -> None:
    clock, spent = FakeClock(), Spent()
    turns = Turns(threads, clock, 1, 9, timeout=2.5, is_aside=True)

    with pytest.raises(TimeoutError):
        await turns.examined(steps(clock, 100, 1.0), ANN, spent)
    assert 3 <= spent.seconds <= 4
    assert await turns.examined(steps(clock, 2, 1.0), ANN, Spent()) == HARMLESS


async def test_the_time_is_that_of_all_texts_of_one_input(threads: ThreadPoolExecutor) -> None:
    clock, spent = FakeClock(), Spent()
    turns = Turns(threads, clock, 1, 9, timeout=2.5, is_aside=True)
    await turns.examined(steps(clock, 2, 1.0), ANN, spent)

    with pytest.raises(TimeoutError):
        await turns.examined(steps(clock, 3, 1.0), ANN, spent)


async def test_what_it_waits_for_others_does_not_count(threads: ThreadPoolExecutor) -> None:
    clock = FakeClock()
    turns = Turns(threads, clock, 1, 9, timeout=2.5, is_aside=True)
    names = [PrincipalId(f"p{number}") for number in range(4)]
    spent = [Spent() for _ in names]

    found = await asyncio.gather(
        *(turns.examined(steps(clock, 2, 1.0), name, each) for name, each in zip(names, spent, strict=True))
    )

    assert found == [HARMLESS] * 4
    assert [each.seconds for each in spent] == [2.0] * 4


async def test_one_who_is_cut_off_leaves_their_turn_to_others(threads: ThreadPoolExecutor) -> None:
    clock = FakeClock()
    turns = Turns(threads, clock, 1, 9)
    going, waiting = (
        asyncio.create_task(turns.examined(steps(clock, 10**6, 0.0), ANN, Spent())) for _ in range(2)
    )
    await asyncio.sleep(0)
    for each in (waiting, going):
        each.cancel()
    await eventually(lambda: going.done() and waiting.done())

    assert await turns.examined(steps(clock, 2, 1.0), BEN, Spent()) == HARMLESS


class Slow(Executor):
    """Threads that have begun what they were given, and don't end it."""

    def __init__(self) -> None:
        self.given: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given.append(Future())
        return self.given[-1]


@pytest.mark.parametrize(("is_aside", "given"), [(False, 2), (True, 1)])
async def test_a_thread_has_the_next_part_at_hand(is_aside: bool, given: int) -> None:
    """A loop that is busy hears late of what was done: until then the thread would do nothing."""
    threads = Slow()
    turns = Turns(threads, FakeClock(), 1, 9, is_aside=is_aside)
    examined = [
        asyncio.create_task(turns.examined(steps(FakeClock(), 1, 0.0), PrincipalId(f"p{number}"), Spent()))
        for number in range(4)
    ]
    await eventually(lambda: len(threads.given) == given)
    for _ in range(10):
        await asyncio.sleep(0)

    assert len(threads.given) == given
    for each in examined:
        each.cancel()
    await asyncio.wait(examined)
