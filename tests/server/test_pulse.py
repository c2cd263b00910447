from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from tests.fakes.clock import FakeClock
from unbroken.server.overload import Level, Overload, OverloadLimits
from unbroken.server.pulse import Pulse


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.lags: list[float] = []
        self.levels: list[Level] = []
        self.is_loading = False
        self.overload = Overload(OverloadLimits())
        self.pulse = Pulse(
            self.overload,
            self.clock,
            observe=self.lags.append,
            on_change=self.levels.append,
            is_excused=lambda: self.is_loading,
        )
        self.pulse.start()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_each_beat_tells_how_late_it_is(bench: Bench) -> None:
    bench.clock.advance(0.25)
    bench.clock.block(0.45)

    assert bench.lags == pytest.approx([0, 0, 0.4])


def test_being_late_is_counted_once(bench: Bench) -> None:
    """The next beat is due after the one that was late, not where it would have been."""
    bench.clock.block(3.1)
    bench.clock.advance(0.95)

    assert bench.lags[0] == pytest.approx(3.0)
    assert bench.lags[1:] == pytest.approx([0] * 9, abs=1e-9)


def test_levels_are_told_and_logged_when_they_change(bench: Bench) -> None:
    with capture_logs() as logs:
        for _ in range(30):
            bench.clock.block(0.4)
        bench.clock.advance(30)

    assert bench.levels == [Level.BUSY, Level.CALM]
    assert [(line["log_level"], line["event"], line["level"]) for line in logs] == [
        ("warning", "overload changed", "busy"),
        ("info", "overload changed", "calm"),
    ]
    assert logs[0]["median_lag"] == 0.3


def test_a_long_block_is_logged_but_not_each(bench: Bench) -> None:
    with capture_logs() as logs:
        for _ in range(4):
            bench.clock.block(0.7)
            bench.clock.advance(5)
        bench.clock.advance(60)
        bench.clock.block(0.8)

    assert [(line["event"], line["seconds"], line["unsaid"]) for line in logs] == [
        ("event loop blocked", pytest.approx(0.6, abs=0.11), 0),
        ("event loop blocked", pytest.approx(0.7, abs=0.11), 3),
    ]


def test_a_model_that_is_loaded_may_hold_the_loop(bench: Bench) -> None:
    bench.is_loading = True
    with capture_logs() as logs:
        bench.clock.block(4.0)

    assert logs == []
    assert bench.levels == []
    assert bench.lags[-1] == pytest.approx(3.9), "it is measured all the same"


def test_nothing_is_left_when_it_is_stopped(bench: Bench) -> None:
    bench.pulse.stop()
    bench.pulse.stop()
    bench.clock.advance(1)

    assert bench.lags == []
    assert bench.clock.pending == 0
