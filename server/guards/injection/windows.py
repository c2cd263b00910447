"""The parts of a text that a model reads: sentences, put together up to a length.

A text may have a megabyte, and a model reads a few hundred characters at a time.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

__all__ = ["PART", "SHARED", "WINDOW", "parts", "runs", "windows"]

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


def runs(text: str) -> list[tuple[int, int]]:
    """Return where sentences of *text* begin and end, and two and three that follow each other.

    What is said in one of them looks in a window as harmless as what stands around it. Of a sentence
    that is long, or has no end, pieces are taken as well. None of them is all of the text.
    """
    ends = [match.end() for match in _END.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    starts = [0, *ends[:-1]]
    found = [
        (start, end)
        for count in range(1, _MOST_TOGETHER + 1)
        for start, end in zip(starts, ends[count - 1 :], strict=False)
        if _SHORTEST <= end - start <= WINDOW and end - start < len(text)
    ]
    for start, end in zip(starts, ends, strict=True):
        if end - start > _LONG:
            found += _cuts(text, start, end)
    return found


def _cuts(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield pieces of a sentence that overlap by half, between words where there are any."""
    while end - start > _CUT:
        last = text.rfind(" ", start + _CUT // 2, start + _CUT) + 1 or start + _CUT
        yield start, last
        middle = start + (last - start) // 2
        start = text.find(" ", middle, last) + 1 or middle
    yield start, end


_MOST_TOGETHER: Final = 3
"""Sentences that are read together."""

_SHORTEST: Final = 12
"""Characters of a run: fewer say nothing by themselves."""

_LONG: Final = 144
_CUT: Final = 96
"""Characters of a sentence from which on pieces of it are read, and of a piece."""


def parts(text: str) -> Iterator[str]:
    """Cut a long text, so that nothing holds the interpreter for longer than some milliseconds."""
    start = 0
    while True:
        yield text[start : start + PART]
        if start + PART >= len(text):
            return
        start += PART - SHARED
