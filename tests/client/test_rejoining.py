"""When a client comes back, after how long, and when never."""

from __future__ import annotations

import pytest

from unbroken.client.backoff import Backoff
from unbroken.client.errors import ProtocolError, Refused, Unreachable, refusal
from unbroken.client.limits import Timing
from unbroken.client.rejoining import Again, Dormant, Never, Next, Rejoining

TIMING = Timing(first_wait=1.0, longest_wait=8.0, stable_after=5.0, give_up_after=100.0)
WHY = Unreachable("why")


def rejoining(*, has_fresh_keys: bool = False, draw: float = 1.0) -> Rejoining:
    made = Rejoining(TIMING, lambda: draw, has_fresh_keys=has_fresh_keys)
    made.begun(0.0)
    return made


def closed(code: int, error: Refused | None = None, *, is_idle: bool = False, at: float = 1.0) -> Next:
    made = rejoining()
    made.welcomed(0.0)
    return made.closed(code, error, error or WHY, at, is_idle=is_idle)


def test_waits_double_and_are_all_jitter() -> None:
    waits = Backoff(1.0, 8.0, lambda: 1.0)
    assert [waits.next() for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    waits.reset()
    assert waits.next() == 1
    assert Backoff(1.0, 8.0, lambda: 0.0).next() == 0
    assert max(Backoff(1.0, 8.0, lambda: 1.0).next() for _ in range(2000)) <= 8


def test_what_the_server_asks_for_is_heeded_within_reason() -> None:
    waits = Backoff(1.0, 8.0, lambda: 0.5)
    assert waits.next(30.0) == 30.5
    assert waits.next(1e9) == 301
    assert waits.next(-5.0) == 2


@pytest.mark.parametrize("code", [1001, 1005, 1006, 1009, 1011, 1012, 1013, 1014, 1015])
def test_close_codes_to_come_back_after(code: int) -> None:
    assert isinstance(closed(code), Again)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1010, 3000, 4000])
def test_close_codes_that_are_final(code: int) -> None:
    following = closed(code)
    assert isinstance(following, Never)
    assert isinstance(following.error, ProtocolError)


def test_after_a_moment_is_a_moment() -> None:
    assert closed(1012) == Again(1.0)
    assert closed(1013) == Again(2.0)
    asked = refusal({"code": "server_overloaded", "unbroken": {"retry_after": 9}})
    assert closed(1013, asked) == Again(10.0)


def test_policy_says_why() -> None:
    error = refusal({"code": "credential_revoked", "message": "revoked"})
    assert closed(1008, error) == Never(error)


def test_an_expired_key_is_no_end_where_there_are_others() -> None:
    error = refusal({"code": "credential_expired"})
    assert closed(1008, error) == Never(error)
    made = rejoining(has_fresh_keys=True)
    assert isinstance(made.closed(1008, error, error, 1.0, is_idle=False), Again)


def test_who_was_idle_comes_back_when_there_is_something_to_say() -> None:
    assert closed(1000, is_idle=True) == Dormant()
    assert isinstance(closed(1000, is_idle=False), Again)


def test_a_connection_that_lasted_makes_the_next_wait_a_short_one() -> None:
    made = rejoining()
    waits: list[Next] = []
    for number, lasted in enumerate([1.0, 1.0, 10.0, 1.0]):
        made.welcomed(number * 20.0)
        waits.append(made.closed(1006, None, WHY, number * 20.0 + lasted, is_idle=False))

    assert waits == [Again(1.0), Again(2.0), Again(1.0), Again(2.0)]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_statuses_to_come_back_after(status: int) -> None:
    error = refusal({}, status=status, retry_after=7.0)
    assert rejoining(draw=0.0).refused(error, 1.0) == Again(7.0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
def test_statuses_that_are_final(status: int) -> None:
    error = refusal({}, status=status)
    assert rejoining().refused(error, 1.0) == Never(error)


def test_there_is_an_end_to_patience_and_a_connection_begins_it_anew() -> None:
    made = rejoining()
    assert isinstance(made.unreachable(WHY, 99.0), Again)
    assert made.unreachable(WHY, 100.0) == Never(WHY)
    made.welcomed(150.0)
    assert isinstance(made.closed(1006, None, WHY, 300.0, is_idle=False), Again)
    assert isinstance(made.unreachable(WHY, 399.0), Again)
    assert made.unreachable(WHY, 400.0) == Never(WHY)


def test_attempts_that_come_to_nothing_are_numbered() -> None:
    """A balancer may ask another node."""
    made = rejoining()
    made.unreachable(WHY, 1.0)
    made.refused(refusal({}, status=503), 2.0)
    assert made.fruitless == 2
    made.welcomed(3.0)
    made.closed(1012, None, WHY, 4.0, is_idle=False)
    assert made.fruitless == 0
