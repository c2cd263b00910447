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
    r"(?P<rest>[\w.-]{0,24}+)\\?[\"'`]?\s{0,2}(?:=>|:=|==?|:|\bis\b)\s{0,2}\\?[\"'`]?"
    r"(?P<value>[^\s\"'`,;<>(){}\[\]\\]{8,}+)",
    re.IGNORECASE | re.ASCII,
)
_PRESENTED: Final = re.compile(
    r"\b(?:bearer|basic)\s(?P<value>[A-Za-z0-9._~+/-]{16,}+={0,2}+)", re.IGNORECASE | re.ASCII
)
# What ends a string, or brackets around an address, ends the address.
_IN_ADDRESS: Final = re.compile(r"://[^\s/@:\"<>`]{0,64}+:(?P<value>[^\s/@\"<>`]{3,256}+)@", re.ASCII)

_PLACEHOLDER: Final = re.compile(
    r"[$%{<*[]|(?:your|my|the|an?|some|insert|replace|enter|example|sample|dummy|fake|test|change|placeholder)"
    r"(?![a-z0-9])|x{3}|\.{3}|0{8}|1234567|os\.|process\.|env\.|https?:|none$|null$|true$|false$|undefined$|"
    r"(?:pass(?:wd|word)?|pwd|secret|token|guest)$|\d{4}-\d\d-\d\d|\#[0-9a-f]{3,8}$|"
    # Encodings and methods: what is "base64-encoded" is described, not said.
    r"(?:base(?:32|58|62|64)|sha-?\d{1,3}|md5|aes-?\d{3}|[hre]s\d{3}|oauth-?2?|utf-?8|pbkdf2|argon2i?d?|x\.?509|2fa)"
    r"(?:[-_. ]|$)",
    re.IGNORECASE,
)
_DESCRIBING: Final = re.compile(
    r"i[sz]e\w{0,24}$|(?:ur[il]|path|file|dir|type|kind|name|field|header|label|endpoint|algo?|algorithm|format|"
    r"version|expiry|expiration|expires?(?:[_.-]?(?:at|in))?|ttl|lifetime|length|size|count|limit|regex|pattern|"
    r"error|message|policy|class|address|column)s?$",
    re.IGNORECASE | re.ASCII,
)
"""How names go on of what says something of a secret: its file, type or length. Or those of tokenizers."""

_JOINED: Final = re.compile(
    r"(?:::?|[&*])?[A-Za-z_$][\w$]*+(?>(?:(?:\??\.|->|::)[A-Za-z_$][\w$]*+)*)", re.ASCII
)
"""Names as programs have them, by themselves or joined: ``this._options.apiKey``, ``oauth2::Token``."""
_JOINT: Final = re.compile(r"[._]|->|::?")
_OPENING: Final = ("(", "[", "{")
_PATH: Final = re.compile(r"(?:~|\.{1,2})?(?>(?:/[\w.@:-]{0,32}+){2,})", re.ASCII)
_RUN: Final = re.compile(r"[A-Z]{1,64}(?![a-z])|[A-Z]?[a-z]++", re.ASCII)
"""Letters that are a word where there are any: of one case, but for the first."""

_WORDED: Final = 3.0
"""Letters that words have at least, on the average. Random ones in both cases have 2.7, with digits 2.2."""
_CALLED: Final = 2.0
"""The same, of what is called or indexed, where a password is followed by a bracket only by chance."""
_FEW_DIGITS: Final = 0.25
"""How much of names that are joined may be digits."""

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
    for found in _assigned(text):
        begin, end = found.span("value")
        if end > start and _is_random(found["value"].rstrip(".!?:")) and not _is_code(found):
            yield Match(max(begin, start), end, "secret", "word")
    for found in _PRESENTED.finditer(text):
        begin, end = found.span("value")
        if end > start and any(map(str.isdigit, found["value"])) and not _is_named(found["value"]):
            yield Match(max(begin, start), end, "secret", "word")
    if text.find("://") >= 0:
        for found in _IN_ADDRESS.finditer(text):
            begin, end = found.span("value")
            if end > start and _PLACEHOLDER.match(found["value"]) is None:
                yield Match(max(begin, start), end, "secret")


def _assigned(text: str) -> Iterator[re.Match[str]]:
    position = 0
    while (found := _ASSIGNED.search(text, position)) is not None:
        if _DESCRIBING.search(found["rest"]) is None:
            yield found
            position = found.end()
        else:  # in what is none, another may be: token_type=bearer&access_token=..
            position = found.start("value")


def _is_random(value: str) -> bool:
    if len(value) < 8 or _PLACEHOLDER.match(value) is not None:
        return False
    has_digit = any(map(str.isdigit, value))
    has_letter = any(map(str.isalpha, value))
    is_mixed = value != value.lower() and value != value.upper()
    if not (has_digit and has_letter) and not (len(value) >= _LONG and is_mixed):
        return False
    return _entropy(value) >= (_LEAST_ENTROPY if len(value) >= _LONG else 2.5)


def _is_code(found: re.Match[str]) -> bool:
    """Return whether what is assigned, and looks random, is an expression, a path, or words.

    Of what stands behind the value one character is looked at. It belongs to the same word, and so to what
    is looked at together, however it comes; or there is none.
    """
    text, (begin, end) = found.string, found.span("value")
    value = found["value"].rstrip(".!?:")
    if not any(map(str.isdigit, value)):
        return _length_of_words(value) >= _WORDED
    if _PATH.fullmatch(value) is not None:
        return _length_of_words(value) >= _WORDED
    if text[begin - 1] in "\"'`" or _JOINED.fullmatch(value) is None:
        return False
    if text[end : end + 1] in _OPENING:
        return _length_of_words(value) >= _CALLED
    return _is_named(value)


def _is_named(value: str) -> bool:
    """Return whether it is names that are joined, of words."""
    if _JOINED.fullmatch(value) is None or _JOINT.search(value) is None:
        return False
    is_wordy = sum(map(str.isdigit, value)) <= _FEW_DIGITS * len(value)
    return is_wordy and _length_of_words(value) >= _WORDED


def _length_of_words(text: str) -> float:
    """Return how many letters its words have on the average."""
    runs = _RUN.findall(text)
    return sum(map(len, runs)) / max(len(runs), 1)


def _entropy(text: str) -> float:
    """Return bits a character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())
