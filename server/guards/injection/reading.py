"""What models make of a text: a linear one reads all of it, a local one the pieces that look worst.

Both say how much a piece looks like an attack, in log odds, and these are added. Pieces are windows, and
sentences by themselves: among harmless ones an attack would make a window that looks harmless. The local
model is asked only where its answer could matter: most of what people write is settled by the first alone.
It costs ten times what all else does, and is surest of what it knows least: of short texts, and of strings.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from unbroken.server.guards.injection.base import Origin, Reader
from unbroken.server.guards.injection.windows import WINDOW, runs, windows
from unbroken.server.guards.injection.words import tokens

__all__ = ["Bands", "Rater", "Reading", "suspect", "suspected", "together"]

_SHARE: Final = 0.5
"""What the local model's log odds count for, beside those of the linear one."""

_SURE: Final = 1e-3
"""No model is surer than that."""

_MOST_SUSPICION: Final = 2.5
"""Log odds of an attack that count: it may be surer of harmlessness than that, not of the contrary.
So it makes no attack of what the linear model finds harmless, and needn't be asked."""

_FEWEST_WORDS: Final = 3
"""Different words below which a text is none that models know: ``reveal`` may be about anything."""

_ENOUGH_WORDS: Final = 8
_PER_WORD: Final = 0.4
"""Different words from which on a text is judged as it is, and the log odds that each lacking one costs:
people who answer in five words mean what was said before, and that isn't seen here."""

_APART: Final = {Origin.USER: 0.4, Origin.TOOL: 1.0}
"""Log odds by which sentences have to look worse than windows: there are many of them in a long text, and
one of them looks like anything. More so in documents, whose writers tell their readers what to do."""

_PER_LENGTH: Final = 0.35
"""Log odds by which all pieces of a text have to look worse, for each time that it is e times as long as a
window: of many one looks like anything, and the worst of them grows with the logarithm of their number."""

_LONGEST: Final = 12
"""Windows beyond which it doesn't grow: or whoever writes enough around it would hide anything."""

_MOST_PIECES: Final = 2
"""Pieces that the local model reads of a text, where they are short: one that only looks bad must not
hide another, and time grows with what is read."""

_READ: Final = frozenset({Origin.USER, Origin.TOOL})
"""What models read. Instructions aren't shown to them: they instruct."""


class Rater(Protocol):
    """Reads all of a text, and says what deserves a closer look."""

    def rated(self, text: str, windows: Sequence[tuple[int, int]]) -> list[float]:
        """Return the log odds of an attack for each of *windows*, which are places in *text*.

        Linear in the text, however many windows there are.
        """


@dataclass(frozen=True, slots=True)
class Bands:
    """How sure both models have to be, together, in log odds."""

    flag: float
    """What by itself comes to a score of 0.5."""
    block: float
    """What comes to 0.8."""

    def odds(self, weight: float) -> float:
        """Return the log odds that weigh *weight*; for more than a half, those that flag."""
        return self.flag - _DOUBTS * (1 - 2 * min(weight, 0.5))

    def weight(self, found: float) -> float:
        """Return what log odds of *found* weigh as evidence, from 0 to 1."""
        if found < self.flag:
            return max(0.0, 0.5 - 0.5 * (self.flag - found) / _DOUBTS)
        if found < self.block:
            return 0.5 + 0.3 * (found - self.flag) / (self.block - self.flag)
        return 1 - 0.2 * math.exp(self.block - found)


_DOUBTS: Final = 0.6
"""Log odds below those that flag, from which on there is any evidence."""


class Reading:
    """Reads views of texts. Immutable: any number of threads use it.

    Args:
        linear: Reads everything.
        classifier: Reads the most suspicious pieces.
        bands: How sure they have to be.

    """

    def __init__(self, linear: Rater, classifier: Reader, bands: Bands) -> None:
        self._linear = linear
        self._classifier = classifier
        self._bands = bands
        self._least = bands.odds(0.0)
        """Log odds that are no evidence."""

    @property
    def name(self) -> str:
        """What the models are called in reasons."""
        return self._classifier.name

    def suspected(self, text: str, origin: Origin) -> list[tuple[float, str]]:
        """Return which pieces of *text*, in normal form, :meth:`weight` is to be told of."""
        if origin not in _READ:
            return []
        return suspect(self._linear, text, _APART[origin], self._least - together(0.0, 1.0))

    def weight(self, suspects: Iterable[tuple[float, str]], least: float = 0.0) -> float:
        """Return what the pieces in *suspects*, each with its log odds, weigh as evidence, from 0 to 1.

        Where they can't weigh *least* it may be anything less.

        Raises:
            DetectorFailed: The local model can't be run.

        """
        return self._bands.weight(self.odds(suspects, self._bands.odds(least)))

    def odds(self, suspects: Iterable[tuple[float, str]], least: float = -math.inf) -> float:
        """Return the log odds of an attack in the worst of *suspects*, if they could be *least* or more.

        The local model reads those that are suspected most, a few: more of them find hardly anything.

        Raises:
            DetectorFailed: The local model can't be run.

        """
        worst, read = -math.inf, list[str]()
        for rating, piece in heapq.nlargest(_MOST_PIECES, {*suspects}):
            if (most := together(rating, 1.0)) <= worst or most < least:
                break
            if (sure := together(rating, 0.0)) >= self._bands.block:
                return max(worst, sure)
            if read and not self._classifier.fits([*read, piece]):
                break
            (probability,) = self._classifier.scores([piece])
            worst = max(worst, together(rating, probability))
            if worst >= self._bands.block:
                break
            read.append(piece)
        return worst


def suspect(rater: Rater, text: str, apart: float, least: float) -> list[tuple[float, str]]:
    """Return the pieces of *text*, in normal form, that *rater* suspects most, with their log odds.

    They are a window, and sentences, if these look worse than *least*, and by *apart* worse. A short
    text has to look worse than another: what it is about was said before. So have sentences. Windows
    of a long text that happen to be short don't, or one that isn't read would hide another. Pieces of a
    long text have to look worse the more of them there are.
    """
    places, sentences = windows(text), runs(text)
    bar = _PER_LENGTH * math.log(min(max(1.0, len(text) / WINDOW), _LONGEST))
    apart += bar
    ratings = rater.rated(text, [*places, *sentences])
    found = []
    if places:
        rating, (start, end) = max(zip(ratings[: len(places)], places, strict=True))
        found.append((rating - (_brevity(text) if len(text) <= WINDOW else bar), text[start:end]))
    worst = (least, "")
    for rating, (start, end) in sorted(zip(ratings[len(places) :], sentences, strict=True), reverse=True):
        if rating - apart <= worst[0]:
            break
        sentence = text[start:end].strip()
        worst = max(worst, (rating - apart - _brevity(sentence), sentence))
    return [*found, worst] if worst[1] else found


def suspected(rater: Rater, text: str, most: int) -> list[tuple[float, str]]:
    """Return *most* windows of *text*, in normal form: those that *rater* suspects, with their log odds."""
    places = windows(text)
    found = heapq.nlargest(most, zip(rater.rated(text, places), places, strict=True))
    return [(rating, text[start:end]) for rating, (start, end) in found]


def _brevity(text: str) -> float:
    count = len(set(tokens(text)))
    return math.inf if count < _FEWEST_WORDS else _PER_WORD * max(0, _ENOUGH_WORDS - count)


def together(rating: float, probability: float) -> float:
    """Return the log odds of both models: *rating* is the linear one's, *probability* the local one's."""
    bounded = max(probability, _SURE)
    odds = math.log(bounded / (1 - bounded)) if bounded < 1 - _SURE else _MOST_SUSPICION
    return rating + _SHARE * min(odds, _MOST_SUSPICION)
