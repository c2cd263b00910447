"""Under which name somebody waits where all take turns."""

from __future__ import annotations

from unbroken.server.fair_names import FairNames

ONE, TWO, THREE = "one", "two", "three"


def test_whoever_is_not_known_waits_under_their_own_name() -> None:
    assert FairNames().of(ONE) == "one"


def test_those_of_one_address_wait_under_one_name() -> None:
    names = FairNames()
    for each in (ONE, TWO):
        names.note(each, "an address")
    names.note(TWO, "another")

    assert [names.of(each) for each in (ONE, TWO, THREE)] == ["an address", "another", "three"]


def test_who_has_not_been_asked_for_longest_is_forgotten() -> None:
    names = FairNames(most=2)
    names.note(ONE, "an address")
    names.note(TWO, "an address")
    assert names.of(ONE) == "an address"
    names.note(THREE, "an address")

    assert [names.of(each) for each in (ONE, TWO, THREE)] == ["an address", "two", "an address"]
