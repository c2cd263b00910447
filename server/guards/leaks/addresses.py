"""Finds postal addresses in a sentence: a house number and a street, and what follows of town and code. Pure.

A town, a country or a landmark by itself is no address: "the capital of France is Paris" stays as it is.
What the model took for a place is used only to say how far an address goes, and for streets that have no
usual name. Patterns are bounded, so that the time it takes grows with the text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

__all__ = ["Label", "addresses"]


class Label(NamedTuple):
    """What a model took characters *start* to *end* of a text for."""

    start: int
    end: int
    kind: str
    """In OntoNotes' words: PERSON, GPE, LOC, FAC, ORG..."""


_NUMBER: Final = r"\d{1,5}[A-Za-z]?(?:[-/]\d{1,4}[A-Za-z]?)?"
_STREET_WORD: Final = r"(?:[A-Z][\w'\u2019.-]{0,24}|\d{1,3}(?:st|nd|rd|th))"
_SUFFIX: Final = (
    r"(?:Street|St|Str|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place|Pl|Square|Sq|Terrace|Ter|"
    r"Way|Close|Crescent|Cres|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Row|Alley|Mews|Gardens|Grove|Hill|Walk|Quay|"
    r"Embankment|Turnpike|Trail|Loop)\b\.?"
)
_UNIT: Final = r"(?:Apartment|Apt|Suite|Ste|Unit|Flat|Room|Floor|Fl)\b\.?\s?#?\w{1,6}\b|#\s?\w{1,6}\b"

_STREET: Final = re.compile(
    rf"(?<![\w.,/-])(?:(?:{_UNIT}),?\s)?(?P<number>{_NUMBER}),?\s(?:{_STREET_WORD}\s){{1,4}}?{_SUFFIX}"
    r"(?:\s(?:North|South|East|West|N|S|E|W|NE|NW|SE|SW)\b\.?)?"
)
_BOX: Final = re.compile(r"\bP\.?\s?O\.?\s?Box\s\d{1,7}\b", re.IGNORECASE)
_NUMBER_BEFORE: Final = re.compile(rf"(?<![\w.,/-])(?P<number>{_NUMBER}),?\s(?:[Tt]he\s)?\Z")

_NO_HOUSE: Final = re.compile(
    r"\b(?:in|since|until|till|by|from|during|before|after|of|for|the)\s\Z", re.IGNORECASE
)
_YEAR: Final = re.compile(r"(?:1[5-9]|20)\d\d")

_CODE: Final = (
    r"(?:\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}|[A-Z]\d[A-Z]\s?\d[A-Z]\d|[A-Z]{1,2}\d[A-Z\d]?)"
    r"(?!\w)"
)
"""Of the United States, the United Kingdom and Canada."""
_STATE: Final = (
    r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|"
    r"W[AIVY]|AB|BC|MB|NB|NL|NS|ON|PE|QC|SK)(?!\w)"
)
_TOWN: Final = r"[A-Z][\w'\u2019.-]{1,24}(?:[ -][A-Z][\w'\u2019.-]{1,24}){0,2}"
_COUNTRY: Final = (
    r"(?:USA|U\.S\.A\.|U\.S\.|UK|U\.K\.|United States|United Kingdom|England|Scotland|Wales|Ireland|Canada)"
    r"(?!\w)"
)
_PART: Final = re.compile(
    rf"\.?,?\s(?:{_UNIT}|{_STATE}(?:,?\s{_CODE})?|{_CODE}|{_COUNTRY}|(?P<town>{_TOWN}?)"
    rf"(?P<rest>,?\s(?:{_STATE}(?:,?\s{_CODE})?|{_CODE}))?(?!\w))"
)
_MOST_PARTS: Final = 5
_LONGEST_PART: Final = 120


def addresses(text: str, labels: Sequence[Label]) -> list[tuple[int, int]]:
    """Return where the addresses in *text* are, in order. *labels* is what a model made of it."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(_streets(text, labels)):
        if not found or start >= found[-1][1]:
            found.append((start, _widened(text, end, labels)))
    return found


def _streets(text: str, labels: Sequence[Label]) -> Iterator[tuple[int, int]]:
    for match in _STREET.finditer(text):
        if not _is_year(text, match.start("number"), match["number"]):
            yield match.start(), _without_stop(text, match.end())
    for match in _BOX.finditer(text):
        yield match.span()
    for label in labels:
        if label.kind in ("FAC", "LOC"):
            before = _NUMBER_BEFORE.search(text, max(label.start - 24, 0), label.start)
            if before is not None and not _is_year(text, before.start(), before["number"]):
                yield before.start(), label.end


def _is_year(text: str, start: int, number: str) -> bool:
    """Whether it is a year, or counts something, rather than houses."""
    before = _NO_HOUSE.search(text, max(start - 8, 0), start)
    return before is not None and (_YEAR.fullmatch(number) is not None or before[0].lower().strip() == "the")


def _without_stop(text: str, end: int) -> int:
    """Leave the full stop that ends the sentence."""
    return end - 1 if end == len(text) and text.endswith(".") else end


def _widened(text: str, end: int, labels: Sequence[Label]) -> int:
    for _ in range(_MOST_PARTS):
        part = _PART.match(text, end, min(end + _LONGEST_PART, len(text)))
        if part is None:
            break
        if part["town"] and not part["rest"]:
            place = part.start("town")
            goes_on = next(
                (
                    label.end
                    for label in labels
                    if label.kind in ("GPE", "LOC") and label.start <= place < label.end
                ),
                None,
            )
            if goes_on is None or "," not in text[end:place]:
                break
            end = goes_on
        else:
            end = part.end()
    return _without_stop(text, end)
