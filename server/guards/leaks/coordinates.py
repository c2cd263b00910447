"""Detector of places: a latitude and a longitude, in decimal degrees, or with minutes and seconds. Pure.

Flat text has a degree sign as it is, and marks of minutes and seconds as quotation marks, where places
are looked for: see :data:`SIGNS`. What a receiver or a map prints is told by its form. Two decimal
fractions beside each other are a place only if they may be one, and are no more than two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from unbroken.server.guards.leaks.entities import Match

__all__ = ["SIGNS", "coordinates", "ends_with_side", "goes_on"]

SIGNS: Final[Mapping[int, str]] = MappingProxyType(
    {0xB0: "\xb0", 0x2019: "'", 0x201D: '"', 0x2032: "'", 0x2033: '"'}
)
"""What stands in flat text for the signs of an angle."""

_NUMBER: Final = r"[+-]?\d{1,3}\.\d{3,15}+"
_END: Final = r"(?!\w|\.\d)"

_PAIR: Final = re.compile(
    rf"(?<![\w.])(?P<first>{_NUMBER})\s?\xb0?\s?[,;]\s?(?P<second>{_NUMBER}){_END}(?:\s?\xb0)?", re.ASCII
)
_BEFORE_PAIR: Final = re.compile(r"\d\.\d{1,15}\s?[,;]\s?\Z", re.ASCII)
_BEHIND_PAIR: Final = re.compile(r"\s?[,;]\s?[+-]?\d{1,3}\.\d{3}", re.ASCII)
_LONGEST_BEFORE: Final = 24
_NAMED: Final = re.compile(
    r"(?<![A-Za-z])(?:lat|lon|lng|gps|geo|[ck]oord[a-z]{0,10}|location|position|geojson)(?![A-Za-z])|"
    r"latitud|longitud",
    re.IGNORECASE | re.ASCII,
)

# Longitude first, with a blank between them.
_POINT: Final = re.compile(
    rf"\bPOINT ?Z? ?\( ?(?P<value>{_NUMBER} {_NUMBER}){_END}", re.IGNORECASE | re.ASCII
)

# One of them, behind its name.
_ASSIGNED: Final = re.compile(
    r"(?:(?<![A-Za-z])m?lat|latitud[a-z]{0,4}|longitud[a-z]{0,4}|"
    r"(?<![A-Za-z])(?:lng|m?lon|long)(?=\W{0,3}[=:]))"
    rf"(?![A-Za-z])\\?[\"'`*]{{0,3}}\s?[=:]?\\?[\"'`*]{{0,3}}\s{{0,2}}(?P<value>{_NUMBER}){_END}",
    re.IGNORECASE | re.ASCII,
)


def _angle(degrees: str) -> str:
    seconds = r"(?:\s?\d{1,2}(?:[.,]\d{1,4}+)?\s?(?:\\?\"|''))?"
    minutes = rf"\s?\xb0\s?\d{{1,2}}(?:[.,]\d{{1,6}}+\s?'|\s?'{seconds})"
    return rf"{degrees}(?:[.,]\d{{3,13}}+(?:\s?\xb0)?|{minutes})"


_LATITUDE: Final = _angle(r"(?:90|0?[0-8]?\d)")
_LONGITUDE: Final = _angle(r"(?:180|1[0-7]\d|0?\d?\d)")
_SIDES: Final = re.compile(
    rf"(?<![\w.])(?:{_LATITUDE}\s?[NS]\s?[,;/]?\s?{_LONGITUDE}\s?[EWO](?![A-Za-z0-9])|"
    rf"[NS]\s?{_LATITUDE}\s?[,;/]?\s?[EWO]\s?{_LONGITUDE}(?![A-Za-z0-9]|\.\d))",
    re.ASCII,
)

_SIDE: Final = re.compile(r"[^A-Za-z0-9]{0,3}[NSEWO][,;/]?", re.ASCII).fullmatch
_LAST_SIDE: Final = re.compile(r"(?<![A-Za-z0-9])[NSEWO][,;/]? \Z").search
_NEXT: Final = re.compile(r"-\d|[NSEWO](?![A-Za-z\ufffe])", re.ASCII).match
_HAS_DIGIT: Final = re.compile(r"[0-9]").search


def coordinates(text: str, start: int) -> Iterator[Match]:
    """Find places, with three decimals or minutes: both numbers as one, or each that has a name."""
    for found in _PAIR.finditer(text, start):
        if _is_place(text, found):
            yield Match(found.start(), found.end(), "coordinates")
    for found in _SIDES.finditer(text, start):
        yield Match(found.start(), found.end(), "coordinates")
    for pattern in (_POINT, _ASSIGNED):
        for found in pattern.finditer(text):
            begin, end = found.span("value")
            if begin >= start and all(abs(float(number)) <= 180 for number in found["value"].split()):
                yield Match(begin, end, "coordinates")


def _is_place(text: str, pair: re.Match[str]) -> bool:
    first, second = abs(float(pair["first"])), abs(float(pair["second"]))
    is_turned = first > 90
    if max(first, second) > 180 or min(first, second) > 90:
        return False
    if _NAMED.search(text, 0, pair.start()) is not None:
        return True
    # Between the first degrees of each is the sea off Africa: such are shares, scores and probabilities.
    if is_turned or max(first, second) < 1:
        return False
    before = _BEFORE_PAIR.search(text, max(pair.start() - _LONGEST_BEFORE, 0), pair.start())
    return before is None and _BEHIND_PAIR.match(text, pair.end()) is None


def ends_with_side(text: str) -> bool:
    """Whether ordinary words end with one side of the compass, and a blank: a number may follow."""
    return text[-1:] == " " and _LAST_SIDE(text, max(len(text) - 5, 0)) is not None


def goes_on(last: str, following: str) -> bool:
    """Whether a place may go on behind a blank. *last* is the word before it, *following* one sign or two."""
    if following[:1].isdecimal():
        return _HAS_DIGIT(last) is not None or _SIDE(last) is not None
    if _NEXT(following) is None:
        return False
    is_side = following[0] != "-"
    return _HAS_DIGIT(last) is not None or (not is_side and _SIDE(last) is not None)
