"""A linear model of our own: pieces of words, words and pairs of words, each with a weight in a table.

It is no match for a language model, and takes a hundredth of its time: it reads all of a text, however
long, and says which windows of it are worth a closer look. Its weights, and what they were trained on,
are in ``linear.npz`` and ``linear.json``; ``make guards-train`` makes both. Needs numpy.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unbroken.server.guards.injection.reading import Bands

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BUCKETS", "FEWEST", "FOLDER", "Features", "LinearModel", "shipped"]

FOLDER: Final = Path(__file__).parent

BUCKETS: Final = 1 << 18
"""Rows of the table. Features that share one share its weight."""

_SIZES: Final = (3, 4, 5)
"""Characters of a piece of a word, its ends among them."""

FEWEST: Final = 24
"""Features that a window counts for at least: three words make no case."""

_APART: Final = re.compile(r"[\W_]")
_BASE: Final = 0x9E3779B97F4A7C15
_MIXING: Final = 0xD1B54A32D192ED03
_ALL: Final = (1 << 64) - 1
_SPREAD: Final = 64 - (BUCKETS.bit_length() - 1)


class Features:
    """What a text in normal form consists of: for each feature its bucket, and where it begins."""

    def __init__(self, text: str) -> None:
        import numpy

        plain = " " + _APART.sub(" ", text) + " "
        codes = numpy.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(numpy.uint64)
        hashes, places = zip(*_pieces(codes), *_words(codes), strict=True)
        # Of all at once: what a short text costs is calls.
        self.buckets: NDArray[Any] = _bucket(numpy.concatenate(hashes))
        # The blank in front is no character of the text's.
        self.places: NDArray[Any] = numpy.maximum(numpy.concatenate(places) - 1, 0)


def _bucket(hashes: NDArray[Any]) -> NDArray[Any]:
    import numpy

    mixed: NDArray[Any] = (hashes ^ (hashes >> numpy.uint64(29))) * numpy.uint64(_MIXING)
    spread: NDArray[Any] = mixed >> numpy.uint64(_SPREAD)
    return spread.view(numpy.int64)  # the same numbers, and what places are counted in


def _pieces(codes: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the pieces of words, as characters that follow each other: blanks only at their ends."""
    import numpy

    blanks = numpy.zeros(len(codes) + 1, numpy.int64)
    numpy.cumsum(codes == 32, out=blanks[1:])
    hashes = codes
    for size in range(2, min(max(_SIZES), len(codes)) + 1):
        hashes = hashes[:-1] * numpy.uint64(_BASE) + codes[size - 1 :]
        if size in _SIZES:
            kept = numpy.flatnonzero(blanks[size - 1 : -1] == blanks[1 : len(hashes) + 1])
            yield hashes[kept] + numpy.uint64(size), kept


def _words(codes: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the words, and the pairs of words beside each other or with one between."""
    import numpy

    is_letter = codes != 32
    edges = numpy.flatnonzero(is_letter[1:] != is_letter[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]  # a blank stands at either end
    powers, inverses = _powers(1 << len(codes).bit_length())
    sums = numpy.zeros(len(codes) + 1, numpy.uint64)
    numpy.cumsum(codes * powers[: len(codes)], out=sums[1:])
    words = (sums[ends] - sums[starts]) * inverses[starts]
    yield words * numpy.uint64(_MIXING) + numpy.uint64(11), starts
    others = words * numpy.uint64(_BASE)
    for apart in (1, 2):
        first = words[:-apart] * numpy.uint64(_MIXING + 2 * apart)
        yield first + others[apart:], starts[:-apart]


@functools.lru_cache(maxsize=8)
def _powers(count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the first *count* powers of the base, and what undoes them."""
    import numpy

    both = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        factors = numpy.full(count, base & _ALL, numpy.uint64)
        factors[0] = 1
        both.append(numpy.cumprod(factors))
    powers, inverses = both
    return powers, inverses


class LinearModel:
    """Rates the windows of a text, as a :class:`~unbroken.server.guards.injection.reading.Rater`.

    Args:
        weights: One for each bucket.
        bias: What a window is rated of which nothing is known.

    """

    def __init__(self, weights: NDArray[Any], bias: float) -> None:
        self._weights = weights
        self._bias = bias

    def rated(self, text: str, windows: Sequence[tuple[int, int]]) -> list[float]:
        """See :meth:`Rater.rated`. Each feature is looked up once, however many windows it is in."""
        if not windows:
            return []
        import numpy

        features = Features(text)
        marks = features.places + 1
        size = len(text) + 1
        sums = numpy.cumsum(numpy.bincount(marks, self._weights[features.buckets], size))
        counts = numpy.cumsum(numpy.bincount(marks, minlength=size))
        starts, ends = numpy.array(windows).T
        totals = sums[ends] - sums[starts]
        sizes = numpy.maximum(counts[ends] - counts[starts], FEWEST)
        rated: list[float] = (totals / numpy.sqrt(sizes) + self._bias).tolist()
        return rated


def shipped(folder: Path = FOLDER) -> tuple[LinearModel, Bands]:
    """Return the model of this package, and how sure it has to be, beside the local one.

    Raises:
        OSError: It isn't there.

    """
    import numpy

    about = json.loads((folder / "linear.json").read_text("utf-8"))
    with numpy.load(folder / "linear.npz", allow_pickle=False) as held:
        weights = numpy.zeros(BUCKETS)
        weights[held["buckets"]] = held["weights"] * about["scale"]
    return LinearModel(weights, about["bias"]), Bands(flag=about["flag"], block=about["block"])
