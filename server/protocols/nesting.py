"""How deeply JSON is nested, found before anything parses it: some parsers recurse, as what writes does."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

__all__ = ["MOST_LEVELS", "depth", "read_within", "too_deep"]

MOST_LEVELS: Final = 200
"""Of JSON that is within a text, and is read: orjson reads 1,024 levels, and writes 254 in all."""

# A string that never ends takes in the rest, and no step is taken back: it would cost a square.
_STRUCTURE: Final = re.compile(rb'"(?>(?:[^"\\]++|\\.)*)"?|[\[{]|[\]}]', re.DOTALL)


_MOST_BRACKETS: Final = 20_000
"""What has more counts as nested too deeply: nothing that means anything has."""


def depth(data: bytes, enough: int) -> int:
    """Return how deeply *data* is nested, strings aside; 0: not beyond *enough*, for sure."""
    brackets = data.count(b"[") + data.count(b"{")
    if brackets <= enough:
        return 0
    if brackets > _MOST_BRACKETS:  # to look at each would take a second of a megabyte
        return brackets
    level = deepest = 0
    for token in _STRUCTURE.findall(data):
        if token in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif token in b"]}":
            level -= 1
    return deepest


def too_deep(data: bytes, most: int, what: str) -> str | None:
    """Return why *data*, which is called *what*, isn't to be parsed; None: it may be, *most* levels deep."""
    found = depth(data, most)
    if found <= most:
        return None
    if found > _MOST_BRACKETS:  # so many that nobody looked how deep they are
        return f"{what} has more than {_MOST_BRACKETS} brackets."
    return f"{what} is nested more than {most} levels deep."


def read_within(text: str) -> Any:
    """Return what *text* holds as JSON, which can be written again as a part of something else.

    Raises:
        ValueError: It isn't JSON, or is nested more than :data:`MOST_LEVELS` deep.

    """
    data = text.encode("utf-8", "surrogatepass")
    if depth(data, MOST_LEVELS) > MOST_LEVELS:
        message = f"nested more than {MOST_LEVELS} levels deep"
        raise ValueError(message)
    return orjson.loads(data)
