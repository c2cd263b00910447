from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import uvloop

from tests.fakes.clock import FakeClock
from unbroken.sessions.clock import Clock, SystemClock


async def test_the_system_clock_is_the_machine_s() -> None:
    clock: Clock = SystemClock()
    before, after = time.monotonic(), clock.monotonic()
    assert after >= before
    assert abs(clock.time() - time.time()) < 60

    made = asyncio.Event()
    clock.call_later(3600, lambda: None).cancel()
    clock.call_later(0, made.set)
    await made.wait()


async def test_a_dropped_call_is_not_made() -> None:
    clock = SystemClock()
    calls: list[int] = []
    made = asyncio.Event()
    dropped = clock.call_later(0, lambda: calls.append(1))
    dropped.cancel()
    dropped.cancel()
    clock.call_later(0, made.set)
    await made.wait()

    assert calls == []


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_no_call_comes_early(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Else whoever asks then whether it is time is told that it isn't, and waits for ever."""

    async def early_by(delay: float) -> float:
        clock = SystemClock()
        called = asyncio.get_running_loop().create_future()
        due = clock.monotonic() + delay
        clock.call_later(delay, lambda: called.set_result(due - clock.monotonic()))
        early: float = await called
        return early

    async def main() -> list[float]:
        return [await early_by(0.002 + 0.0004 * (number % 7)) for number in range(60)]

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert max(runner.run(main())) <= 0


def test_the_fake_clock_makes_calls_in_the_order_they_come_due() -> None:
    """What the fake promises, since other tests rest on it."""
    clock = FakeClock()
    calls: list[tuple[str, float]] = []
    start = clock.monotonic()

    def again() -> None:
        calls.append(("again", clock.monotonic() - start))
        clock.call_later(1, lambda: calls.append(("later", clock.monotonic() - start)))

    clock.call_later(3, lambda: calls.append(("third", clock.monotonic() - start)))
    clock.call_later(1, again)
    clock.call_later(9, lambda: calls.append(("never", 0.0)))
    clock.call_later(2, lambda: calls.append(("dropped", 0.0))).cancel()
    clock.advance(4)

    assert calls == [("again", 1), ("later", 2), ("third", 3)]
    assert clock.monotonic() == start + 4
    assert clock.pending == 1
