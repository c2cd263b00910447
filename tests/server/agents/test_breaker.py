from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from unbroken.server.agents.breaker import Admission, Breaker, BreakerLimits, BreakerState

LIMITS = BreakerLimits(failures=3, window=10, cooldown=30, longest_cooldown=100)


class Subject:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.changes: list[BreakerState] = []
        self.breaker = Breaker(LIMITS, self.clock, self.changes.append)

    def state(self) -> BreakerState:
        return self.breaker.state

    def admit(self) -> Admission:
        admission = self.breaker.admit()
        assert admission is not None
        return admission

    def open(self) -> None:
        self.admit().fail(is_final=True)
        assert self.state() is BreakerState.OPEN


@pytest.fixture
def subject() -> Subject:
    return Subject()


def test_it_opens_after_so_many_failures_within_the_window(subject: Subject) -> None:
    for _ in range(2):
        subject.admit().fail()
    assert subject.state() is BreakerState.CLOSED

    subject.clock.advance(10)
    subject.admit().fail()

    assert subject.state() is BreakerState.OPEN
    assert subject.breaker.admit() is None
    assert subject.changes == [BreakerState.OPEN]


def test_old_failures_do_not_count(subject: Subject) -> None:
    for _ in range(20):
        subject.admit().fail()
        subject.clock.advance(5.1)

    assert subject.state() is BreakerState.CLOSED


def test_successes_in_between_do_not_hide_failures(subject: Subject) -> None:
    """An upstream that fails every other time is one to leave."""
    for _ in range(3):
        subject.admit().succeed()
        subject.admit().fail()

    assert subject.state() is BreakerState.OPEN


def test_what_only_the_operator_can_mend_opens_it_at_once(subject: Subject) -> None:
    subject.admit().fail(is_final=True)

    assert subject.state() is BreakerState.OPEN


def test_one_turn_probes_after_the_cool_down(subject: Subject) -> None:
    subject.open()
    subject.clock.advance(29.9)
    assert subject.breaker.admit() is None
    subject.clock.advance(0.1)

    probe = subject.admit()

    assert subject.state() is BreakerState.HALF_OPEN
    assert subject.breaker.admit() is None
    probe.succeed()
    assert subject.state() is BreakerState.CLOSED
    assert subject.changes == [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED]


def test_probe_that_fails_opens_it_again(subject: Subject) -> None:
    subject.open()
    subject.clock.advance(30)
    subject.admit().fail()

    assert subject.state() is BreakerState.OPEN
    assert subject.breaker.seconds_left == 30


def test_probe_that_was_stopped_leaves_room_for_another(subject: Subject) -> None:
    subject.open()
    subject.clock.advance(30)
    subject.admit().release()

    assert subject.state() is BreakerState.OPEN
    subject.admit().succeed()
    assert subject.state() is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [(None, 30), (5.0, 30), (60.0, 60), (3600.0, 100)], ids=str
)
def test_cool_down_is_as_long_as_the_upstream_asks_within_bounds(
    subject: Subject, retry_after: float | None, seconds: float
) -> None:
    subject.admit().fail(is_final=True, retry_after=retry_after)

    assert subject.breaker.seconds_left == seconds


def test_turns_from_before_it_opened_change_nothing(subject: Subject) -> None:
    early = [subject.admit() for _ in range(4)]
    subject.open()
    subject.clock.advance(30)
    probe = subject.admit()
    early[0].fail(is_final=True)
    early[1].succeed()
    early[2].release()
    assert subject.state() is BreakerState.HALF_OPEN

    probe.succeed()
    early[3].release()

    assert subject.state() is BreakerState.CLOSED


def test_turn_that_worked_and_then_failed_counts(subject: Subject) -> None:
    for _ in range(3):
        admission = subject.admit()
        admission.succeed()
        admission.fail()
        admission.fail(is_final=True)
        admission.release()

    assert subject.state() is BreakerState.OPEN


STEPS = st.lists(
    st.one_of(
        st.just("admit"),
        st.tuples(st.sampled_from(["succeed", "fail", "final", "release"]), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(0, 60)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_one_probes_at_a_time_and_nothing_is_shut_for_ever(
    steps: list[str | tuple[str, int]],
) -> None:
    subject = Subject()
    given: list[Admission] = []
    probes: list[Admission] = []
    for step in steps:
        match step:
            case "admit":
                was = subject.breaker.state
                admission = subject.breaker.admit()
                if admission is not None:
                    given.append(admission)
                    if was is not BreakerState.CLOSED:
                        assert subject.state() is BreakerState.HALF_OPEN
                        assert not [probe for probe in probes if probe in given]
                        probes.append(admission)
            case ("wait", seconds):
                subject.clock.advance(seconds)
            case (verb, number) if given:
                admission = given.pop(int(number) % len(given))
                if verb == "final":
                    admission.fail(is_final=True)
                else:
                    getattr(admission, str(verb))()
    for admission in given:
        admission.release()
    subject.clock.advance(LIMITS.longest_cooldown)

    subject.admit().succeed()
    assert subject.state() is BreakerState.CLOSED
    assert subject.clock.pending == 0
