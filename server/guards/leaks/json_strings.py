"""Cuts JSON, while it comes, into what may leave at once and sentences within its strings. No I/O, no clock.

A model reads what strings say, with escapes as what they stand for; what leaves is written as it came.
What isn't JSON is cut as text.
"""

from __future__ import annotations

from unbroken.server.guards.leaks.json_text import JsonPiece, JsonText, Written
from unbroken.server.guards.leaks.sentences import Passage, Sentences

__all__ = ["JsonStrings"]


class JsonStrings:
    """Cuts one JSON text; each of its strings as :class:`Sentences` does."""

    def __init__(self) -> None:
        self._json = JsonText()
        self._sentences = Sentences()
        self._written = Written()  # what the sentences hold

    @property
    def held(self) -> int:
        """How many characters of strings are held."""
        return len(self._written)

    def feed(self, text: str) -> list[Passage]:
        """Take in text, and return what may leave."""
        return self._cut(self._json.feed(text))

    def flush(self) -> list[Passage]:
        """Return what is held, as it leaves when nothing follows."""
        return self._cut(self._json.flush()) + self._as_written(self._sentences.flush())

    def cut(self) -> list[Passage]:
        """Return nothing: the strings of a call are waited for, whatever time it is."""
        return []

    def _cut(self, pieces: list[JsonPiece]) -> list[Passage]:
        passages: list[Passage] = []
        for piece in pieces:
            if piece.kind == "outside":
                passages += [*self._as_written(self._sentences.flush()), Passage(piece.meant)]
            else:
                self._written.put(piece.written)
                passages += self._as_written(self._sentences.feed(piece.meant))
        return passages

    def _as_written(self, passages: list[Passage]) -> list[Passage]:
        return [each._replace(written=self._written.take(len(each.text))) for each in passages if each.text]
