"""A linear model of our own: pieces of words, words and pairs of words, each with a weight in a table.

It is no match for a language model, and takes a hundredth of its time: it reads all of a text, however
long, and says which windows of it are worth a closer look. Its weights, and what they were trained on,
are in ``linear.npz`` and ``linear.json``; ``make guards-train`` makes both. Needs numpy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
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
        found = [*_pieces(codes), *_words(codes)]
        self.buckets: NDArray[Any] = numpy.concatenate([_bucket(hashes) for hashes, _ in found])
        # The blank in front is no character of the text's.
        self.places: NDArray[Any] = numpy.maximum(numpy.concatenate([places for _, places in found]) - 1, 0)


def _bucket(hashes: NDArray[Any]) -> NDArray[Any]:
    import numpy

    mixed: NDArray[Any] = (hashes ^ (hashes >> numpy.uint64(29))) * numpy.uint64(_MIXING)
    spread: NDArray[Any] = mixed >> numpy.uint64(_SPREAD)
    return spread


def _pieces(codes: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the pieces of words, as characters that follow each other: blanks only at their ends."""
    import numpy

    blanks = numpy.concatenate([[0], numpy.cumsum(codes == 32)])
    found = []
    hashes = codes
    for size in range(2, max(_SIZES) + 1):
        if len(codes) < size:
            break
        hashes = hashes[: len(codes) - size + 1] * numpy.uint64(_BASE) + codes[size - 1 :]
        if size in _SIZES:
            starts = numpy.arange(len(hashes))
            inside = blanks[starts + size - 1] - blanks[starts + 1]
            kept = starts[inside == 0]
            found.append((hashes[kept] + numpy.uint64(size), kept))
    return found


def _words(codes: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the words, and the pairs of words beside each other or with one between."""
    import numpy

    is_letter = codes != 32
    edges = numpy.flatnonzero(is_letter[1:] != is_letter[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]  # a blank stands at either end
    powers = _powers(_BASE, len(codes))
    sums = numpy.concatenate([numpy.zeros(1, numpy.uint64), numpy.cumsum(codes * powers)])
    words = (sums[ends] - sums[starts]) * _powers(pow(_BASE, -1, 1 << 64), len(codes))[starts]
    found = [(words * numpy.uint64(_MIXING) + numpy.uint64(11), starts)]
    for apart in (1, 2):
        first, second = words[:-apart], words[apart:]
        found.append(
            (first * numpy.uint64(_MIXING + 2 * apart) + second * numpy.uint64(_BASE), starts[:-apart])
        )
    return found


def _powers(base: int, count: int) -> NDArray[Any]:
    import numpy

    factors = numpy.full(count, base & _ALL, numpy.uint64)
    factors[0] = 1
    return numpy.cumprod(factors)


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
        starts, ends = (numpy.array(each) for each in zip(*windows, strict=True))
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
