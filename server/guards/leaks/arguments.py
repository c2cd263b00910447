"""Filters a call's arguments: what their strings say is looked at, and JSON stays JSON. No I/O, no clock.

Each string is a text of its own; what stands before it, its key at the least, is known there. Escapes are
what they stand for, and where one is part of what was found, all of it goes. What isn't JSON is text.
"""

from __future__ import annotations

import re
from typing import Final

from unbroken.server.guards.leaks.canary import SpelledOut
from unbroken.server.guards.leaks.entities import Action, Actions, Entity, Match
from unbroken.server.guards.leaks.json_text import JsonPiece, JsonText, Written
from unbroken.server.guards.leaks.scanner import Scanner
from unbroken.server.guards.leaks.stream import LeakFilter, Placeholder
from unbroken.server.guards.leaks.verbatim import Instructions, Verbatim

__all__ = ["ArgumentsFilter", "VerbatimInArguments"]

_NUMERIC: Final = "+-.0123456789eE"
_NUMBER: Final = re.compile(rf"(?<![a-z])[{re.escape(_NUMERIC)}]++")
_WHOLE: Final[frozenset[Entity]] = frozenset({"canary", "secret"})
"""What is no number by itself: where it is found in one, all of that goes."""


class ArgumentsFilter(LeakFilter):
    """Filters the arguments of one call. What it is made of, and returns, is as for a text.

    What is replaced outside of a string becomes one.
    """

    def __init__(
        self,
        scanner: Scanner,
        actions: Actions,
        placeholder: Placeholder,
        *,
        spelled: SpelledOut | None = None,
    ) -> None:
        super().__init__(scanner, actions, placeholder, spelled=spelled)
        self._is_watched = True
        self._json = JsonText()
        self._written = Written()
        self._gone = 0  # characters that have left, or were dropped
        self._text_from: int | None = None  # which one the first is that can't be JSON
        self._is_inside = False  # a string
        self._quotes = False  # what is replaced is outside of one, and may be JSON

    def feed(self, piece: str) -> str:
        """See :meth:`LeakFilter.feed`."""
        return "".join(map(self._take, self._json.feed(piece)))

    def flush(self) -> str:
        """See :meth:`LeakFilter.flush`."""
        released = "".join(map(self._take, self._json.flush())) + super().flush()
        self._text_from, self._is_inside = None, False
        return released

    def show(self) -> str:
        """Return nothing: arguments are of use only as a whole."""
        return ""

    def _take(self, piece: JsonPiece) -> str:
        ended = ""
        if piece.kind == "text":
            if self._text_from is None:
                self._text_from = self._gone + self.held
        elif (piece.kind == "string") != self._is_inside:
            ended = self._end_segment()
            self._is_inside = not self._is_inside
        if self.is_blocked:
            return ended
        self._written.put(piece.written)
        return ended + super().feed(piece.meant)

    def _fitted(self, matches: list[Match], text: str, following: str) -> list[Match]:
        """Of a number that JSON has outside of its strings, all is replaced or nothing."""
        is_text = self._text_from is not None and self._text_from < self._gone + len(text)
        self._quotes = not (self._is_inside or is_text)
        if not matches or not self._quotes:
            return matches
        before = self._context()[-1:]
        numbers = [found.span() for found in _NUMBER.finditer(text)]
        fitted: list[Match] = []
        for match in matches:
            begun = fitted[-1].end if fitted else 0
            spans = [each for each in numbers if max(match.start, begun) < each[1] and each[0] < match.end]
            if not spans:
                continue
            first, last = spans[0][0], spans[-1][1]
            is_part = first < match.start or match.end < last
            is_part |= first == 0 and before != "" and before in _NUMERIC
            is_part |= last == len(text) and following != "" and following in _NUMERIC
            if not is_part or match.entity in _WHOLE:
                fitted += [Match(start, end, match.entity) for start, end in spans]
        return fitted

    def _released(self, text: str) -> str:
        left = super()._released(text)
        self._gone += len(left)
        return "".join(self._written.take(len(left)))

    def _replaced(self, match: Match, flat: str) -> str:
        text = super()._replaced(match, flat)
        if self._quotes:
            text = f'"{text}"'
        self._dropped(len(flat))
        return text

    def _dropped(self, count: int) -> None:
        self._gone += count
        self._written.take(count)


class VerbatimInArguments(Verbatim):
    """Watches the arguments of one call: each string by itself."""

    def __init__(self, instructions: Instructions, action: Action, placeholder: str) -> None:
        super().__init__(instructions, action, placeholder)
        self._json = JsonText()
        self._written = Written()

    def feed(self, text: str) -> str:
        """See :meth:`Verbatim.feed`."""
        return "".join(map(self._take, self._json.feed(text)))

    def flush(self) -> str:
        """See :meth:`Verbatim.flush`."""
        return "".join(map(self._take, self._json.flush())) + super().flush()

    def _take(self, piece: JsonPiece) -> str:
        if self.is_blocked:
            return ""
        if piece.kind == "outside":
            return super().flush() + piece.meant
        self._written.put(piece.written)
        return super().feed(piece.meant)

    def _left(self, text: str) -> str:
        return "".join(self._written.take(len(text)))

    def _dropped(self, count: int) -> None:
        self._written.take(count)
