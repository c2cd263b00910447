"""Detectors of secrets: providers' formats, private keys, and what is assigned to a telling name. Pure.

Each is given a text, of which it may read all, and where to begin, as in
:mod:`~unbroken.server.guards.leaks.structured`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from unbroken.server.guards.leaks.entities import Match
from unbroken.server.guards.leaks.secret_rules import SECRET_RULES, SecretRule

__all__ = ["PRIVATE_KEY", "Tokens", "assignments", "private_keys"]

_KEYED: Final = 3
"""Characters of a head that rules are found by."""

_BEGINNING: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]", re.ASCII)

PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}?PRIVATE KEY(?: BLOCK)?-----")

_ASSIGNED: Final = re.compile(
    r"(?:api[_. -]?key|access[_. -]?key|secret|private[_. -]?key|token|passw(?:or)?d|passwd|pwd|passphrase|"
    r"credentials?|client[_. -]?id|auth[_. -]?key)"
    r"[\w.-]{0,24}+\\?[\"'`]?\s{0,2}(?:=>|:=|==?|:|\bis\b)\s{0,2}\\?[\"'`]?"
    r"(?P<value>[^\s\"'`,;<>(){}\[\]\\]{8,}+)",
    re.IGNORECASE | re.ASCII,
)
_PRESENTED: Final = re.compile(
    r"\b(?:bearer|basic)\s(?P<value>[A-Za-z0-9._~+/-]{16,}+={0,2}+)", re.IGNORECASE | re.ASCII
)
# What ends a string, or brackets around an address, ends the address.
_IN_ADDRESS: Final = re.compile(r"://[^\s/@:\"<>`]{0,64}+:(?P<value>[^\s/@\"<>`]{3,256}+)@", re.ASCII)

_PLACEHOLDER: Final = re.compile(
    r"[$%{<*]|(?:your|my|the|an?|some|insert|replace|enter|example|sample|dummy|fake|test|change|placeholder)"
    r"(?![a-z0-9])|x{3}|\.{3}|0{8}|1234567|os\.|process\.|env\.|https?:|none$|null$|true$|false$|undefined$",
    re.IGNORECASE,
)

_LEAST_ENTROPY: Final = 3.0
"""Bits a character, of what is assigned to a telling name: words have less, random strings more."""

_LONG: Final = 20
"""Characters from which a value needs no digit to be taken for random, if upper and lower case are mixed."""


class Tokens:
    """Finds what has a provider's format. A rule is tried only where a word begins as it does."""

    def __init__(self, rules: Sequence[SecretRule] = SECRET_RULES) -> None:
        self._rules: dict[str, list[SecretRule]] = {}
        for rule in rules:
            for key in {head[:_KEYED] for head in rule.heads}:
                self._rules.setdefault(key, []).append(rule)

    def find(self, text: str, start: int) -> Iterator[Match]:
        """Find tokens that begin at *start* or later. Of those that begin together, the longest."""
        position = start
        while (found := _BEGINNING.search(text, position)) is not None:
            begin = found.start()
            position = begin + 1
            longest: Match | None = None
            for rule in self._rules.get(text[begin : begin + _KEYED], ()):
                token = rule.pattern.match(text, begin)
                if token is not None and (longest is None or token.end() > longest.end):
                    longest = Match(begin, token.end(), "secret", "word" if rule.goes_on else "")
            if longest is not None:
                yield longest
                position = longest.end


def private_keys(text: str, start: int) -> Iterator[Match]:
    """Find where private keys begin. What follows belongs to them: see the filter."""
    for found in PRIVATE_KEY.finditer(text, start):
        yield Match(found.start(), found.end(), "secret", "key")


def assignments(text: str, start: int) -> Iterator[Match]:
    """Find what is assigned to names such as ``api_key``, presented as a bearer token, or part of an address.

    The name may have left already, before *start*; the value hasn't.
    """
    for found in _ASSIGNED.finditer(text):
        begin, end = found.span("value")
        if end > start and _is_random(found["value"].rstrip(".!?:")):
            yield Match(max(begin, start), end, "secret", "word")
    for found in _PRESENTED.finditer(text):
        begin, end = found.span("value")
        if end > start and any(map(str.isdigit, found["value"])):
            yield Match(max(begin, start), end, "secret", "word")
    if text.find("://") >= 0:
        for found in _IN_ADDRESS.finditer(text):
            begin, end = found.span("value")
            if end > start and _PLACEHOLDER.match(found["value"]) is None:
                yield Match(max(begin, start), end, "secret")


def _is_random(value: str) -> bool:
    if len(value) < 8 or _PLACEHOLDER.match(value) is not None:
        return False
    has_digit = any(map(str.isdigit, value))
    has_letter = any(map(str.isalpha, value))
    is_mixed = value != value.lower() and value != value.upper()
    if not (has_digit and has_letter) and not (len(value) >= _LONG and is_mixed):
        return False
    return _entropy(value) >= (_LEAST_ENTROPY if len(value) >= _LONG else 2.5)


def _entropy(text: str) -> float:
    """Return bits a character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())
