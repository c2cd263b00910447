"""How deeply JSON is nested, found before anything parses it: some parsers recurse."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["depth"]

# A string that never ends takes in the rest, and no step is taken back: it would cost a square.
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


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
