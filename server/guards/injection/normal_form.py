"""One form for what looks alike: the alphabet that rules are written in.

Letters lose case, accents and width; what can't be seen is dropped; letters of other alphabets that
stand in for Latin ones inside a Latin word become what they look like. Every character by itself,
through a table: linear in any text (normal forms of whole strings are not: their marks are sorted).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["NormalForm"]

_MOST_CACHED: Final = 20_000
"""Characters whose form is kept: more than any text has that people read."""

_MOST_FORMED: Final = 4
"""Characters that one becomes. A few stand for whole phrases, and would make texts twenty times as long."""

_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800\u17b4\u17b5")
"""Blank letters."""

_ENCLOSED: Final = (0x1F150, 0x1F170)
"""Where white letters in black circles and squares begin: those that no normal form takes for letters."""

_ALPHABET: Final = 26

# Lookalikes of Latin letters, after case and accents are gone. Unicode technical report 39 has the idea.
_LOOKALIKES: Final = {
    "a": "аαɑᴀᎪ",
    "b": "вьʙβᏴ",
    "c": "сϲᴄᏟ",
    "d": "ԁɗᴅđᎠ",
    "e": "еεєᴇɛᎬ",
    "f": "ſғꜰ",
    "g": "ɡɢցǥᏀᏳ",
    "h": "һнհʜħᎻᏂ",
    "i": "іιıɪɩӏᎥ",
    "j": "јʝᴊᎫ",
    "k": "кκᴋᏦ",
    "l": "ⅼʟłɫᏞ",
    "m": "мᴍⅿᎷ",
    "n": "пոɴηŋ",
    "o": "оοօᴏøσөᎾ",
    "p": "рρᴘᏢ",
    "q": "ԛզ",
    "r": "гʀɼᎡᏒ",
    "s": "ѕꜱʂᏚ",
    "t": "тτᴛŧᎢ",
    "u": "υսᴜʋ",
    "v": "νѵᴠᏙ",
    "w": "ԝωᴡшᎳᏔ",
    "x": "хχ",
    "y": "уγʏүýᎩᎽ",
    "z": "ᴢʐƶᏃ",
}
_TO_LATIN: Final = {ord(odd): plain for plain, odds in _LOOKALIKES.items() for odd in odds}

_WORD: Final = re.compile(r"(?<![^\W\d_])[^\W\d_]*?[^\W\d_\x00-\x7f][^\W\d_]*")
"""A word that has more than plain letters. It begins where a word does: a long plain one is read once."""

_ODD: Final = re.compile(r"[^\W\d_\x00-\x7f]")
_LATIN: Final = re.compile("[a-z]")


class _Table(dict[int, str | None]):
    """Each character's form, looked up once. For :meth:`str.translate`."""

    def __missing__(self, code: int) -> str | None:
        form = _form_of(chr(code))
        if len(self) < _MOST_CACHED:
            self[code] = form
        return form


def _form_of(char: str) -> str | None:
    if char in "\n\r\u2028\u2029\u0085":
        return "\n"
    category = unicodedata.category(char)
    if category in ("Cf", "Cc", "Cs", "Co", "Cn") and char != "\t":
        return None
    if char in _FILLERS:
        return None
    for first in _ENCLOSED:
        if first <= ord(char) < first + _ALPHABET:
            return chr(ord("a") + ord(char) - first)
    if category == "Zs" or char == "\t":
        return " "
    parts = unicodedata.normalize("NFKD", char.casefold())
    kept = "".join(part for part in parts if unicodedata.category(part) not in ("Mn", "Me", "Mc"))
    return kept.casefold()[:_MOST_FORMED] or None


class NormalForm:
    """Brings texts into the form. One instance may serve several threads."""

    def __init__(self) -> None:
        self._table = _Table()

    def of(self, text: str) -> str:
        """Return the form of *text*."""
        formed = text.translate(self._table)
        return _WORD.sub(_latin_if_mixed, formed) if _has_odd(formed) else formed

    def lookalikes(self, formed: str) -> str:
        """Return *formed* with every lookalike as the Latin letter, where whole words are made of them."""
        return _WORD.sub(_latin_if_whole, formed) if _has_odd(formed) else formed


def _has_odd(formed: str) -> bool:
    """Return whether *formed* has a letter that isn't plain. Dashes and quotation marks are none."""
    return not formed.isascii() and _ODD.search(formed) is not None


def _latin_if_mixed(match: re.Match[str]) -> str:
    word = match[0]
    return word.translate(_TO_LATIN) if _LATIN.search(word) else word


def _latin_if_whole(match: re.Match[str]) -> str:
    word = match[0]
    latin = word.translate(_TO_LATIN)
    return latin if latin.isascii() else word
