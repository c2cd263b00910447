"""The corpus of names, and that what is found in it doesn't become less unnoticed."""

from __future__ import annotations

import pytest

from tests.guards.names.__main__ import measure, table
from tests.guards.names.corpus import read_corpus


def test_there_is_enough_with_and_without_something_to_find() -> None:
    lines = list(read_corpus())

    assert len([line for line in lines if line.marks]) >= 80
    assert len([line for line in lines if not line.marks]) >= 60
    assert not any(mark in line.text for line in lines for mark in ("{name:", "{address:"))


@pytest.mark.long
def test_what_is_found_is_not_less_than_the_docs_say() -> None:
    figures = measure(read_corpus())
    plain, harder = figures["measured"], figures["harder"]

    assert (plain.found["name"], plain.in_vain["name"]) >= (23, 3)
    assert (plain.found["address"], plain.in_vain["address"]) == (9, 0)
    assert harder.found["name"] >= 18
    assert harder.in_vain["name"] <= 7
    assert len(table(figures)) > 6
