"""Reads JSON while it comes: what its strings say, and how each character of it is written. No I/O, no clock.

Arguments of calls should be JSON, and needn't be. From the first character on that can't be part of any,
they are *text*, in which escapes still mean what they would in a string: whoever repairs such arguments
reads them so. What is read depends on the text alone, never on the pieces it came in.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from unbroken.server.guards.leaks.json_grammar import JsonGrammar

__all__ = ["JsonPiece", "JsonText", "Written"]

_Kind: TypeAlias = Literal["string", "outside", "text"]

_PLAIN: Final[dict[_Kind, re.Pattern[str]]] = {
    "string": re.compile(r'[^"\\]++'),
    "text": re.compile(r"[^\\]++"),
}
_ESCAPE: Final = re.compile(
    r"\\(?:u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
    r'|u(?P<code>[0-9a-fA-F]{4})|(?P<sign>["\\/bfnrt]))'
)
_BEGUN: Final = re.compile(
    r"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}"
    r"(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?))?\Z"
)
"""An escape of which more may come, such as a half of a pair."""
_SIGNS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class JsonPiece(NamedTuple):
    """Characters that follow each other."""

    kind: _Kind
    meant: str
    written: Sequence[str]
    """How each of them is written."""


class Written:
    """How characters are written that somebody has taken in, until they are let go of."""

    def __init__(self) -> None:
        self._written: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._written)

    def put(self, written: Sequence[str]) -> None:
        """Put in more."""
        self._written.extend(written)

    def take(self, count: int) -> tuple[str, ...]:
        """Return how the first *count* are written, and forget them."""
        take = self._written.popleft
        return tuple([take() for _ in range(count)])


class JsonText:
    """Reads one text."""

    def __init__(self) -> None:
        self._kind: _Kind = "outside"
        self._grammar = JsonGrammar()
        self._begun = ""  # the beginning of an escape

    def feed(self, text: str) -> list[JsonPiece]:
        """Take in text, and return it, but for an escape that may go on."""
        if self._kind == "string" and not self._begun and '"' not in text and "\\" not in text:
            return [JsonPiece("string", text, text)]  # the usual case
        text, self._begun = self._begun + text, ""
        return self._read(text, is_last=False)

    def flush(self) -> list[JsonPiece]:
        """Return what is left at the end. The next text is another one."""
        pieces = self._read(self._begun, is_last=True)
        self._kind, self._grammar, self._begun = "outside", JsonGrammar(), ""
        return pieces

    def _read(self, text: str, *, is_last: bool) -> list[JsonPiece]:
        pieces: list[JsonPiece] = []
        position = 0
        while position < len(text):
            start, kind = position, self._kind
            meant: list[str] = []
            written: list[str] = []
            if kind == "outside":
                position = self._end_outside(text, start)
                if position > start:
                    part = text[start:position]
                    pieces.append(JsonPiece(kind, part, part))
                continue
            position = self._say(text, start, meant, written, is_last=is_last)
            if meant:
                pieces.append(JsonPiece(kind, "".join(meant), written))
            if position == start and self._kind == kind:
                self._begun = text[position:]
                break
        return pieces

    def _end_outside(self, text: str, start: int) -> int:
        """Return up to where *text* is outside of strings, and JSON."""
        grammar = self._grammar
        for position in range(start, len(text)):
            if not grammar.takes(text[position]):
                self._kind = "text"
                return position
            if grammar.is_in_string:
                self._kind = "string"
                return position + 1
        return len(text)

    def _say(self, text: str, position: int, meant: list[str], written: list[str], *, is_last: bool) -> int:
        """Put what *text* says from *position* on to *meant*, and how to *written*; return up to where."""
        kind = self._kind
        plain = _PLAIN[kind]
        while position < len(text):
            if (found := plain.match(text, position)) is not None:
                meant.append(found[0])
                written.extend(found[0])
                position = found.end()
            elif text[position] == '"' and kind == "string":
                self._kind = "outside"
                break
            elif not is_last and _BEGUN.match(text, position) is not None:
                break
            elif (escape := _ESCAPE.match(text, position)) is not None:
                meant.append(_meaning(escape))
                written.append(escape[0])
                position = escape.end()
            elif kind == "string":
                self._kind = "text"  # there is no such escape
                break
            else:
                meant.append("\\")
                written.append("\\")
                position += 1
        return position


def _meaning(escape: re.Match[str]) -> str:
    """Return the one character that *escape* stands for. A half of a pair stands for itself."""
    if (sign := escape["sign"]) is not None:
        return _SIGNS.get(sign, sign)
    if (code := escape["code"]) is not None:
        return chr(int(code, 16))
    high, low = int(escape["high"], 16), int(escape["low"], 16)
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
