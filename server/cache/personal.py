"""What is nothing for a cache, seen from the words: somebody's data, and what is true only for a while.

Coarse on purpose: a question that is asked again for nothing costs little. It
is no filter: what may leave the server at all is decided elsewhere.

Long texts are looked at in parts, so that others have their turn in between; what is found is that of
the whole. Each pattern begins with one character that few others are, and is bounded in length, and
phrases are looked for as they stand: the time it takes grows with the text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["AT_ONCE", "LONGEST", "PATTERNS", "Part", "is_passing", "is_personal", "parts_of"]

AT_ONCE: Final = 4096
"""Characters of a part, without what only says how it goes on."""

LONGEST: Final = 128
"""Characters of what is found, at most."""

PATTERNS: Final = (
    # An e-mail address.
    re.compile(r"@(?<=[^\s@]@)[^\s@.]{1,64}+\.[^\s@]{2}"),
    # A phone's, card's or account's number; an IP address; a date of birth, or another.
    re.compile(
        r"""\d(?: [ \-./()]{0,2}+ (?:\d[ \-./()]{0,2}+){6}
              | (?<!\w\d) \d{0,2} (?:\.\d{1,3}){3}\b
              | (?<!\w\d) \d?[./-]\d{1,2}[./-](?:\d{4}|\d{2})\b )""",
        re.VERBOSE,
    ),
    # An IBAN.
    re.compile(r"[A-Z](?<!\w[A-Z])[A-Z]\d{2} ?(?:[A-Z0-9]{4} ?){3}"),
    # A key.
    re.compile(
        r"(?:sk(?<!\wsk)|pk(?<!\wpk)|ghp(?<!\wghp)|xox[abp](?<!\wxox.)|eyJ(?<!\weyJ)|AKIA(?<!\wAKIA))"
        r"[-_]?[A-Za-z0-9]{12}"
    ),
)

_MINE: Final = (
    *(f"my {each}name" for each in ("", "full ", "first ", "last ")),
    *(f"my {each}" for each in ("date of birth", "birthday", "password", "pin", "ssn", "passport number")),
    *("my address", "call me", "i was born", "who am i", "about me"),
    *(f"i live {each}" for each in ("in", "at", "on")),
    *(f"remember {each}" for each in ("that", "me", "my")),
)

_PASSING: Final = (
    *("today", "tonight", "tomorrow", "yesterday", "now", "nowadays", "currently", "current", "latest"),
    *("newest", "recent", "recently", "weather", "forecast", "news", "headlines", "stock price"),
    *("exchange rate", "at the moment", "so far", "still", "yet", "random", "again", "once more"),
    *(f"this {each}" for each in ("morning", "afternoon", "evening", "week", "weekend", "month", "year")),
    *("this minute", "what's the time", "what's the date"),
    *(f"{which} {each}" for which in ("last", "next") for each in ("week", "weekend", "month", "year")),
    *("last night", "next night"),
    *(f"what {each} is" for each in ("time", "day", "date", "year")),
)


class Part(NamedTuple):
    """A part of a text, with the character before it, and what may follow of what begins in it."""

    text: str
    start: int
    """Where the part begins in *text*."""
    stop: int
    """Where the next part begins."""


def parts_of(text: str) -> Iterator[Part]:
    """Yield *text* in parts of :data:`AT_ONCE` characters. An ordinary one is a part by itself."""
    for begin in range(0, len(text), AT_ONCE):
        first = max(begin - 1, 0)
        part = text[first : begin + AT_ONCE + LONGEST]
        yield Part(part, begin - first, begin - first + AT_ONCE)


def is_personal(part: Part) -> bool:
    """Whether in *part* something begins that looks like somebody's data, or speaks of who is speaking."""
    for pattern in PATTERNS:
        found = pattern.search(part.text, part.start)
        if found is not None and found.start() < part.stop:
            return True
    return _says(part, _MINE)


def is_passing(part: Part) -> bool:
    """Whether the answer depends on when it is asked, or isn't to be the same each time."""
    return _says(part, _PASSING)


def _says(part: Part, phrases: tuple[str, ...]) -> bool:
    """Return whether one of *phrases* begins in *part*, in either case, as words of their own."""
    text = part.text.lower()
    for phrase in phrases:
        at = text.find(phrase, part.start)
        while 0 <= at < part.stop:
            end = at + len(phrase)
            if not (_is_of_word(text[at - 1 : at]) or _is_of_word(text[end : end + 1])):
                return True
            at = text.find(phrase, at + 1)
    return False


def _is_of_word(char: str) -> bool:
    return char.isalnum() or char == "_"
