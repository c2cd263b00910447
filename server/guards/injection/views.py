"""Further readings of a text: what is hidden in it, encoded, or written so that only a model reads it.

Every view is bounded by the text's own length, all of them together by a few times that.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final
from urllib.parse import unquote

from unbroken.server.guards.injection.normal_form import NormalForm
from unbroken.server.guards.injection.words import Vocabulary, tokens

__all__ = ["View", "Views", "legible"]

_DEEPEST: Final = 2
"""Encodings within each other that are undone."""

_MOST_PIECES: Final = 2048
"""Encoded pieces of one text that are decoded: more than there is room for in a part."""

_MOST_DECODED: Final = 64 * 1024
"""Characters that all decoded pieces of one text may have."""

_TAGS: Final = range(0xE0020, 0xE007F)
_FLAG: Final = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f")
"""An emoji of a region's flag: the one thing that tag characters are for."""

_HIDDEN: Final = re.compile("[\ufe00-\ufe0f\U000e0020-\U000e007e\U000e0100-\U000e01ef]")
# What each begins with stands in front of its repetitions: that is looked for much faster.
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
_WRAPPED: Final = re.compile(r"(?<=[A-Za-z0-9+/]{60})\r?\n(?=[A-Za-z0-9+/])")
_HEX: Final = re.compile(r"[0-9a-fA-F]{2}[ :,]?(?:[0-9a-fA-F]{2}[ :,]?){11,}")
_ESCAPED: Final = re.compile(r"\\x([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})")
_PERCENT: Final = re.compile(r"(?:%[0-9a-fA-F]{2}){3}|(?:%[0-9a-fA-F]{2}[A-Za-z]{1,12}){3}")
_ENTITY: Final = re.compile(r"&(?:#\d{2,7}|#x[0-9a-fA-F]{2,6});")
_BITS: Final = re.compile(r"[01]{8} ?(?:[01]{8} ?){7,}")

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
        for name, piece in _pieces(text):
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
    for pattern in (_BITS, _HEX, _BASE64):
        text = pattern.sub(" ", text)
    return _SPACED.sub(" ", text) if _SINGLE.search(text) else text


def _reading_as(ones: dict[int, str]) -> Callable[[re.Match[str]], str]:
    return lambda match: match[0].translate(ones) if _is_mixed(match[0]) else match[0]


def _is_mixed(word: str) -> bool:
    """Return whether *word*, which has what may stand for letters, has letters as well: it is no number."""
    return _LETTER.search(word) is not None


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield what is encoded in *text*, decoded, with how it was."""
    if not text.isascii() and _HIDDEN.search(text):
        yield from _hidden(text)
    count = 0
    joined = _WRAPPED.sub("", text) if "\n" in text else text
    for pattern, name, decode in (
        (_BASE64, "base64", _from_base64),
        (_HEX, "hex", _from_hex),
        (_BITS, "binary", _from_bits),
    ):
        for match in pattern.finditer(joined):
            if (decoded := decode(match[0])) is not None:
                yield name, decoded
                count += 1
                if count >= _MOST_PIECES:
                    return
    if _ESCAPED.search(text):
        yield "escapes", _ESCAPED.sub(lambda match: chr(int(match[1] or match[2], 16)), text)
    if "%" in text and _PERCENT.search(text):
        yield "percent", unquote(text, errors="replace")
    if _ENTITY.search(text):
        yield "entities", html.unescape(text)


def _hidden(text: str) -> Iterator[tuple[str, str]]:
    """Yield what is written in characters that nobody sees."""
    tags = "".join(chr(ord(char) - 0xE0000) for char in _FLAG.sub("", text) if ord(char) in _TAGS)
    if len(tags) > 3:
        yield "tags", tags
    selectors = bytearray()
    for match in _HIDDEN.finditer(text):
        code = ord(match[0])
        if 0xFE00 <= code <= 0xFE0F:
            selectors.append(code - 0xFE00)
        elif 0xE0100 <= code <= 0xE01EF:
            selectors.append(code - 0xE0100 + 16)
    if (decoded := _readable(bytes(selectors))) is not None:
        yield "selectors", decoded


def _from_base64(piece: str) -> str | None:
    plain = piece.replace("-", "+").replace("_", "/").rstrip("=")
    for skipped in range(4):  # whatever stands in front may belong to it by its looks alone
        part = plain[skipped:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        try:
            decoded = _readable(base64.b64decode(part + "=" * (-len(part) % 4)))
        except (binascii.Error, ValueError):
            continue
        if decoded is not None:
            return decoded
    return None


def _from_hex(piece: str) -> str | None:
    digits = re.sub(r"[ :,]", "", piece)
    return _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))


def _from_bits(piece: str) -> str | None:
    bits = piece.replace(" ", "")
    return _readable(bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) // 8 * 8, 8)))


def _readable(data: bytes) -> str | None:
    """Return *data* as text, where it is text that somebody could have written."""
    text = data.decode(errors="ignore")  # a piece may have been cut within a character
    if len(text.encode()) < len(data) - 6:
        return None
    letters = sum(char.isalpha() or char == " " for char in text)
    return text if len(text) > 7 and letters > 0.7 * len(text) else None
