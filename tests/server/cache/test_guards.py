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
    ("Can't I pay by card?", "Cant I pay by card?"),
    ("Why dont plants grow in the dark?", "Why don\u2019t plants grow in the dark?"),
    ("How long is the Nile?", "how long is the Nile"),
    ("So how do I do that in CSS?", "Please, how do I do that in css?"),
    ("What is a sleep cycle?", "What are sleep cycles?"),
    ("Can two people share it?", "Can 2 people share it?"),
    ("How to boil an egg", "How do I boil an egg?"),
    ("Where do you ship to? Thanks!", "Where do you ship to?"),
    ("Hi there, what is 2 + 3?", "what is 2 + 3"),
    ("Is the mother's ring lost?", "Is the mother\u2019s ring lost."),
    ("In 1,500 words, what is a cell?", "In 1500 words what is a cell"),
    ("What does CSS stand for?", "What does css stand for?"),
    ("Which movie is the best?", "Which film is the best?"),
]

DIFFERENT = [
    ("Can I eat this raw?", "Can I not eat this raw?", "word"),
    ("Which fees can I claim?", "Which fees can't I claim?", "word"),
    ("Tea with milk or sugar", "Tea without milk or sugar", "word"),
    ("Never mix these drugs?", "Mix these drugs?", "word"),
    ("Is 2 mg safe?", "Is 3 mg safe?", "number"),
    ("What is 15 plus 200?", "What is 50 plus 200?", "number"),
    ("Can two people share it?", "Can three people share it?", "number"),
    ("Is it below -3?", "Is it below 3?", "number"),
    ("What happened in 1914?", "What happened in 1918?", "number"),
    ("What is 1,000 metres in feet?", "What is 10,000 metres in feet?", "number"),
    ("How much is $100 in yen?", "How much is \u00a3100 in yen?", "symbol"),
    ("What does a & b mean?", "What does a | b mean?", "symbol"),
    ("Are you open on Monday?", "Are you open on Sunday?", "name"),
    ("What is the fee per month?", "What is the fee per year?", "word"),
    ("How do I open a shop in France?", "How do I open a shop in Spain?", "name"),
    ("Who is Ada Lovelace?", "Who is Ada Byron?", "name"),
    ("How do I sort a list in C?", "How do I sort a list in C#?", "symbol"),
    ("How do I sort a list in c#?", "How do I sort a list in c++?", "symbol"),
    ("Is the Polish version out?", "Is the version out?", "name"),
    ("When did it start?", "Where did it start?", "word"),
    ("How many fish are there?", "How much fish is there?", "word"),
    ("Can I save the world?", "How can I save the world?", "word"),
    ("How do I turn on the light?", "How do I turn off the light?", "word"),
    ("How do I upgrade it?", "How do I downgrade it?", "word"),
    ("Is it legal to fish here?", "Is it illegal to fish here?", "word"),
    ("Is the pump safe?", "Is the pump unsafe?", "word"),
    ("How do I log in?", "How do I log out?", "word"),
    ("What flies fastest?", "What flies slowest?", "word"),
    ("How do I get there by train?", "How do I get there by train with a child?", "word"),
    ("Do cats chase dogs?", "Do dogs chase cats?", "order"),
    ("Convert euros into dollars", "Convert dollars into euros", "order"),
    ("Do I owe you money?", "Do you owe me money?", "word"),
    ("How do I stop the pump?", "How does the pump stop?", "word"),
    ("Wie k\u00fcndige ich den Vertrag?", "Wie k\u00fcndige ich den Vertrag nicht?", "word"),
    ("What is it?", "What is that?", "word"),
    ("How long is the Nile?", "How long is the nile?", "name"),
    ("Is three more than 2?", "Is two more than 3?", "number"),
    ("Can two share 3 beds?", "Can 3 share two beds?", "number"),
    ("Does my dog like your cat?", "Does your cat like my dog?", "order"),
]

SMALL_WORDS = [
    # Whether it may, must or ought to be done, or will be.
    ("Can I swim after a tattoo?", "Should I swim after a tattoo?"),
    ("Can I see a doctor?", "Must I see a doctor?"),
    ("May I park here overnight?", "Must I park here overnight?"),
    ("Should I report this bite?", "May I report this bite?"),
    ("Do I need to sign the form?", "Am I able to sign the form?"),
    ("Do I have to tip in Rome?", "Can I have to tip in Rome?"),
    ("Could my boss read this chat?", "Should my boss read this chat?"),
    ("Will I lose my seat?", "Could I lose my seat?"),
    ("How should I treat a burn?", "How can I treat a burn?"),
    ("Does this plant harm cats?", "Can this plant harm cats?"),
    # When.
    ("Is this drug banned?", "Was this drug banned?"),
    ("Has the bank closed?", "Will the bank close?"),
    ("Does Ada work here?", "Did Ada work here?"),
    ("What happens in Oslo?", "What happened in Oslo?"),
    ("Who wins the cup?", "Who won the cup?"),
    ("Is the bridge being closed?", "Is the bridge closed?"),
    ("Am I boring?", "Am I bored?"),
    # Who.
    ("Can I close my account?", "Can you close my account?"),
    ("Do you keep my photos?", "Do they keep my photos?"),
    ("Who reads my mail?", "Who reads your mail?"),
    ("Can we sue them?", "Can they sue us?"),
    ("May I block him?", "May he block me?"),
    ("Is her leave paid?", "Is his leave paid?"),
    ("Can she see it?", "Can one see it?"),
    ("Are these seats hers?", "Are these her seats?"),
    ("Do I sell your data?", "Do you sell your data?"),
    # What stands to what.
    ("How do I post a parcel to Peru?", "How do I post a parcel in Peru?"),
    ("Is the gift from my boss taxed?", "Is the gift to my boss taxed?"),
    ("Is insulin given by nurses?", "Is insulin given to nurses?"),
    ("Can I fly with a cat?", "Can I fly as a cat?"),
    ("Is it safe for kids?", "Is it safe with kids?"),
    ("Do I pay at the door?", "Do I pay for the door?"),
    ("Is there a fine of the bank?", "Is there a fine for the bank?"),
    ("Can I work on a visa?", "Can I work without a visa?"),
    ("Do I get leave for training?", "Do I get leave during training?"),
    ("Is the exam on paper?", "Is the exam about paper?"),
    # How many, and which.
    ("Can I return one shoe?", "Can I return any shoe?"),
    ("Do some snakes swim?", "Do all snakes swim?"),
    ("Can I have a few days off?", "Can I have few days off?"),
    ("Do I just eat rice?", "Do I eat rice?"),
    ("Is that seat free?", "Is this seat free?"),
    ("When do I write a and an?", "When do I write a and the?"),
    # What is written like a small word.
    ("Should IT approve this?", "Should it approve this?"),
    ("Does the US trust us?", "Does the us trust US?"),
    ("Is WHO paid by states?", "Who is paid by states?"),
    ("How do I sell Apple shares?", "How do I sell apple shares?"),
    ("Can I clean the Polish glass?", "Can I clean the polish glass?"),
    ("Is AIDS what a hearing loss needs?", "Is aids what a hearing loss needs?"),
    ("What is my PIN for?", "What is my pin for?"),
    # What is nearly the same word.
    ("Is there any news?", "Is there any new?"),
    ("How do I clear customs?", "How do I clear custom?"),
    ("Can I send mail to Peru?", "Can I send email to Peru?"),
    ("What does hello mean?", "What does hi mean?"),
    ("How do I spell please?", "How do I spell thanks?"),
    ("\u00bfTienes permiso?", "\u00bfTiene permiso?"),
    # What asks.
    ("How do ants eat?", "What do ants eat?"),
    ("How do I say it?", "How do you say it?"),
    ("Which of them bite?", "Do any of them bite?"),
    ("Are red ants black ants?", "Are black ants red ants?"),
]
"""What a list of words without meaning would let pass."""

SIGNS = [
    # What is reckoned first, and with what.
    ("How much is 100 - (20 + 30)?", "How much is 100 - 20 + 30?"),
    ("What is (2 + 3) * 4?", "What is 2 + (3 * 4)?"),
    ("What is 8 / 4 * 2?", "What is 8 * 4 / 2?"),
    ("What is 6 - 2 + 1?", "What is 6 + 2 - 1?"),
    ("How much is (12 + 8) / 4?", "How much is 12 + 8 / 4?"),
    ("Is x < 5 and y > 3 true for x = 4 and y = 2?", "Is x > 5 and y < 3 true for x = 4 and y = 2?"),
    ("Is UTC - 5 ahead of UTC + 2?", "Is UTC + 5 ahead of UTC - 2?"),
    ("Solve 2 (x + 3) = 10", "Solve 2 x + 3 = 10"),
    ("Is a + b c odd?", "Is a b + c odd?"),
    ("Is f (g) x a call?", "Is f g (x) a call?"),
    ("What is 5!?", "What is 5?"),
    ("What is 15!", "What is 15?"),
    ("What is 5\u00b2?", "What is 52?"),
    ("How much is 3 a + 2?", "How much is 3 + 2?"),
    ("How much is 20-1 in binary?", "How much is twenty-one in binary?"),
    ("How much is 5 100 times?", "How much is five hundred times?"),
    ("How much is 1\u00bd cups?", "How much is 11/2 cups?"),
    ("What is max(1,200)?", "What is max(1200)?"),
    ("What is .5 of 8?", "What is 5 of 8?"),
    ("How long is 2\u20133 weeks?", "How long is 2 3 weeks?"),
    # A sign that is asked about.
    ("What does . match in a regex?", "What does ? match in a regex?"),
    ("When do I use a colon (:) in English?", "When do I use a colon (;) in English?"),
    ("How do I write 'a' in Java?", 'How do I write "a" in Java?'),
    ("What does x[1] mean?", "What does x(1) mean?"),
    ("What does __init__ mean?", "What does init mean?"),
    ('Is the "old man\'s" hat lost?', 'Is the old "man\'s hat" lost?'),
    ("What does a.b mean?", "What does a b mean?"),
    ("What does a, mean?", "What does a. mean?"),
    ("Is this right:\nif x:\n  a\nb", "Is this right:\nif x:\n  a\n  b"),
    # Letters that are signs.
    ("What does \\d match?", "What does \\D match?"),
    ("How much is 5 mW in W?", "How much is 5 MW in W?"),
    ("How much is 5mW in W?", "How much is 5MW in W?"),
    ("How much is 5 Mb?", "How much is 5 MB?"),
    ('Is "a" more than "A"?', 'Is "A" more than "a"?'),
    ("mg or g, which is more?", "Mg or g, which is more?"),
    # One word twice, once as it is and once as another that is said for it.
    ("How to film a movie?", "How to movie a film?"),
    ("When does the start begin?", "When does the begin start?"),
    # German's *er* and *um* are no hesitation.
    ("Er muss zahlen?", "Muss zahlen?"),
]
"""What differs by signs, or by their place alone."""


@pytest.mark.parametrize(("one", "other"), SIGNS)
def test_signs_and_their_places_make_another_question(one: str, other: str) -> None:
    assert difference(Wording(one), Wording(other)) is not None
    assert difference(Wording(other), Wording(one)) is not None


_TERMS = st.lists(st.sampled_from(["1", "2", "3", "x", "+", "-", "*", "/", "(", ")", "<", "?"]), max_size=9)


@given(_TERMS, _TERMS)
def test_two_expressions_are_the_same_only_if_they_are_written_alike(
    one: list[str], other: list[str]
) -> None:
    both = [f"How much is {' '.join(terms)} in all?" for terms in (one, other)]
    assert (difference(Wording(both[0]), Wording(both[1])) is None) == (one == other)


@pytest.mark.parametrize(("one", "other"), SMALL_WORDS)
def test_the_smallest_words_make_another_question(one: str, other: str) -> None:
    assert difference(Wording(one), Wording(other)) is not None
    assert difference(Wording(other), Wording(one)) is not None


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


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_asks_the_same_has_one_signature(one: str, other: str) -> None:
    assert Wording(one).signature == Wording(other).signature


_PIECES = [
    "how do I", "how to", "In Excel", "in Excel", "the", "a", "dog", "dogs", "buy", "purchase", "CSS", "css",
    "It", "IT", "it's", "it is", "two", "2", ",", "?", "+", "-", "please", "Hi,", "don't", "do not", "Paris",
    "paris", "\ud800",
]  # fmt: skip


@given(*2 * [st.lists(st.sampled_from(_PIECES), max_size=6)])
def test_no_question_that_asks_the_same_is_left_out_by_its_signature(
    one: list[str], other: list[str]
) -> None:
    """Or it would never be found."""
    first = Wording(" ".join(one))
    for second in (Wording(" ".join(other)), Wording(" ".join(one[1:] + one[:1]))):
        if difference(first, second) is None:
            assert first.signature == second.signature
