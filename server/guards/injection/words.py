"""Patterns over words, all matched in one pass: linear in any text, whatever it is made of.

A pattern is words in order. ``ignore|forget`` are alternatives, ``instruct*`` is a beginning, ``..3``
allows up to three other words in between. Writing without spaces between words (Chinese, Japanese, Thai)
counts each character as a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["BadPattern", "Match", "Matcher", "Vocabulary", "slices", "tokens"]

_IDEOGRAPHS: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_TOKEN: Final = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
_GAP: Final = re.compile(r"\.\.(\d{1,2})")
_STEM: Final = 3
"""Letters that a beginning has at least."""

_MOST_SEEN: Final = 30_000
_LONGEST_SEEN: Final = 32
"""Words whose places are kept, and their letters: a few MB at most."""

_SLICE: Final = 4096
"""Characters that are looked at without letting another thread run: less than a millisecond."""


class BadPattern(ValueError):
    """A pattern can't be read."""


@dataclass(frozen=True, slots=True)
class _Step:
    words: tuple[str, ...]
    gap: int
    """How many other words may stand before it."""


@dataclass(frozen=True, slots=True)
class Match:
    """Where a pattern was found."""

    pattern: int
    """Its number."""
    start: int
    """The character at which its last word begins."""


class _Seen(dict[str, Sequence[tuple[int, int]]]):
    """What was looked up before. Bounded; any number of threads use it."""

    def __init__(self, look_up: Callable[[str], Sequence[tuple[int, int]]]) -> None:
        self._look_up = look_up

    def __missing__(self, word: str) -> Sequence[tuple[int, int]]:
        found = self._look_up(word)
        if len(self) < _MOST_SEEN and len(word) <= _LONGEST_SEEN:
            self[word] = found
        return found


class Vocabulary:
    """Patterns, and the words they are made of. Immutable: any number of matchers share it.

    Args:
        patterns: In the form of :class:`~unbroken.server.guards.injection.normal_form.NormalForm`.

    Raises:
        BadPattern: One of them can't be read.

    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self.steps = [tuple(_steps(pattern)) for pattern in patterns]
        self._exact: dict[str, list[tuple[int, int]]] = {}
        self._stems: dict[str, list[tuple[str, tuple[int, int]]]] = {}
        for number, steps in enumerate(self.steps):
            for place, step in enumerate(steps):
                for word in step.words:
                    if word.endswith("*"):
                        stem = word[:-1]
                        self._stems.setdefault(stem[:_STEM], []).append((stem, (number, place)))
                    else:
                        self._exact.setdefault(word, []).append((number, place))
        self.seen = _Seen(self._look_up)
        """What :meth:`places` returns, by word: one look-up for each word of a text, without a call."""
        self.words = frozenset(self._exact) | {stem for stems in self._stems.values() for stem, _ in stems}

    def places(self, word: str) -> Sequence[tuple[int, int]]:
        """Return in which patterns *word* can stand, and where: later places of a pattern first."""
        return self.seen[word]

    def _look_up(self, word: str) -> Sequence[tuple[int, int]]:
        found = self._exact.get(word, ())
        stems = self._stems.get(word[:_STEM])
        if stems:
            started = [place for stem, place in stems if word.startswith(stem)]
            if started:
                return sorted({*found, *started}, key=_latest_first)
        return found[::-1] if len(found) > 1 else found

    def known(self, word: str) -> bool:
        """Return whether any pattern has *word*."""
        return bool(self.places(word))


class Matcher:
    """One pass over one text, which comes in slices.

    For each pattern it remembers where each of its beginnings was seen last: since gaps only have an
    upper bound, the last one is as good as any other.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._reached: dict[tuple[int, int], int] = {}
        self._count = 0

    def feed(self, text: str, offset: int = 0) -> Iterator[Match]:
        """Yield what is found in the next slice, which begins at *offset*. A word must not be cut in two."""
        seen, reached, steps = self._vocabulary.seen, self._reached, self._vocabulary.steps
        count = self._count
        for token in _TOKEN.finditer(text):
            count += 1
            for number, place in seen[token[0]]:
                if place:
                    last = reached.get((number, place - 1))
                    if last is None or count - last - 1 > steps[number][place].gap:
                        continue
                if place == len(steps[number]) - 1:
                    yield Match(number, offset + token.start())
                else:
                    reached[number, place] = count
        self._count = count


def slices(text: str) -> Iterator[tuple[int, str]]:
    """Cut *text* where words end, and yield the pieces with where each begins.

    A word that is longer than a slice is cut all the same: nobody's pattern has one.
    """
    start = 0
    while start < len(text):
        end = min(start + _SLICE, len(text))
        if end < len(text):
            for at in range(end, max(end - 128, start), -1):
                if not text[at - 1].isalnum():
                    end = at
                    break
        yield start, text[start:end]
        start = end


def tokens(text: str) -> Iterable[str]:
    """Return the words of *text*, as patterns count them."""
    return _TOKEN.findall(text)


def _latest_first(place: tuple[int, int]) -> tuple[int, int]:
    return place[0], -place[1]


def _steps(pattern: str) -> Iterator[_Step]:
    gap = 0
    count = 0
    for part in pattern.split():
        if (match := _GAP.fullmatch(part)) is not None:
            gap = int(match[1])
            continue
        alternatives = [word for word in part.split("|") if word]
        if not alternatives:
            raise BadPattern(f"nothing stands between bars in {pattern!r}")
        if any(word.endswith("*") for word in alternatives) and any(
            word.endswith("*") and len(word) <= _STEM for word in alternatives
        ):
            raise BadPattern(f"a beginning in {pattern!r} has fewer than {_STEM} letters")
        split = [_TOKEN.findall(word.removesuffix("*")) for word in alternatives]
        if any(len(words) != 1 for words in split):
            # A word of several characters in writing without spaces: these, one after another.
            if len(alternatives) > 1:
                raise BadPattern(f"an alternative in {pattern!r} is no single word")
            for word in split[0]:
                yield _Step((word,), gap)
                count += 1
                gap = 0
            continue
        yield _Step(tuple(alternatives), gap)
        count += 1
        gap = 0
    if gap or not count:
        raise BadPattern(f"{pattern!r} ends with a gap, or has no words")
