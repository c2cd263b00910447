"""The parts of a text that a model reads: sentences, put together up to a length.

A text may have a megabyte, and a model reads a few hundred characters at a time.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

__all__ = ["PART", "SHARED", "WINDOW", "parts", "windows"]

PART: Final = 16 * 1024
"""Characters of a long text that are looked at in one go."""

SHARED: Final = 1024
"""Characters that two parts of a long text share: no attack that rules know is longer."""

WINDOW: Final = 256
"""Characters of a window: some 60 tokens of English."""

_OVERLAP: Final = 64
"""Characters that two windows share at most: what stands across a border is read once at least."""

_END: Final = re.compile(r"[.!?;:][\s\"')\]]|[。！？；\n]")


def windows(text: str) -> list[tuple[int, int]]:
    """Return where the windows of *text* begin and end. Together they cover it."""
    if len(text) <= WINDOW:
        return [(0, len(text))] if text else []
    ends = [match.end() for match in _END.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    found: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        last = bisect_left(ends, start + WINDOW + 1) - 1
        # A sentence that is longer than a window is cut.
        end = ends[last] if last >= 0 and ends[last] > start else start + WINDOW
        end = min(end, len(text))
        found.append((start, end))
        if end == len(text):
            break
        before = ends[last - 1] if last > 0 else 0
        is_whole = last >= 0 and ends[last] == end
        shared = (
            before
            if is_whole and start < before and end - before <= _OVERLAP
            else end
            if is_whole
            else end - _OVERLAP
        )
        start = max(shared, start + 1)
    return found


def parts(text: str) -> Iterator[str]:
    """Cut a long text, so that nothing holds the interpreter for longer than some milliseconds."""
    start = 0
    while True:
        yield text[start : start + PART]
        if start + PART >= len(text):
            return
        start += PART - SHARED
