from __future__ import annotations

import math
import struct

from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.cache.base import Neighbour
from unbroken.server.cache.index import PlaceIndex


def at(angle: float) -> bytes:
    return struct.pack("<2e", math.cos(angle), math.sin(angle))


def keys(index: PlaceIndex, angle: float, threshold: float = 0.9) -> list[str]:
    return [near.key for _, near in index.near(at(angle), threshold)]


def test_the_nearest_comes_first_and_what_is_far_not_at_all() -> None:
    index = PlaceIndex(10)
    for key, angle in (("far", 2.0), ("near", 0.1), ("nearest", 0.01)):
        index.add(Neighbour(key, key, at(angle)))
    assert keys(index, 0) == ["nearest", "near"]


def test_vectors_of_another_length_or_of_no_number_are_nobody_s_neighbours() -> None:
    index = PlaceIndex(10)
    index.add(Neighbour("a", "a", at(0)))
    index.add(Neighbour("b", "b", struct.pack("<3e", 1, 0, 0)))
    index.add(Neighbour("c", "c", struct.pack("<2e", math.nan, 0)))
    assert keys(index, 0) == ["a"]
    assert list(index.near(struct.pack("<3e", 1, 0, 0), 0)) == []
    assert list(PlaceIndex(3).near(at(0), 0)) == []


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=120), st.integers(1, 20))
def test_its_size_and_signatures_are_those_of_what_it_holds(steps: list[tuple[int, bool]], most: int) -> None:
    index = PlaceIndex(most)
    held: dict[str, Neighbour] = {}
    for number, is_added in steps:
        key = str(number)
        held.pop(key, None)
        if is_added:
            held[key] = Neighbour(key, "so " * number, at(number / 100), bytes([1 + number % 7]))
            index.add(held[key])
        else:
            index.discard(key)
        while len(held) > most:
            held.pop(next(iter(held)))
        assert index.size == sum(neighbour.size for neighbour in held.values())
        signatures = {neighbour.signature for neighbour in held.values()}
        assert {bytes([byte]) for byte in range(9) if index.may_have(bytes([byte]))} == signatures


def test_what_it_has_given_up_takes_no_room() -> None:
    """A place that was full once doesn't stay as large for ever."""
    index = PlaceIndex(1000)
    for number in range(1000):
        index.add(Neighbour(str(number), "x", at(number / 1000)))
    for number in range(997):
        index.discard(str(number))
    assert index._vectors is not None
    assert len(index._vectors) == len(index._held) <= 8
    assert sorted(keys(index, 0.998)) == ["997", "998", "999"]
    index.add(Neighbour("new", "x", at(0)))
    assert keys(index, 0, 0.99) == ["new"]


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=120), st.integers(1, 20))
def test_it_holds_the_latest_of_what_was_added(steps: list[tuple[int, bool]], most: int) -> None:
    index = PlaceIndex(most)
    model: dict[str, None] = {}
    for number, is_added in steps:
        key = str(number)
        model.pop(key, None)
        if is_added:
            index.add(Neighbour(key, key, at(number / 100)))
            model[key] = None
            if len(model) > most:
                del model[next(iter(model))]
        else:
            index.discard(key)
    found = {near.key for _, near in index.near(at(0.15), -1.0, most=100)}
    assert (found, len(index)) == (set(model), len(model))


def test_what_an_older_release_added_may_be_anything() -> None:
    index = PlaceIndex(2)
    index.add(Neighbour("a", "a", at(0), b"signed"))
    assert not index.may_have(b"other")
    index.add(Neighbour("b", "b", at(0)))
    assert index.may_have(b"other")
    index.discard("b")
    assert not index.may_have(b"other")
