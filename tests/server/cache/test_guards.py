"""I2: questions that lie close together and don't ask the same. Written by hand; none is of a data set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.cache.guards import Wording, difference

SAME = [
    ("How do I reset my password?", "How can I reset my password?"),
    ("How do I reset my password?", "how do i reset my password"),
    ("Hi! How do I reset my password, please?", "How do I reset my password?"),
    ("What's the price of a ticket?", "What is the cost of a ticket?"),
    ("When does the museum open?", "When does the museum opens?"),
    ("In Excel, how do I merge two cells?", "How do I merge two cells in Excel?"),
    ("Can't I pay by card?", "Can I not pay by card?"),
    ("Why dont plants grow in the dark?", "Why don\u2019t plants grow in the dark?"),
    ("How long is the Nile?", "How long is the nile"),
]

DIFFERENT = [
    ("Can I eat this raw?", "Can I not eat this raw?", "negation"),
    ("Which fees can I claim?", "Which fees can't I claim?", "negation"),
    ("Tea with milk or sugar", "Tea without milk or sugar", "negation"),
    ("Never mix these drugs?", "Mix these drugs?", "negation"),
    ("Is 2 mg safe?", "Is 3 mg safe?", "number"),
    ("What is 15 plus 200?", "What is 50 plus 200?", "number"),
    ("Can two people share it?", "Can three people share it?", "number"),
    ("Is it below -3?", "Is it below 3?", "number"),
    ("What happened in 1914?", "What happened in 1918?", "number"),
    ("What is 1,000 metres in feet?", "What is 10,000 metres in feet?", "number"),
    ("How much is $100 in yen?", "How much is \u00a3100 in yen?", "symbol"),
    ("What does a & b mean?", "What does a | b mean?", "symbol"),
    ("Are you open on Monday?", "Are you open on Sunday?", "date"),
    ("What is the fee per month?", "What is the fee per year?", "date"),
    ("How do I open a shop in France?", "How do I open a shop in Spain?", "name"),
    ("Who is Ada Lovelace?", "Who is Ada Byron?", "name"),
    ("How do I sort a list in C?", "How do I sort a list in C#?", "symbol"),
    ("How do I sort a list in c#?", "How do I sort a list in c++?", "symbol"),
    ("Is the Polish version out?", "Is the version out?", "name"),
    ("When did it start?", "Where did it start?", "asking"),
    ("How many fish are there?", "How much fish is there?", "asking"),
    ("Can I save the world?", "How can I save the world?", "asking"),
    ("How do I turn on the light?", "How do I turn off the light?", "word"),
    ("How do I upgrade it?", "How do I downgrade it?", "word"),
    ("Is it legal to fish here?", "Is it illegal to fish here?", "word"),
    ("Is the pump safe?", "Is the pump unsafe?", "word"),
    ("How do I log in?", "How do I log out?", "word"),
    ("What flies fastest?", "What flies slowest?", "word"),
    ("How do I get there by train?", "How do I get there by train with a child?", "word"),
    ("Do cats chase dogs?", "Do dogs chase cats?", "order"),
    ("Convert euros into dollars", "Convert dollars into euros", "order"),
    ("Do I owe you money?", "Do you owe me money?", "order"),
    ("How do I stop the pump?", "How does the pump stop?", "order"),
    ("Wie k\u00fcndige ich den Vertrag?", "Wie k\u00fcndige ich den Vertrag nicht?", "word"),
    ("What is it?", "What is that?", "word"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_in_other_words_is_the_same(one: str, other: str) -> None:
    assert difference(Wording(one), Wording(other)) is None


@pytest.mark.parametrize(("one", "other", "by"), DIFFERENT)
def test_a_swap_of_what_matters_is_another_question(one: str, other: str, by: str) -> None:
    assert difference(Wording(one), Wording(other)) == by


@pytest.mark.parametrize(("one", "other", "by"), DIFFERENT)
def test_it_is_the_same_from_both_sides(one: str, other: str, by: str) -> None:
    assert difference(Wording(other), Wording(one)) == by


@given(st.text(max_size=80), st.text(max_size=80))
def test_anything_can_be_compared(one: str, other: str) -> None:
    difference(Wording(one), Wording(other))


@given(st.lists(st.sampled_from(["red", "dogs", "run", "7", "8", "not", "Paris"]), min_size=2, max_size=6))
def test_a_word_more_is_always_seen(words: list[str]) -> None:
    """Whatever carries meaning, and is on one side alone, refuses."""
    assert difference(Wording(" ".join(words)), Wording(" ".join(words[:-1]))) is not None
