"""Crowds are served in the order in which they came, so many at a time, and no place is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.utils import ClientDisconnected

from tests.server.realtime.serving import eventually
from unbroken.server.transports.turnstile import Turnstile

_LONG = 3600.0


class Someone:
    """A client, and what it does inside until it is told to leave."""

    def __init__(self, turnstile: Turnstile, *, is_known: bool = True) -> None:
        self.is_inside = False
        self.callback: Callable[[], None] | None = None
        self.has_left = False
        self._is_done = asyncio.Event()
        self.task = asyncio.create_task(self._come(turnstile, is_known=is_known))

    def on_departure(self, callback: Callable[[], None] | None) -> None:
        self.callback = callback
        if callback is not None and self.has_left:
            callback()

    def leave(self) -> None:
        self.has_left = True
        if self.callback is not None:
            self.callback()

    def end(self) -> None:
        self._is_done.set()

    async def _come(self, turnstile: Turnstile, *, is_known: bool) -> None:
        async with turnstile.turn(self if is_known else None):
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
    crowd = [Someone(turnstile, is_known=number % 2 == 0) for number in range(5)]
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
    crowd[1].leave()
    await settle()
    assert turnstile.waiting == 1, "it is out at once, and not when its turn would come"
    with pytest.raises(ClientDisconnected):
        await crowd[1].task
    crowd[0].end()
    await settle()
    assert crowd[2].is_inside
    assert crowd[2].callback is None, "nobody is told any more"
    await ended(*crowd)


async def test_who_had_left_before_is_not_served() -> None:
    turnstile = Turnstile(1, _LONG)
    first, late = Someone(turnstile), Someone(turnstile)
    late.has_left = True
    await settle()
    with pytest.raises(ClientDisconnected):
        await late.task
    await ended(first)


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


async def test_who_waits_for_something_else_keeps_nobody_from_coming_in() -> None:
    """A store that hangs takes places for a moment, and only once."""
    turnstile = Turnstile(1, 0.001)
    crowd = [Someone(turnstile) for _ in range(3)]
    await eventually(lambda: all(each.is_inside for each in crowd))
    await ended(*crowd)
    patient = Turnstile(1, _LONG)
    patient._free = turnstile._free
    again = [Someone(patient) for _ in range(2)]
    await settle()
    assert [each.is_inside for each in again] == [True, False], "a place was left twice"
    await ended(*again)


def _do(someone: Someone, step: str) -> None:
    if step == "cancel":
        someone.task.cancel()
    elif step == "leave":
        someone.leave()
    else:
        someone.end()


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["come", "end", "leave", "cancel", "turn"]), st.integers(0, 7))),
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
