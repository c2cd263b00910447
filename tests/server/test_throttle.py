from __future__ import annotations

from tests.fakes.clock import FakeClock
from unbroken.server.throttle import Throttle


def test_some_are_said_a_minute_and_the_others_counted() -> None:
    clock = FakeClock()
    throttle = Throttle(clock, lines=2)
    assert [throttle.admit("a") for _ in range(5)] == [0, 0, None, None, None]
    clock.advance(59)
    assert throttle.admit("a") is None
    clock.advance(1)

    assert [throttle.admit("a") for _ in range(3)] == [4, 0, None]


def test_kinds_are_counted_apart() -> None:
    throttle = Throttle(FakeClock(), lines=1)

    assert [throttle.admit(kind) for kind in "aabb"] == [0, None, 0, None]
