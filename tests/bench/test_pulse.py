"""What counts as a slow spell, and what fell into one."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.pulse import Beat, Pulse, spells, taken

_MS = 1_000_000


def beats(*took: int, every: int = 10) -> list[Beat]:
    """Return a beat each *every* ms, of so many microseconds of CPU time."""
    return [(number * every * _MS, each * 1000) for number, each in enumerate(took)]


def test_a_spell_lasts_from_the_last_calm_beat_to_its_last_slow_one_and_as_long_again() -> None:
    found = spells(beats(30, 30, 30, 100, 300, 30, 30, 30, 30, 30, 30))

    slow_until = 40 * _MS + 300_000
    assert found == [(20 * _MS, 2 * slow_until - 20 * _MS)]


def test_a_short_calm_is_within_a_spell() -> None:
    found = spells(beats(30, 30, 30, 100, 30, 100, 30, 30, 30, 30, 30, every=2))

    assert [begin for begin, _ in found] == [4 * _MS]


def test_a_spell_may_be_the_last_of_all() -> None:
    assert len(spells(beats(30, 30, 30, 30, 100))) == 1
    assert spells([]) == []
    assert spells(beats(30)) == []


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 20))
def test_spells_are_in_order_apart_and_hold_every_slow_beat(took: list[int], every: int) -> None:
    given_ = beats(*took, every=every)
    found = spells(given_)

    assert all(begin <= end for begin, end in found)
    assert all(one[1] < other[0] for one, other in pairwise(found))
    median = sorted(took)[len(took) // 2] * 1000 if took else 0
    pulse = Pulse(given_)
    for at, cost in given_:
        if cost > 2 * median:
            assert not pulse.was_calm(at, at + cost)
    assert pulse.slow_share >= 0


@given(
    st.lists(st.integers(1, 500), min_size=2, max_size=40),
    st.integers(0, 400),
    st.integers(0, 100),
)
def test_calm_is_what_meets_no_spell(took: list[int], begin: int, lasts: int) -> None:
    given_ = beats(*took)
    span = (begin * _MS, (begin + lasts) * _MS)
    meets = any(start <= span[1] and span[0] <= end for start, end in spells(given_))

    pulse = Pulse(given_)
    if meets:
        with pytest.raises(RuntimeError, match="slow all the time"):
            pulse.sifted([span])
    long_ago = (-2 * _MS, -_MS)
    waits = pulse.sifted([span, long_ago])
    assert waits.all == sorted([lasts * 1000.0, 1000.0])
    assert waits.calm == ([1000.0] if meets else waits.all)


def test_it_is_taken_beside_what_is_measured() -> None:
    with taken(min(os.sched_getaffinity(0))) as taking:
        pass

    assert taking.pulse.slowness > 0
    assert taking.pulse.was_calm(0, 1), "long ago"
