"""How deeply JSON is nested, found before anything parses it: some parsers recurse."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["depth"]

# A string that never ends takes in the rest, and no step is taken back: it would cost a square.
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def depth(data: bytes, enough: int) -> int:
    """Return how deeply *data* is nested, strings aside; 0: not beyond *enough*, for sure."""
    if data.count(b"[") + data.count(b"{") <= enough:
        return 0
    level = deepest = 0
    for token in _STRUCTURE.findall(data):
        if token in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif token in b"]}":
            level -= 1
    return deepest
