"""How often an address may do something, and that nobody fills the table."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from unbroken.server.limits import Rate
from unbroken.server.transports.address_rate import AddressRate

ONE, OTHER = b"\xcb\x00\x71\x01", b"\xcb\x00\x71\x02"


def test_so_many_at_once_and_then_as_they_are_earned() -> None:
    clock = FakeClock()
    rate = AddressRate(Rate(0.5, 4), clock)

    assert [rate.wait(ONE) for _ in range(5)] == [0, 0, 0, 0, 2]
    assert rate.wait(ONE) == 2, "asking costs nothing"
    assert rate.wait(OTHER) == 0
    clock.advance(2)
    assert [rate.wait(ONE) for _ in range(2)] == [0, 2]


def test_this_machine_may_always() -> None:
    rate = AddressRate(Rate(0.1, 1), FakeClock())

    assert {rate.wait(None) for _ in range(100)} == {0}
    assert len(rate) == 0


def test_whoever_waits_as_long_as_told_is_admitted() -> None:
    clock = FakeClock()
    rate = AddressRate(Rate(0.3, 3), clock)
    for _ in range(50):
        while not (wait := rate.wait(ONE)):
            pass
        clock.advance(wait)
        assert rate.wait(ONE) == 0


def test_the_table_is_bounded_and_forgets_whoever_has_earned_it() -> None:
    clock = FakeClock()
    rate = AddressRate(Rate(1, 1), clock, remembered=10)
    for number in range(100):
        rate.wait(number.to_bytes(4))
    assert len(rate) == 10
    assert rate.wait((99).to_bytes(4)) == 1, "the latest are remembered"
    clock.advance(100)
    rate.wait(ONE)
    assert len(rate) == 1


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 2)), max_size=80))
def test_in_no_time_are_there_more_than_the_rate_and_the_burst(steps: list[tuple[float, int]]) -> None:
    """Of each address, whatever the others do."""
    clock = FakeClock()
    rate = AddressRate(Rate(2, 5), clock)
    admitted: dict[int, list[float]] = {}
    for pause, who in steps:
        clock.advance(pause)
        if rate.wait(bytes([who])) == 0:
            admitted.setdefault(who, []).append(clock.now)

    for times in admitted.values():
        for first, begun in enumerate(times):
            for number, now in enumerate(times[first:], 1):
                assert number <= 5 + 2 * (now - begun) + 1
