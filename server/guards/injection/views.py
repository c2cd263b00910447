"""Further readings of a text: what is hidden in it, encoded, or written so that only a model reads it.

Every view is bounded by the text's own length, all of them together by a few times that.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from unbroken.server.guards.injection.decoding import pieces, unencoded
from unbroken.server.guards.injection.normal_form import NormalForm
from unbroken.server.guards.injection.words import Vocabulary, tokens

__all__ = ["View", "Views", "legible"]

_DEEPEST: Final = 2
"""Encodings within each other that are undone."""

_MOST_DECODED: Final = 64 * 1024
"""Characters that all decoded pieces of one text may have."""

_LEET_WORD: Final = re.compile(r"(?<![a-z0-9@$!|+])(?=[a-z0-9@$!|+]*[013457@$])[a-z0-9@$!|+]{2,}")
_LETTER: Final = re.compile(r"[a-z]")
_CIPHER: Final = re.compile(r"[013457@$]")
_LEET: Final = {
    "0": "o",
    "3": "e",
    "4": "a",
    "5": "s",
    "7": "t",
    "8": "b",
    "9": "g",
    "@": "a",
    "$": "s",
    "+": "t",
}
_ONE_AS_I: Final = str.maketrans({**_LEET, "1": "i", "!": "i", "|": "i"})
_ONE_AS_L: Final = str.maketrans({**_LEET, "1": "l", "!": "i", "|": "l"})

_SPACED: Final = re.compile(r"(?<![^\W_])(?:[^\W\d_][ .\-_*·/]{1,3}){5,}[^\W\d_](?![^\W_])")
_SINGLE: Final = re.compile(r"[ .\-_*·/][^\W\d_][ .\-_*·/]{1,3}[^\W\d_][ .\-_*·/]")
"""What no text lacks that :data:`_SPACED` fits: found faster."""
_APART: Final = re.compile(r"[ .\-_*·/]")
_LETTERS: Final = re.compile(r"[a-z]{18,400}")
_DOUBLED: Final = re.compile(r"(?<![a-z])(?:([a-z])\1){4,32}(?![a-z])")
_DOUBLE: Final = re.compile(r"([a-z])\1")
_WORD: Final = re.compile(r"[^\W_]+")
_LONGEST_WORD: Final = 16
_LEAST_TURNED: Final = 4
_FEWEST_TURNED: Final = 2
"""Letters of a word, and words, by which a text is recognised that is written backwards or rotated."""

_MOST_SQUEEZED: Final = 8
"""Words written as one, of one text, that are taken apart."""


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a text, in normal form."""

    name: str
    text: str
    is_decoded: bool = False
    """Whether somebody took pains to write it so that people can't read it."""


class Views:
    """Reads texts in several ways.

    Args:
        form: What rules are written in.
        vocabulary: The words that rules know: what is written without spaces is cut into these.

    """

    def __init__(self, form: NormalForm, vocabulary: Vocabulary) -> None:
        self._form = form
        self._vocabulary = vocabulary
        known = {word for word in vocabulary.words if word.isascii() and len(word) > 1}
        self._words = known | {"a", "i"}

    def of(self, text: str) -> Iterator[View]:
        """Yield the views of *text*, the plain one first. None comes twice.

        It should have some ten thousand characters at most: each step of this holds the interpreter.
        """
        plain = self._form.of(text)
        yield View("text", plain)
        seen = {plain}
        left = [_MOST_DECODED]
        for view in chain(self._decoded(text, left, 0), self._rewritten(plain)):
            if view.text.strip() and view.text not in seen:
                seen.add(view.text)
                yield view

    def turned(self, plain: str) -> Iterator[View]:
        """Yield what *plain*, in normal form, is backwards and rotated, where that has words of rules."""
        words = " ".join({word for word in tokens(plain) if _LEAST_TURNED <= len(word) <= _LONGEST_WORD})
        if self._knows_enough(codecs.encode(words, "rot13").split()):
            yield View("rot13", codecs.encode(plain, "rot13"), is_decoded=True)
        if self._knows_enough(words[::-1].split()):
            yield View("reversed", plain[::-1], is_decoded=True)
            yield View("reversed", _WORD.sub(lambda match: match[0][::-1], plain), is_decoded=True)

    def _knows_enough(self, words: Iterable[str]) -> bool:
        """Return whether rules have several of *words*: one is met by accident."""
        known = filter(self._vocabulary.seen.__getitem__, words)  # hundreds of words: no call for each
        return sum(1 for _ in islice(known, _FEWEST_TURNED)) == _FEWEST_TURNED

    def _reads(self, name: str, plain: str, rewritten: str) -> Iterator[View]:
        """Yield *plain* as *rewritten*, where words have become such as rules have."""
        if rewritten != plain and any(
            self._vocabulary.known(word) for word in {*tokens(rewritten)}.difference(tokens(plain))
        ):
            yield View(name, rewritten)

    def _decoded(self, text: str, left: list[int], depth: int) -> Iterator[View]:
        for name, piece in pieces(text):
            if left[0] <= 0:
                return
            piece = piece[: left[0]]
            left[0] -= len(piece)
            yield View(name, self._form.of(piece), is_decoded=True)
            if depth + 1 < _DEEPEST:
                yield from self._decoded(piece, left, depth + 1)

    def _rewritten(self, plain: str) -> Iterator[View]:
        if not plain.isascii():
            yield from self._reads("lookalikes", plain, self._form.lookalikes(plain))
        if _CIPHER.search(plain):
            mixed = " ".join(word for word in _LEET_WORD.findall(plain) if _is_mixed(word))
            for ones in (_ONE_AS_I, _ONE_AS_L) if mixed else ():
                # Most such words are times and sizes: what these become is looked at first.
                if any(map(self._vocabulary.known, tokens(mixed.translate(ones)))):
                    yield from self._reads("leet", plain, _LEET_WORD.sub(_reading_as(ones), plain))
        if _SINGLE.search(plain) and _SPACED.search(plain):
            yield View("spaced", _SPACED.sub(self._joined, plain), is_decoded=True)
        if _DOUBLED.search(plain):
            yield View("doubled", _DOUBLE.sub(r"\1", plain))
        if _LETTERS.search(plain):
            cut = _LETTERS.sub(self._cut, plain, count=_MOST_SQUEEZED)
            if cut != plain:
                yield View("squeezed", cut)

    def _joined(self, match: re.Match[str]) -> str:
        """Put single letters together. Words may be told apart by wider gaps, or by nothing."""
        words = [_APART.sub("", word) for word in re.split(r"[ .\-_*·/]{2,3}", match[0])]
        if len(words) > 1 and all(len(word) > 1 for word in words[:3]):
            return " ".join(words)
        return " ".join(self._segments("".join(words)))

    def _cut(self, match: re.Match[str]) -> str:
        return " ".join(self._segments(match[0]))

    def _segments(self, letters: str) -> list[str]:
        """Cut *letters* into words that rules know, the longest first; what is none stays together."""
        found: list[str] = []
        unknown = at = 0
        while at < len(letters):
            for size in range(min(_LONGEST_WORD, len(letters) - at), 1, -1):
                if letters[at : at + size] in self._words and (size > 2 or at == unknown):
                    if unknown < at:
                        found.append(letters[unknown:at])
                    found.append(letters[at : at + size])
                    at += size
                    unknown = at
                    break
            else:
                at += 1
        if unknown < len(letters):
            found.append(letters[unknown:])
        return found


def legible(text: str) -> str:
    """Return *text* without what people can't read: models say anything of it. It is read decoded."""
    text = unencoded(text)
    return _SPACED.sub(" ", text) if _SINGLE.search(text) else text


def _reading_as(ones: dict[int, str]) -> Callable[[re.Match[str]], str]:
    return lambda match: match[0].translate(ones) if _is_mixed(match[0]) else match[0]


def _is_mixed(word: str) -> bool:
    """Return whether *word*, which has what may stand for letters, has letters as well: it is no number."""
    return _LETTER.search(word) is not None
