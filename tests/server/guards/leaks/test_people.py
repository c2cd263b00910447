"""Which of what a model says are names and addresses. Its labels are given: no model is asked."""

from __future__ import annotations

import re

import pytest

from unbroken.server.guards.leaks.addresses import Label, addresses
from unbroken.server.guards.leaks.people import is_worth_reading, people

MARKED = re.compile(r"<([A-Z]+) ([^>]*)>")


def labelled(marked: str) -> tuple[str, list[Label]]:
    """Return the text of ``Ask <PERSON Ann>``, and its labels."""
    text, labels = "", list[Label]()
    position = 0
    for found in MARKED.finditer(marked):
        text += marked[position : found.start()]
        labels.append(Label(len(text), len(text) + len(found[2]), found[1]))
        text += found[2]
        position = found.end()
    return text + marked[position:], labels


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("Ask <PERSON Ann Lee>.", ["Ann Lee"]),
        ("The capital of <GPE France> is <GPE Paris>.", []),
        ("<ORG Apple> and <NORP Germans>", []),
        ("It is <PERSON Ann's> turn.", ["Ann"]),
        ("<PERSON Dr. Ann Lee> and <PERSON Hello Bob>", ["Ann Lee", "Bob"]),
        ("Dear Ms. Okafor, Mr O'Neill and Prof. J. B. Smith", ["Okafor", "O'Neill", "J. B. Smith"]),
        ("<PERSON Docker> and <PERSON Getting Started>", []),
        ("the <PERSON Settings> page, The <PERSON Beatles>", []),
        ("the <PERSON Ann Lee> of 1990", ["Ann Lee"]),
        ("<PERSON JSON>, <PERSON A>, <PERSON x_1>, <PERSON a@b>, <PERSON f(Ann)>", []),
        ("<PERSON JOHN SMITH>", ["JOHN SMITH"]),
        ("<PERSON Émile Ñandú>", ["Émile Ñandú"]),
    ],
)
def test_people(marked: str, expected: list[str]) -> None:
    text, labels = labelled(marked)
    assert [text[start:end] for start, end in people(text, labels)] == expected


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("at 221B Baker Street, London NW1 6XE.", ["221B Baker Street, London NW1 6XE"]),
        ("at 15 Elm St., Austin, TX 78701 now", ["15 Elm St., Austin, TX 78701"]),
        ("at 12 High Street, <GPE London>, and", ["12 High Street, London"]),
        ("at 12 High Street, Ann says", ["12 High Street"]),
        ("at 1600 Oak Lane, Apt 4B, Portland, OR", ["1600 Oak Lane, Apt 4B, Portland, OR"]),
        ("Flat 3, 9 Mill Rd is", ["Flat 3, 9 Mill Rd"]),
        ("It is 33 Queen's Road.", ["33 Queen's Road"]),
        ("PO Box 44, Dover, DE 19901", ["PO Box 44, Dover, DE 19901"]),
        ("at 4 <FAC Las Ramblas>", ["4 Las Ramblas"]),
        ("The capital of <GPE France> is <GPE Paris>.", []),
        ("on <FAC Wall Street> and in <GPE London>", []),
        ("In 1999 Wall Street fell, since 2008 <FAC Park Avenue> rose", []),
        ("the 3 <LOC Alps>, 5 Drive Letters, 42 Streets, v1.2 Main Street", []),
    ],
)
def test_addresses(marked: str, expected: list[str]) -> None:
    text, labels = labelled(marked)
    assert [text[start:end] for start, end in addresses(text, labels)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Ann", True), ("12 Elm St", True), ("It's 5.", False), ("That's it, and I'm off.", False), ("", False)],
)
def test_a_model_is_only_asked_about_what_may_be_one(text: str, expected: bool) -> None:
    assert is_worth_reading(text) is expected
