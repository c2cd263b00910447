"""The parts of a text that a model reads: sentences, put together up to a length.

A text may have a megabyte, and a model reads a few hundred characters at a time. So it is shown the
beginning, and what has most of the words that attacks are made of. What is left out, only rules see.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

__all__ = ["WINDOW", "choose", "ranked", "windows"]

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


def choose(text: str, places: Sequence[int], most: int) -> list[str]:
    """Return *most* windows of *text* at most: the first, and those with most of *places*.

    *places* are in ascending order.
    """
    return [window for _, window in sorted(ranked(text, places), key=_by_rank)[:most]]


def ranked(text: str, places: Sequence[int]) -> list[tuple[int, str]]:
    """Return the windows of *text*, each with how much it is worth a look."""
    return [
        (_FIRST if start == 0 else bisect_left(places, end) - bisect_left(places, start), text[start:end])
        for start, end in windows(text)
    ]


def _by_rank(each: tuple[int, str]) -> int:
    return -each[0]


_FIRST: Final = WINDOW
"""What the first window counts for: more words it has not."""
