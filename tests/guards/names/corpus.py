"""The marked sentences: see the head of ``corpus.txt``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["Line", "read_corpus"]

_FILE: Final = Path(__file__).with_name("corpus.txt")
_HARDER: Final = "# Only measured:\n"
_MARK: Final = re.compile(r"\{(name|address):([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Line:
    """What an agent says, and what there is to be found."""

    text: str
    marks: tuple[tuple[str, int, int], ...]
    part: Literal["looked at", "measured", "harder"]
    """Looked at: the rules were written with it in view."""


def read_corpus() -> Iterator[Line]:
    """Yield the lines of the corpus, in three parts."""
    easier, _, harder = _FILE.read_text("utf-8").partition(_HARDER)
    for number, line in enumerate(_lines(easier)):
        yield _read(line, "measured" if number % 2 else "looked at")
    for line in _lines(harder):
        yield _read(line, "harder")


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("# ")]


def _read(line: str, part: Literal["looked at", "measured", "harder"]) -> Line:
    text, marks, position = "", list[tuple[str, int, int]](), 0
    for found in _MARK.finditer(line):
        text += line[position : found.start()]
        marks.append((found[1], len(text), len(text) + len(found[2])))
        text += found[2]
        position = found.end()
    return Line(text + line[position:], tuple(marks), part)
