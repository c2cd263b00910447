"""Finds what must not leave in a piece of text that is looked at as a whole. Pure.

It is given flat text: one character for each of the text's, in ASCII as far as that means the
same. Digits of other scripts and full-width letters are what they stand for, spaces are spaces
and dashes are hyphens; what nobody sees (zero-width characters, soft hyphens, tags) is
:data:`UNSEEN`, and doesn't interrupt anything; letters of scripts whose words stand apart, and their
accents, are :data:`LETTER`, and belong to a word; the rest is :data:`OTHER`, and interrupts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from typing import Final

from unbroken.server.guards.leaks.canary import Canaries
from unbroken.server.guards.leaks.coordinates import coordinates
from unbroken.server.guards.leaks.entities import Actions, Entity, Match, merged, severity
from unbroken.server.guards.leaks.national_ids import national_ids
from unbroken.server.guards.leaks.secrets import Tokens, assignments, private_keys
from unbroken.server.guards.leaks.structured import LETTER, cards, emails, ibans, ips, phones

__all__ = ["LETTER", "OTHER", "UNSEEN", "Flattening", "Scanner"]

UNSEEN: Final = "\0"
OTHER: Final = "\uffff"

_APART: Final = (range(0x80, 0x0E00), range(0x10A0, 0x1100), range(0x1E00, 0x2000))
"""Latin, Greek, Cyrillic, Armenian, Hebrew, Arabic, Indian and Georgian scripts. Where words follow each
other without a gap, as in Chinese or Thai, a word that waits for its end would be a sentence."""

_KNOWN: Final = 4096
"""Characters whose flat form is remembered."""

_DIGIT: Final = re.compile(r"\d", re.ASCII)
_FEWEST_DIGITS: Final = 6
"""Of a number that is looked for."""

_ADDRESS: Final = re.compile(r"\d\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:", re.ASCII)
_ASSIGNING: Final = re.compile(r"[=:]|\bis\b|\b(?:bearer|basic)\b", re.IGNORECASE)

_LOGIN: Final = re.compile(r"://[^\s/@:\"<>`]{0,64}+:", re.ASCII)
_LONGEST_LOGIN: Final = 68
"""Characters."""
_LISTING: Final = re.compile(r"[,;]")
"""Behind these another thing may begin, such as an address behind a host and a port."""

_Detector = Callable[[str, int], Iterator[Match]]


class Flattening(dict[int, str]):
    """A table for :meth:`str.translate` that makes text flat. *signs* says how, for exceptions."""

    def __init__(self, signs: Mapping[int, str] = {}) -> None:
        super().__init__(signs)
        self._signs = signs

    def __missing__(self, code: int) -> str:
        flat = chr(code) if 0 < code < 128 else _flat(chr(code))
        if len(self) >= _KNOWN:
            self.clear()
            self.update(self._signs)
        self[code] = flat
        return flat


def _flat(char: str) -> str:
    category = unicodedata.category(char)
    if char == "\0" or category == "Cf" or "\ufe00" <= char <= "\ufe0f" or char == "\u034f":
        return UNSEEN
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Pd" or char == "\u2212":
        return "-"
    if char.isspace():
        return " " if category == "Zs" else "\n"
    plain = unicodedata.normalize("NFKC", char)
    if len(plain) == 1 and plain.isascii():
        return plain
    is_letter = category[0] in "LM" and any(ord(char) in script for script in _APART)
    return LETTER if is_letter else OTHER


class Scanner:
    """Finds entities.

    Args:
        actions: What is done about each. What is ignored isn't looked for.
        canaries: Words that are looked for, however they are written.

    """

    def __init__(self, actions: Actions, canaries: Iterable[str] = ()) -> None:
        self._actions = actions
        wanted = {entity for entity, action in actions.items() if action != "ignore"}
        self._canaries = Canaries(canaries if "canary" in wanted else ())
        numbers: tuple[tuple[Entity, _Detector], ...] = (
            ("card", cards),
            ("national_id", national_ids),
            ("phone", phones),
            ("iban", ibans),
        )
        self._numbers = tuple(detector for entity, detector in numbers if entity in wanted)
        self.finds_coordinates = "coordinates" in wanted
        """Whether places are looked for. What may be part of one then belongs together."""
        self._finds_emails = "email" in wanted
        self._finds_ips = "ip" in wanted
        self._tokens = Tokens().find if "secret" in wanted else None

    def watching(self, canaries: Iterable[str]) -> Scanner:
        """Return a scanner that finds the same, and *canaries*."""
        scanner = copy(self)
        scanner._canaries = Canaries(canaries)
        return scanner

    def find(self, context: str, text: str) -> list[Match]:
        """Return what is in the flat *text*, in order. *context* is what came before: some, or nothing.

        Where two overlap, there is one that covers both: see :func:`merged`.
        """
        if UNSEEN in context:
            context = context.replace(UNSEEN, "")
        if UNSEEN not in text:
            return merged(self._find(context, text), self._actions)
        places = [place for place, char in enumerate(text) if char != UNSEEN]
        return [
            match._replace(start=places[match.start], end=places[match.end - 1] + 1)
            for match in merged(self._find(context, text.replace(UNSEEN, "")), self._actions)
        ]

    def _find(self, context: str, text: str) -> list[Match]:
        start, whole = len(context), context + text
        found: list[Match] = []
        if self._canaries:
            found += self._canaries.find(whole, start)
        if "@" in text and self._finds_emails:
            found += emails(whole, start)
        if self.finds_coordinates and _DIGIT.search(text) is not None:
            found += coordinates(whole, start)
        if len(text) >= _FEWEST_DIGITS and len(_DIGIT.findall(text)) >= _FEWEST_DIGITS:
            for detector in self._numbers:
                found += detector(whole, start)
        if self._finds_ips and _ADDRESS.search(text) is not None:
            found += ips(whole, start)
        if self._tokens is not None and len(text) >= 8:
            found += self._tokens(whole, start)
            if _ASSIGNING.search(whole) is not None:
                found += assignments(whole, start)
            if "-----BEGIN" in text:
                found += private_keys(whole, start)
        return [
            match._replace(start=max(match.start - start, 0), end=match.end - start)
            for match in self._but_logins(whole, found)
            if match.end > start
        ]

    def _but_logins(self, text: str, found: list[Match]) -> list[Match]:
        """Return *found* without what looks like an e-mail address and is a password and a host, as in
        ``https://user:password@host.tld``: where the password was found, and as much is done about it.
        """
        ends = {match.end for match in found if match.entity == "secret" and _is_password(text, match)}
        if not ends or severity("secret", self._actions) < severity("email", self._actions):
            return found
        return [
            match
            for match in found
            if match.entity != "email" or not any(match.start < end < match.end for end in ends)
        ]


def _is_password(text: str, match: Match) -> bool:
    """Return whether *match* stands where a password does in an address: behind a name, before an at sign."""
    if not text.startswith("@", match.end) or _LISTING.search(text, match.start, match.end) is not None:
        return False
    begin = text.rfind("://", max(match.start - _LONGEST_LOGIN, 0), match.start)
    return begin >= 0 and _LOGIN.fullmatch(text, begin, match.start) is not None
