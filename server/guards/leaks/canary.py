"""Words that stand in the instructions to be noticed where they turn up elsewhere. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Final

from unbroken.server.guards.leaks.entities import Match
from unbroken.server.leak_settings import LEAST_CANARY

__all__ = ["Canaries", "SpelledOut"]

_ALNUM: Final = re.compile(r"[A-Za-z0-9]")
_DIGIT: Final = re.compile(r"[0-9]").search

_REMEMBERED: Final = 512
"""Characters over which a canary may be spread."""


def _squashed(text: str) -> str:
    """Return the letters and digits of *text*, in lower case."""
    return "".join(_ALNUM.findall(text)).lower()


class Canaries:
    """Finds canaries within a word: in either case, with anything between, in hexadecimal, in base64."""

    def __init__(self, canaries: Iterable[str]) -> None:
        self._plain: set[str] = set()
        self._encoded: set[str] = set()
        for canary in canaries:
            plain = _squashed(canary)
            if len(plain) < LEAST_CANARY or plain.isalpha():  # words without a digit aren't looked at
                raise ValueError(f"a canary has at least {LEAST_CANARY} letters and digits, and a digit")
            self._plain |= {plain, plain[::-1], canary.encode().hex()}
            self._encoded |= set(_base64_of(canary.encode()))

    def __bool__(self) -> bool:
        return bool(self._plain)

    def find(self, text: str, start: int) -> Iterator[Match]:
        """Find canaries that begin at *start* or later. One that is written around covers all it takes."""
        part = text[start:]
        bare = _squashed(part)
        for canary in self._plain:
            at = bare.find(canary)
            if at >= 0:
                places = [place for place, char in enumerate(part) if _ALNUM.match(char)]
                yield Match(start + places[at], start + places[at + len(canary) - 1] + 1, "canary")
        for canary in self._encoded:
            at = text.find(canary, start)
            if at >= 0:
                yield Match(at, at + len(canary), "canary")


def _base64_of(data: bytes) -> Iterator[str]:
    """Yield what *data* is in base64 wherever it stands: the part that its neighbours don't change."""
    for before in range(3):
        text = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        first = (0, 2, 3)[before]
        last = len(text) - ((before + len(data)) % 3 != 0)
        yield text[first:last]


class SpelledOut:
    """Notices a canary whose characters come in several words, once it is whole.

    Its beginning has left by then, which says nothing: it is the word as a whole that is to be noticed.
    A canary has a digit, so that ordinary text is only remembered, and not looked at.
    """

    def __init__(self, canaries: Iterable[str]) -> None:
        self._canaries = [_squashed(canary) for canary in canaries]
        self._longest = max(map(len, self._canaries), default=0)
        self._due = 0  # letters after a digit that may still belong to a canary
        self._tail = ""

    def end_of(self, text: str) -> int | None:
        """Take in *text*, and return where in it a canary is whole; None: there is none."""
        tail = self._tail
        self._tail = (tail + text)[-_REMEMBERED:]
        if _DIGIT(text) is not None:
            self._due = self._longest
        elif self._due <= 0:
            return None
        places = [found.start() for found in _ALNUM.finditer(text)]
        self._due -= len(places)
        before = _squashed(tail)
        bare = before + "".join(text[place] for place in places).lower()
        ends = [at + len(canary) for canary in self._canaries if (at := bare.find(canary)) >= 0]
        if not ends:
            return None
        needed = min(ends) - len(before)
        return places[needed - 1] + 1 if needed > 0 else 0
