from __future__ import annotations

import math

import pytest

from tests.server.guards.injection.models import BANDS, FakeClassifier, FakeRater, reading
from unbroken.server.guards.injection.base import Origin
from unbroken.server.guards.injection.reading import SHARE, odds, suspected


@pytest.mark.parametrize(
    ("found", "weight"), [(-9.0, 0.0), (-1.0, 0.0), (-0.5, 0.25), (0.0, 0.5), (0.5, 0.65), (1.0, 0.8)]
)
def test_log_odds_become_weights(found: float, weight: float) -> None:
    assert BANDS.weight(found) == pytest.approx(weight)


def test_weights_grow_and_never_reach_certainty() -> None:
    weights = [BANDS.weight(found / 10) for found in range(-30, 100)]

    assert weights == sorted(weights)
    assert 0.99 < weights[-1] < 1


def test_odds_are_bounded() -> None:
    assert odds(0.5) == 0
    assert odds(0.0) == pytest.approx(-odds(1.0)) == pytest.approx(math.log(0.001 / 0.999))


def test_what_both_models_say_is_added() -> None:
    classifier = FakeClassifier(word=0.9)
    both = reading(classifier, -0.4)

    found = both.weight(both.suspected("a word", Origin.USER))

    assert found == pytest.approx(BANDS.weight(-0.4 + SHARE * odds(0.9)))


def test_the_local_model_is_asked_only_where_it_could_matter() -> None:
    classifier = FakeClassifier(word=1.0)
    least = BANDS.flag - 1.0 - SHARE * odds(1.0)
    for rating, is_asked in ((least - 0.01, False), (least + 0.01, True)):
        both = reading(classifier, rating)
        both.weight(both.suspected("a word", Origin.USER))
        assert bool(classifier.shown) is is_asked


@pytest.mark.parametrize(("origin", "most"), [(Origin.USER, 1), (Origin.TOOL, 1), (Origin.INSTRUCTIONS, 0)])
def test_it_is_shown_the_window_that_is_suspected_most_and_no_instructions(origin: Origin, most: int) -> None:
    classifier = FakeClassifier()
    both = reading(classifier, -1.0, needle=1.0, pin=0.5)
    text = (
        f"{'All of it is hay. ' * 99}A needle. {'All of it is hay. ' * 99}A pin. {'All of it is hay. ' * 99}"
    )

    both.weight(both.suspected(text, origin))

    assert len(classifier.shown) == most
    assert all("needle" in each for each in classifier.shown)


def test_nothing_is_suspected_of_nothing() -> None:
    assert suspected(FakeRater(), "", 3) == []
    assert reading(FakeClassifier()).weight([]) == 0
