"""Cuts JSON, while it comes, into what may leave at once and sentences within its strings. No I/O, no clock.

A model reads what strings say, with escapes as what they stand for; what leaves is written as it came.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from unbroken.server.guards.leaks.sentences import Passage, Sentences

__all__ = ["JsonStrings"]

_ESCAPED: Final = {"n": "\n", "r": "\n", "t": "\t", "b": " ", "f": "\n"}
_UNICODE: Final = 6
"""Characters of an escape such as ``\\u00e9``."""


class JsonStrings:
    """Cuts one JSON text; each of its strings as :class:`Sentences` does."""

    def __init__(self) -> None:
        self._sentences = Sentences()
        self._written: deque[str] = deque()  # each character that the sentences hold, as it came
        self._is_inside = False
        self._escape = ""  # the beginning of one

    @property
    def held(self) -> int:
        """How many characters of strings are held."""
        return len(self._written)

    def feed(self, text: str) -> list[Passage]:
        """Take in text, and return what may leave."""
        passages: list[Passage] = []
        plain: list[str] = []  # outside of strings
        meant: list[str] = []  # inside
        for char in text:
            if not self._is_inside:
                plain.append(char)
                if char == '"':
                    self._is_inside = True
                    passages.append(Passage("".join(plain)))
                    plain.clear()
            elif self._escape:
                self._escape += char
                if self._escape[1] != "u" or len(self._escape) == _UNICODE:
                    meant.append(_meaning(self._escape))
                    self._written.append(self._escape)
                    self._escape = ""
            elif char == "\\":
                self._escape = char
            elif char == '"':
                passages += self._as_written(self._sentences.feed("".join(meant)) + self._sentences.flush())
                meant.clear()
                plain.append(char)
                self._is_inside = False
            else:
                meant.append(char)
                self._written.append(char)
        if meant:
            passages += self._as_written(self._sentences.feed("".join(meant)))
        if plain:
            passages.append(Passage("".join(plain)))
        return passages

    def flush(self) -> list[Passage]:
        """Return what is held, as it leaves when nothing follows."""
        passages = self._as_written(self._sentences.flush())
        if self._escape:
            passages.append(Passage(self._escape))
            self._escape = ""
        return passages

    def cut(self) -> list[Passage]:
        """Return nothing: the strings of a call are waited for, whatever time it is."""
        return []

    def _as_written(self, passages: list[Passage]) -> list[Passage]:
        written = self._written
        return [
            each._replace(written=tuple([written.popleft() for _ in each.text]))
            for each in passages
            if each.text
        ]


def _meaning(escape: str) -> str:
    """Return the one character that *escape* stands for. A half of a pair stands for itself."""
    if escape[1] != "u":
        return _ESCAPED.get(escape[1], escape[1])
    try:
        return chr(int(escape[2:], 16))
    except ValueError:
        return "\ufffd"
