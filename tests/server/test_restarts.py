"""When a worker is started again."""

from __future__ import annotations

from unbroken.server.restarts import MOST_CRASHES, End, Restarts


def test_one_that_crashes_is_started_ever_more_slowly_and_then_no_more() -> None:
    restarts = Restarts()
    delays = [restarts.delay(End.CRASHED, lived=0) for _ in range(MOST_CRASHES + 1)]

    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, None]


def test_one_that_has_run_for_a_while_begins_anew() -> None:
    restarts = Restarts()
    for _ in range(MOST_CRASHES):
        assert restarts.delay(End.CRASHED, lived=59) is not None

    assert restarts.delay(End.CRASHED, lived=60) == 0.5


def test_one_that_was_told_to_end_is_started_at_once() -> None:
    restarts = Restarts()

    assert [restarts.delay(End.ASKED, lived=0) for _ in range(50)] == 50 * [0]


def test_one_that_lacks_something_is_tried_for_ever() -> None:
    """And what it was refused doesn't count as crashes."""
    restarts = Restarts()
    delays = [restarts.delay(End.REFUSED, lived=0) for _ in range(5000)]

    assert delays[:7] == [0.5, 1, 2, 4, 8, 16, 30]
    assert set(delays[6:]) == {30}
    assert restarts.delay(End.CRASHED, lived=0) == 0.5
