"""Models that say what they are told to."""

from __future__ import annotations

from collections.abc import Sequence

from unbroken.server.guards.injection.base import Reader
from unbroken.server.guards.injection.reading import Bands, Reading

__all__ = ["BANDS", "FakeClassifier", "FakeRater", "reading"]

BANDS = Bands(flag=0.0, block=1.0)


class FakeClassifier:
    """Finds words, and reads at most :attr:`most` of them."""

    name = "model"
    most = 40

    def __init__(self, **scores: float) -> None:
        self.found = scores
        self.shown: list[str] = []

    def scores(self, texts: Sequence[str]) -> list[float]:
        self.shown += texts
        return [
            max((score for word, score in self.found.items() if word in text), default=0.0) for text in texts
        ]

    def fits(self, texts: Sequence[str]) -> bool:
        return sum(len(text.split()) for text in texts) <= self.most


class FakeRater:
    """Rates every window the same, but for those with a word."""

    def __init__(self, rating: float = 0.0, **ratings: float) -> None:
        self._rating = rating
        self._ratings = ratings

    def rated(self, text: str, windows: Sequence[tuple[int, int]]) -> list[float]:
        return [
            max(
                (rating for word, rating in self._ratings.items() if word in text[start:end]),
                default=self._rating,
            )
            for start, end in windows
        ]


def reading(classifier: Reader, rating: float = 0.0, **ratings: float) -> Reading:
    """Return what reads with *classifier*, and a linear model of which nothing else is to be said."""
    return Reading(FakeRater(rating, **ratings), classifier, BANDS)
