from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from unbroken.server.overload import Level, Overload, OverloadLimits

LIMITS = OverloadLimits(busy_lag=0.2, swamped_lag=1.0, samples=20, hold=5.0)
LAGS = (0.0, 0.09, 0.11, 0.19, 0.2, 0.49, 0.51, 0.99, 1.0, 9.0)
"""About each threshold and its half."""


def fed(lags: list[float], limits: OverloadLimits = LIMITS, *, interval: float = 0.1) -> list[Level]:
    overload, now, levels = Overload(limits), 0.0, []
    for lag in lags:
        now += interval + lag
        levels.append(overload.note(lag, now))
    return levels


def test_a_loop_that_is_late_again_and_again_is_overloaded() -> None:
    levels = fed([0.25] * 20)

    assert levels[8] is Level.CALM
    assert levels[9:] == [Level.BUSY] * 11, "as soon as half of the samples are late"
    assert fed([1.0] * 20)[-1] is Level.SWAMPED


@given(st.floats(0.0, 3600.0), st.integers(0, 60))
def test_one_callback_that_holds_the_loop_decides_nothing(lag: float, place: int) -> None:
    """However long: a model that is loaded keeps the loop for seconds."""
    lags = [0.001] * 60
    lags.insert(place, lag)

    assert set(fed(lags)) == {Level.CALM}


def test_it_does_not_flap_about_its_threshold() -> None:
    """Between half of the lag and the lag it stays as it is."""
    levels = fed([0.21] * 20 + [0.19, 0.21, 0.11] * 100)

    assert set(levels[9:]) == {Level.BUSY}
    assert set(fed([0.19, 0.11] * 200)) == {Level.CALM}


def test_it_recovers_after_a_while_of_calm() -> None:
    levels = fed([0.3] * 20 + [0.0] * 70)
    calm = levels.index(Level.CALM, 20)

    assert set(levels[calm:]) == {Level.CALM}
    assert 20 + 10 + 49 <= calm <= 20 + 10 + 51, "when the median has been low for five seconds"


def test_responses_are_begun_again_before_sessions_are() -> None:
    levels = fed([1.5] * 20 + [0.3] * 100)

    assert levels[19] is Level.SWAMPED
    assert levels[-1] is Level.BUSY


def test_zero_turns_it_off() -> None:
    assert set(fed([60.0] * 50, OverloadLimits(busy_lag=0.0))) == {Level.CALM}
    assert set(fed([60.0] * 50, OverloadLimits(swamped_lag=0.0))) == {Level.CALM, Level.BUSY}


def test_what_is_shown_is_of_the_latest_samples() -> None:
    overload = Overload(LIMITS)
    overload.note(7.0, 1.0)
    assert (overload.median, overload.worst) == (0.0, 7.0)
    for number in range(20):
        overload.note(0.01 * number, 2.0 + number)

    assert (round(overload.median, 3), round(overload.worst, 3)) == (0.1, 0.19)


class Walk(RuleBasedStateMachine):
    """Any samples at all: what is promised of levels holds at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.overload = Overload(LIMITS)
        self.now = 0.0
        self.seen: list[tuple[float, float, Level]] = [(0.0, 0.0, Level.CALM)]

    @rule(lags=st.lists(st.sampled_from(LAGS), max_size=30))
    def go_on(self, lags: list[float]) -> None:
        for lag in lags:
            self.now += 0.1 + lag
            level = self.overload.note(lag, self.now)
            self.seen.append((self.now, self.overload.median, level))

    @rule(count=st.integers(1, 80))
    def rest(self, count: int) -> None:
        self.go_on([0.0] * count)

    def teardown(self) -> None:
        """Judge all that was seen at once: each step is looked at as it was then."""
        self.levels_rise_with_cause_and_fall_after_calm()
        self.it_never_leaves_a_level_sooner_than_promised()

    def levels_rise_with_cause_and_fall_after_calm(self) -> None:
        thresholds = {Level.BUSY: LIMITS.busy_lag, Level.SWAMPED: LIMITS.swamped_lag}
        for threshold_level, threshold in thresholds.items():
            low_since: float | None = 0.0
            was_on = False
            for now, median, level in self.seen:
                is_on = level >= threshold_level
                if median >= threshold / 2:
                    low_since = None
                elif low_since is None:
                    low_since = now
                if is_on and not was_on:
                    assert median >= threshold
                if was_on and not is_on:
                    assert low_since is not None
                if median >= threshold:
                    assert is_on
                if low_since is not None and now - low_since >= LIMITS.hold:
                    assert not is_on
                was_on = is_on

    def it_never_leaves_a_level_sooner_than_promised(self) -> None:
        entered: float | None = None
        for now, _, level in self.seen:
            if level is Level.CALM:
                assert entered is None or now - entered >= LIMITS.hold
                entered = None
            elif entered is None:
                entered = now


TestWalk = Walk.TestCase
