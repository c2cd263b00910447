"""When a connection counts as idle."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from unbroken.server.transports.idle import IdleWatch

TIMEOUT = 100.0


class Watched:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.place: object | None = 0
        self.ended: list[float] = []
        self.watch = IdleWatch(
            self.clock, TIMEOUT, lambda: self.place, lambda: self.ended.append(self.clock.now)
        )


@given(st.lists(st.floats(0, 90), max_size=10))
def test_it_ends_once_nothing_was_said_for_the_time_and_at_most_a_quarter_more(pauses: list[float]) -> None:
    watched = Watched()
    for number, pause in enumerate(pauses, 1):
        watched.clock.advance(pause)
        watched.place = number
    last = watched.clock.now
    watched.clock.advance(TIMEOUT - 0.001)
    assert watched.ended == []
    watched.clock.advance(TIMEOUT)

    assert len(watched.ended) == 1
    assert TIMEOUT <= watched.ended[0] - last <= TIMEOUT * 1.25 + 0.001
    assert watched.clock.pending == 0


def test_it_does_not_end_while_something_runs() -> None:
    watched = Watched()
    watched.place = None
    watched.clock.advance(50 * TIMEOUT)
    assert watched.ended == []
    watched.place = 1
    watched.clock.advance(TIMEOUT * 1.25)
    assert len(watched.ended) == 1


def test_closed_it_does_nothing() -> None:
    watched = Watched()
    watched.watch.close()
    watched.clock.advance(10 * TIMEOUT)

    assert watched.ended == []
    assert watched.clock.pending == 0
