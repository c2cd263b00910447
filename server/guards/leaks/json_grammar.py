"""Follows JSON's grammar, character by character, to where a text can't be JSON any more. Pure."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

__all__ = ["JsonGrammar"]

_DEEPEST: Final = 1000
"""Arrays and objects within each other: hardly any parser takes more."""

_GAPS: Final = " \t\n\r"
_LITERALS: Final = {"t": "rue", "f": "alse", "n": "ull"}

_Number: TypeAlias = Literal["", "-", "0", "whole", ".", "fraction", "e", "e-", "exponent"]
_Expected: TypeAlias = Literal["value", "item or end", "key", "key or end", "colon", "next"]

_COMPLETE: Final = ("0", "whole", "fraction", "exponent")


def _row(*, digit: _Number = "", point: bool = False, exponent: bool = False) -> dict[str, _Number]:
    row: dict[str, _Number] = {}
    if digit:
        row.update(dict.fromkeys("0123456789", digit))
    if point:
        row["."] = "."
    if exponent:
        row.update({"e": "e", "E": "e"})
    return row


_FIRST_DIGIT: Final[dict[str, _Number]] = {**_row(digit="whole"), "0": "0"}
_NUMBERS: Final[dict[_Number, dict[str, _Number]]] = {
    "": {**_FIRST_DIGIT, "-": "-"},
    "-": _FIRST_DIGIT,
    "0": _row(point=True, exponent=True),
    "whole": _row(digit="whole", point=True, exponent=True),
    ".": _row(digit="fraction"),
    "fraction": _row(digit="fraction", exponent=True),
    "e": {**_row(digit="exponent"), "+": "e-", "-": "e-"},
    "e-": _row(digit="exponent"),
    "exponent": _row(digit="exponent"),
}
"""Of a number that has come so far: what may come next, and how far it is then."""


class JsonGrammar:
    """Knows what may come next in one text. What strings hold isn't its business."""

    def __init__(self) -> None:
        self.is_in_string = False
        """Whether the next character that is told ends a string."""
        self._expected: _Expected = "value"
        self._within: list[str] = []  # what ends the arrays and objects that are open
        self._number: _Number = ""
        self._literal = ""  # what has yet to come of one

    def takes(self, char: str) -> bool:
        """Take in a character that isn't within a string; return whether it can be part of JSON here."""
        if self._literal:
            is_next = char == self._literal[0]
            self._literal = self._literal[1:]
            return is_next
        if self._number:
            after = _NUMBERS[self._number].get(char)
            if after is not None:
                self._number = after
                return True
            if self._number not in _COMPLETE:
                return False
            self._number = ""
        if char in _GAPS:
            return True
        if char == '"':
            return self._takes_quote()
        if self._expected in ("value", "item or end") and self._begins_value(char):
            return True
        return self._goes_on(char)

    def _takes_quote(self) -> bool:
        if self.is_in_string:
            self.is_in_string = False
            return True
        if self._expected in ("value", "item or end"):
            self._expected = "next"
        elif self._expected in ("key", "key or end"):
            self._expected = "colon"
        else:
            return False
        self.is_in_string = True
        return True

    def _begins_value(self, char: str) -> bool:
        if char in "[{":
            self._within.append("]" if char == "[" else "}")
            self._expected = "item or end" if char == "[" else "key or end"
            return len(self._within) <= _DEEPEST
        self._literal = _LITERALS.get(char, "")
        self._number = _NUMBERS[""].get(char, "")
        if not self._literal and not self._number:
            return False
        self._expected = "next"
        return True

    def _goes_on(self, char: str) -> bool:
        if char == ":" and self._expected == "colon":
            self._expected = "value"
        elif not self._within:
            return False
        elif char == "," and self._expected == "next":
            self._expected = "value" if self._within[-1] == "]" else "key"
        elif char == self._within[-1] and self._expected in ("next", "item or end", "key or end"):
            self._within.pop()
            self._expected = "next"
        else:
            return False
        return True
