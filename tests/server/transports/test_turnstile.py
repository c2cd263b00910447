"""Crowds are served in the order in which they came, so many at a time, and no place is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.transports.turnstile import TurnMissed, Turnstile

_LONG = 3600.0


class Someone:
    """A client, and what it does inside until it is told to end."""

    def __init__(self, turnstile: Turnstile) -> None:
        self.is_inside = False
        self._is_done = asyncio.Event()
        self.task = asyncio.create_task(self._come(turnstile))

    def end(self) -> None:
        self._is_done.set()

    async def _come(self, turnstile: Turnstile) -> None:
        async with turnstile.turn():
            self.is_inside = True
            try:
                await self._is_done.wait()
            finally:
                self.is_inside = False


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def ended(*crowd: Someone) -> None:
    for each in crowd:
        each.end()
    await asyncio.gather(*(each.task for each in crowd), return_exceptions=True)


async def test_the_first_are_served_first() -> None:
    turnstile = Turnstile(2, _LONG)
    crowd = [Someone(turnstile) for _ in range(5)]
    await settle()
    assert [each.is_inside for each in crowd] == [True, True, False, False, False]
    assert turnstile.waiting == 3
    crowd[1].end()
    await settle()
    assert [each.is_inside for each in crowd] == [True, False, True, False, False]
    await ended(*crowd)
    assert turnstile.waiting == 0


async def test_who_gives_up_is_not_served_and_keeps_no_place() -> None:
    turnstile = Turnstile(1, _LONG)
    crowd = [Someone(turnstile) for _ in range(3)]
    await settle()
    crowd[1].task.cancel()
    await settle()
    assert turnstile.waiting == 1, "it is out at once, and not when its turn would come"
    crowd[0].task.cancel()
    await settle()
    assert crowd[2].is_inside
    await ended(*crowd)


async def test_a_place_is_passed_on_by_who_is_cancelled_as_it_is_given() -> None:
    turnstile = Turnstile(1, _LONG)
    crowd = [Someone(turnstile) for _ in range(3)]
    await settle()
    crowd[0].task.cancel()
    await asyncio.sleep(0)  # its place is the second's, which doesn't know it yet
    crowd[1].task.cancel()
    await settle()
    assert not crowd[1].is_inside
    assert crowd[2].is_inside
    await ended(*crowd)


class Clockwork(asyncio.SelectorEventLoop):
    """A loop whose time is the test's."""

    now = 0.0

    def time(self) -> float:
        return self.now


def played(play: Callable[[Clockwork], Coroutine[None, None, None]]) -> None:
    loop = Clockwork()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(play(loop))


def test_who_waits_for_something_else_keeps_nobody_from_coming_in() -> None:
    """A store that hangs takes places for a moment, and each only once."""

    async def play(loop: Clockwork) -> None:
        turnstile = Turnstile(1, 0.4)
        crowd = [Someone(turnstile) for _ in range(3)]
        for inside in (1, 2, 3):
            await settle()
            assert sum(each.is_inside for each in crowd) == inside
            for _ in range(4):
                loop.now += 0.1
                await settle()
        await ended(*crowd)
        assert turnstile._free == 1

    played(play)


def test_who_has_a_place_of_a_busy_loop_keeps_it_for_longer_and_not_for_ever() -> None:
    """It is late with everything: nobody is known to wait, and yet they may."""

    async def play(loop: Clockwork) -> None:
        turnstile = Turnstile(1, 0.4, most=4.5)
        crowd = [Someone(turnstile) for _ in range(2)]
        await settle()
        for _ in range(14):
            loop.now += 0.3
            await settle()
        assert not crowd[1].is_inside
        loop.now += 0.4
        await settle()
        assert crowd[1].is_inside
        await ended(*crowd)
        assert turnstile._free == 1

    played(play)


def test_nobody_waits_for_longer_than_is_said() -> None:
    async def play(loop: Clockwork) -> None:
        turnstile = Turnstile(1, _LONG, longest=5)
        first, late = Someone(turnstile), Someone(turnstile)
        await settle()
        loop.now += 6
        with pytest.raises(TurnMissed):
            await late.task
        await ended(first)
        assert (turnstile.waiting, turnstile._free) == (0, 1)

    played(play)


async def test_who_waits_is_let_through_where_there_is_something_else_to_tell() -> None:
    turnstile = Turnstile(1, _LONG)
    crowd = [Someone(turnstile) for _ in range(3)]
    await settle()
    turnstile.open()
    await settle()
    assert all(each.is_inside for each in crowd)
    late = Someone(turnstile)
    crowd[0].end()
    await settle()
    assert not late.is_inside
    await ended(*crowd, late)
    assert (turnstile.waiting, turnstile._free) == (0, 1)


def _do(someone: Someone, step: str) -> None:
    if step == "cancel":
        someone.task.cancel()
    else:
        someone.end()


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["come", "end", "cancel", "turn"]), st.integers(0, 7))),
)
def test_no_place_is_lost_and_none_is_given_twice(places: int, steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        turnstile = Turnstile(places, _LONG)
        crowd: list[Someone] = []
        for step, number in steps:
            someone = crowd[number % len(crowd)] if crowd else None
            if step == "come":
                crowd.append(Someone(turnstile))
            elif step == "turn":
                await asyncio.sleep(0)
            elif someone is not None:
                _do(someone, step)
            assert sum(each.is_inside for each in crowd) <= places
        await settle()
        inside = sum(each.is_inside for each in crowd)
        assert inside == places or not turnstile.waiting, "somebody waits beside a free place"
        await ended(*crowd)
        assert (turnstile.waiting, turnstile._free) == (0, places)

    asyncio.run(play())
