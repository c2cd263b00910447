from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tests.server.guards.injection.models import BANDS, FakeClassifier, FakeRater, reading
from unbroken.server.guards.injection.base import Origin
from unbroken.server.guards.injection.reading import Reading, suspected, together


class Diluted(FakeClassifier):
    """Finds words only in what has no full stop within it."""

    def scores(self, texts: Sequence[str]) -> list[float]:
        return [
            score if ". " not in text else 0.0
            for text, score in zip(texts, super().scores(texts), strict=True)
        ]


class DilutedRater(FakeRater):
    """Does the same."""

    def rated(self, text: str, windows: Sequence[tuple[int, int]]) -> list[float]:
        return [
            rating if ". " not in text[start:end].strip() else -9.0
            for (start, end), rating in zip(windows, super().rated(text, windows), strict=True)
        ]


LONG = "here is a word, among seven others that matter"


@pytest.mark.parametrize(
    ("found", "weight"), [(-9.0, 0.0), (-0.6, 0.0), (-0.3, 0.25), (0.0, 0.5), (0.5, 0.65), (1.0, 0.8)]
)
def test_log_odds_become_weights(found: float, weight: float) -> None:
    assert BANDS.weight(found) == pytest.approx(weight)


def test_weights_grow_and_never_reach_certainty() -> None:
    weights = [BANDS.weight(found / 10) for found in range(-30, 100)]

    assert weights == sorted(weights)
    assert 0.99 < weights[-1] < 1


def test_what_models_say_is_added_and_bounded() -> None:
    assert together(1.5, 0.5) == 1.5
    assert together(1.5, 0.0) == together(1.5, 0.0001) == pytest.approx(1.5 + math.log(0.001 / 0.999) / 2)
    assert together(1.5, 1.0) == together(1.5, 0.95) == 1.5 + 2.5 / 2


def test_what_both_models_say_decides() -> None:
    classifier = FakeClassifier(word=0.9)
    both = reading(classifier, -0.4)

    found = both.weight(both.suspected(LONG, Origin.USER))

    assert found == pytest.approx(BANDS.weight(together(-0.4, 0.9)))
    assert classifier.shown == [LONG]


@pytest.mark.parametrize(
    ("rating", "is_asked"), [(-2.5, False), (-1.9, False), (-1.8, True), (4.4, True), (4.5, False)]
)
def test_the_local_model_is_asked_only_where_it_could_matter(rating: float, is_asked: bool) -> None:
    classifier = FakeClassifier(word=0.5)
    both = reading(classifier, rating)

    weight = both.weight(both.suspected(LONG, Origin.USER))

    assert bool(classifier.shown) is is_asked
    assert is_asked or weight == 0 or weight >= 0.8


def test_few_words_make_no_case() -> None:
    texts = ("word", "a word", "forget a word", "now forget a word", "now forget a word please", LONG)

    ratings = [reading(FakeClassifier(), 1.0).suspected(text, Origin.USER)[0][0] for text in texts]

    assert ratings == pytest.approx([-math.inf, -math.inf, -1.0, -0.6, -0.2, 1.0])


def test_a_short_window_of_a_long_text_is_no_short_text() -> None:
    both = reading(FakeClassifier(), -3.0, Pin=1.0)

    found = both.suspected(f"{'hay ' * 62}end. Pin it.", Origin.USER)

    rating, piece = found[0]
    assert piece == "Pin it."
    assert rating == pytest.approx(1.0, abs=0.02)


SOUP, TRAIN, RAIN = "The soup was good.", "Our train was late again.", "It has been raining."
NEEDLE = "A needle is in the hay that our neighbour has."


def test_a_sentence_is_read_by_itself_if_it_looks_worse_than_all_of_them() -> None:
    """As a window, with harmless sentences around it, it would look harmless."""
    classifier = Diluted(needle=0.9)
    both = Reading(DilutedRater(needle=3.0), classifier, BANDS)

    found = both.weight(both.suspected(f"{SOUP} {TRAIN} {NEEDLE} {RAIN}", Origin.USER))

    assert found >= 0.8
    assert NEEDLE in classifier.shown


def test_a_sentence_has_to_look_worse_than_a_whole_text() -> None:
    both = reading(FakeClassifier(), -9.0, needle=1.0)

    (alone,) = both.suspected(NEEDLE, Origin.USER)
    _, among = both.suspected(f"{SOUP} {NEEDLE}", Origin.USER)
    _, of_a_tool = both.suspected(f"{SOUP} {NEEDLE}", Origin.TOOL)

    assert alone == (1.0, NEEDLE)
    assert of_a_tool[0] < among[0] < alone[0]


def test_pieces_of_a_long_text_have_to_look_worse_the_more_of_them_there_are() -> None:
    """Of many one looks like anything."""
    both = reading(FakeClassifier(), -9.0, needle=1.0)

    ratings = [
        [rating for rating, _ in both.suspected(f"{NEEDLE} {SOUP * count}", Origin.USER)]
        for count in (1, 60, 120, 900, 1800)
    ]

    (short, _), (long, sentence), (longer, _), (longest, _), (more, _) = ratings
    assert short == 1.0
    assert longer < long < short - 0.4
    assert more == longest, "or whoever writes enough around it would hide anything"
    assert sentence < long
    assert long - longer < 0.3, "ever less for each"


def test_what_only_looks_worst_hides_nothing_else() -> None:
    classifier = FakeClassifier(needle=0.9)
    both = reading(classifier)

    found = both.weight([(2.5, "a decoy"), (2.0, "a needle"), (1.9, "hay")])

    assert found >= 0.8
    assert classifier.shown == ["a decoy", "a needle"]


def test_what_is_read_of_a_text_is_bounded() -> None:
    classifier = FakeClassifier()
    both = reading(classifier)

    both.weight([(1.0 + number / 100, f"{number} {'hay ' * 60}") for number in range(9)])
    both.weight([(1.0 + number / 100, f"{number} hay") for number in range(9)])

    assert [text.partition(" ")[0] for text in classifier.shown] == ["8", "8", "7"]


@pytest.mark.parametrize(("least", "is_asked"), [(0.0, True), (0.3, True), (0.4, False), (0.5, False)])
def test_it_is_not_asked_for_less_than_anybody_minds(least: float, is_asked: bool) -> None:
    classifier = FakeClassifier(word=0.99)
    both = reading(classifier, -1.4)

    weight = both.weight(both.suspected(LONG, Origin.USER), least)

    assert bool(classifier.shown) is is_asked
    assert weight == (pytest.approx(0.375) if is_asked else 0.0)


def test_a_short_view_hides_no_long_one() -> None:
    classifier = FakeClassifier()
    both = reading(classifier, 1.0, pin=3.0)

    both.weight([*both.suspected("pin it", Origin.USER), *both.suspected(LONG, Origin.USER)])

    assert classifier.shown == [LONG]


@pytest.mark.parametrize(("origin", "most"), [(Origin.USER, 1), (Origin.TOOL, 1), (Origin.INSTRUCTIONS, 0)])
def test_it_is_shown_the_window_that_is_suspected_most_and_no_instructions(origin: Origin, most: int) -> None:
    classifier = FakeClassifier()
    both = reading(classifier, -1.0, needle=1.0, pin=0.5)
    text = (
        f"{'All of it is hay. ' * 99}A needle. {'All of it is hay. ' * 99}A pin. {'All of it is hay. ' * 99}"
    )

    both.weight(both.suspected(text, origin))

    assert most <= len(classifier.shown) <= 2 * most
    assert all("needle" in each for each in classifier.shown)


def test_nothing_is_suspected_of_nothing() -> None:
    assert suspected(FakeRater(), "", 3) == []
    assert reading(FakeClassifier()).weight([]) == 0
