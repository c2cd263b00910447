"""What a book keeps of what has been is bounded. What it decides is in the ledger's contract."""

from __future__ import annotations

import pytest

from tests.server.quota.ledger_contract import SCOPES
from unbroken.server.quota.base import KNOWN, Amount
from unbroken.server.quota.book import Book


def test_who_holds_often_costs_no_more() -> None:
    book = Book()
    for number in range(1000):
        book.hold("a", SCOPES, {}, Amount(number), lifetime=300, enforce=True, now=1000.0 + number / 10)

    assert len(book._due) == 1


@pytest.mark.long
def test_of_turns_that_were_settled_so_many_are_known() -> None:
    book = Book()
    for number in range(KNOWN + 10):
        book.settle(str(number), (), Amount(), now=1000.0)

    assert not book.knows("9")
    assert book.knows("10")
    assert book.settle("9", (), Amount(), now=1000.0)
    assert not book.settle(str(KNOWN), (), Amount(), now=1000.0)


def test_looking_makes_nothing_of_what_is_not_there() -> None:
    book = Book()
    book.look(SCOPES, now=1000.0)

    assert not book._accounts
