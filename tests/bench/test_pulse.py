"""What counts as a slow spell, and what fell into one."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.pulse import Beat, Pulse, Waits, spells, taken

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
            assert any(begin <= at and at + cost <= end for begin, end in found)
    assert pulse.slow_share >= 0


@given(st.lists(st.integers(1, 500), min_size=2, max_size=40), st.integers(0, 400), st.integers(0, 100))
def test_what_begins_in_the_calm_counts_until_a_spell_begins(took: list[int], begin: int, lasts: int) -> None:
    given_ = beats(*took)
    start, end = begin * _MS, (begin + lasts) * _MS
    spell = next((each for each in spells(given_) if each[0] <= end and start <= each[1]), None)
    long_ago = [(-2 * _MS, -_MS)] * 3

    waits = Pulse(given_).sifted([(start, end), *long_ago])

    assert waits.all == sorted([lasts * 1000.0, *[1000.0] * 3])
    expected = [(1000.0, True)] * 3
    if spell is None:
        expected.append((lasts * 1000.0, True))
    elif spell[0] > start:
        expected.append(((spell[0] - start) / 1000, False))
    assert waits.calm == sorted(expected, key=lambda each: (each[0], not each[1]))


def test_of_a_machine_that_is_slow_all_the_time_nothing_is_said() -> None:
    given_ = beats(30, 30, 30, 30, 100, 30, 30, 30, 30, 30, 30)
    in_it = (41 * _MS, 42 * _MS)

    with pytest.raises(RuntimeError, match="too much of the time"):
        Pulse(given_).sifted([in_it, in_it, (0, _MS)])


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99]))
def test_without_spells_calm_percentiles_are_those_of_all(took: list[int], share: float) -> None:
    waits = Pulse([]).sifted((0, each * 1000) for each in took)

    assert waits.calm_percentile(share) == waits.percentile(share)


def test_long_waits_are_not_left_out_for_being_long() -> None:
    """A spell of 10 ms each 100 ms meets every wait of 100 ms, and a tenth of the short ones."""
    waits = Waits(
        all=[],
        calm=sorted(
            [(1.0, True)] * 900 + [(100.0, True)] * 10 + [(float(each), False) for each in range(1, 91)]
        ),
    )

    assert waits.calm_percentile(0.5) == 1
    assert waits.calm_percentile(0.99) == 100


def test_it_is_taken_beside_what_is_measured() -> None:
    with taken(min(os.sched_getaffinity(0))) as taking:
        pass

    assert taking.pulse.slowness > 0
    assert taking.pulse.sifted([(0, 1000)]).calm == [(1.0, True)], "long ago"
