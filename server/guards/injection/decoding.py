"""What is encoded in a text, decoded: base64, hexadecimal, escapes, and characters that nobody sees.

Every pattern has bounded repetitions, or begins with what it repeats: linear in any text.
"""

from __future__ import annotations

import base64
import binascii
import html
import quopri
import re
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Final
from urllib.parse import unquote

__all__ = ["pieces", "unencoded"]

_MOST_PIECES: Final = 2048
"""Encoded pieces of one text that are decoded: more than there is room for in a part."""

_TAGS: Final = range(0xE0020, 0xE007F)
_FLAG: Final = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f")
"""An emoji of a region's flag: the one thing that tag characters are for."""

_HIDDEN: Final = re.compile("[\ufe00-\ufe0f\U000e0020-\U000e007e\U000e0100-\U000e01ef]")
# What each begins with stands in front of its repetitions: that is looked for much faster.
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
_WRAPPED: Final = re.compile(r"(?<=[A-Za-z0-9+/]{60})\r?\n(?=[A-Za-z0-9+/])")
_MIXED: Final = re.compile(r"[a-z][A-Z]|[A-Za-z][0-9]|[0-9][A-Za-z]")
"""What base64 has in most groups of four, and words hardly ever."""

_BASE32: Final = re.compile(r"[A-Z2-7]{24,}={0,6}")
_SMALL_BASE32: Final = re.compile(r"[a-z2-7]{24,}={0,2}")
"""What the pattern of base64 finds as well."""

_HEX: Final = re.compile(r"[0-9a-fA-F]{2}[ :,\n-]?(?:[0-9a-fA-F]{2}[ :,\n-]?){11,}")
_HEX_LIST: Final = re.compile(r"0[xX][0-9a-fA-F]{2}(?:[\s,;]{0,3}0[xX][0-9a-fA-F]{2}){11,}")
_DECIMALS: Final = re.compile(r"[0-9]{2,3}(?:[ ,;\n-]{1,2}[0-9]{2,3}){11,}")
_CODE_POINTS: Final = re.compile(r"U\+[0-9a-fA-F]{4,5}(?:[ ,;\n]{0,2}U\+[0-9a-fA-F]{4,5}){7,}")
_CSS: Final = re.compile(r"\\0{0,4}[2-7][0-9a-fA-F](?: ?\\0{0,4}[2-7][0-9a-fA-F]){7,}")
_ESCAPED: Final = re.compile(
    r"\\x([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\u\{([0-9a-fA-F]{1,5})\}|\\U0{3}([0-9a-fA-F]{5})"
    r"|\\0{2,4}([0-9a-fA-F]{2})(?![0-9a-fA-F])"
)
_OCTAL: Final = re.compile(r"\\(0[4-7][0-7]|1[0-7]{2})")
_OCTALS: Final = re.compile(r"(?:\\[01][0-7]{2}){3}")
_PERCENT: Final = re.compile(r"(?:%[0-9a-fA-F]{2}){3}|(?:%[0-9a-fA-F]{2}[A-Za-z0-9]{1,12}){3}")
_PRINTABLE: Final = re.compile(r"(?:=[0-9A-F]{2}){3}|(?:=[0-9A-F]{2}[A-Za-z]{1,12}){3}")
_ENTITY: Final = re.compile(r"&(?:#\d{2,7}|#x[0-9a-fA-F]{2,6});")
_BITS: Final = re.compile(r"[01]{8}[ ,;\n-]?(?:[01]{8}[ ,;\n-]?){7,}")


def pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield what is encoded in *text*, decoded, with how it was."""
    if not text.isascii() and _HIDDEN.search(text):
        yield from _hidden(text)
    count = 0
    joined = _WRAPPED.sub("", text) if "\n" in text else text
    for pattern, name, decode in (
        (_BASE64, "base64", _from_base64),
        (_BASE32, "base32", _from_base32),
        (_HEX, "hex", _from_hex),
        (_HEX_LIST, "hex", _from_hex),
        (_DECIMALS, "decimals", _from_decimals),
        (_CODE_POINTS, "escapes", _from_code_points),
        (_CSS, "escapes", _from_css),
        (_BITS, "binary", _from_bits),
    ):
        for match in pattern.finditer(joined):
            if (decoded := decode(match[0])) is not None:
                yield name, decoded
                count += 1
                if count >= _MOST_PIECES:
                    return
    for scattered in _scattered(text):
        if (decoded := _from_base64(scattered)) is not None:
            yield "base64", decoded
    if _ESCAPED.search(text):
        yield "escapes", _ESCAPED.sub(_unescaped, text)
    if "\\" in text and _OCTALS.search(text):
        yield "escapes", _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
    if "%" in text and _PERCENT.search(text):
        yield "percent", unquote(text, errors="replace")
    if "=" in text and _PRINTABLE.search(text):
        plain = quopri.decodestring(text.encode("utf-8", "replace")).decode(errors="replace")
        yield "printable", plain
    if _ENTITY.search(text):
        yield "entities", html.unescape(text)


def unencoded(text: str) -> str:
    """Return *text* without what :func:`pieces` may make something of, and people can't read."""
    for pattern in (_BITS, _HEX, _BASE64):
        text = pattern.sub(" ", text)
    return text


def _unescaped(match: re.Match[str]) -> str:
    code = int(next(filter(None, match.groups())), 16)
    return chr(code) if code <= sys.maxunicode else ""


def _scattered(text: str) -> Iterator[str]:
    """Yield what base64 in *text* is, that was written in lines or groups: without what stands in between.

    It is recognised by letters of both cases and digits next to each other, again and again: looked for
    are these alone, which are few in what people write.
    """
    start = end = count = found = 0
    for match in chain(_MIXED.finditer(text), (None,)):
        if match is not None and count and match.start() - end <= _FARTHEST:
            end = match.end()
            count += 1
            continue
        if count >= _FEWEST_MIXED and end - start >= _SHORTEST:
            piece = text[_word_start(text, start) : _word_end(text, end)]
            joined = _NO_BASE64.sub("", piece)
            if len(joined) < len(piece) and len(joined) >= _SHORTEST:
                yield joined
                found += 1
                if found >= _MOST_SCATTERED:
                    return
        if match is not None:
            start, end, count = match.start(), match.end(), 1


_FARTHEST: Final = 16
"""Characters between two such places of one text in base64."""

_FEWEST_MIXED: Final = 6
_SHORTEST: Final = 24
_MOST_SCATTERED: Final = 64
_NO_BASE64: Final = re.compile(r"[^A-Za-z0-9+/_-]+(?:[+&][^A-Za-z0-9+/_-]+)?")
_LONGEST_GROUP: Final = 128


def _word_start(text: str, at: int) -> int:
    least = max(0, at - _LONGEST_GROUP)
    while at > least and _IN_GROUP(text[at - 1]):
        at -= 1
    return at


def _word_end(text: str, at: int) -> int:
    most = min(len(text), at + _LONGEST_GROUP)
    while at < most and _IN_GROUP(text[at]):
        at += 1
    return at


_IN_GROUP: Final = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-"
).__contains__


def _hidden(text: str) -> Iterator[tuple[str, str]]:
    """Yield what is written in characters that nobody sees."""
    tags = "".join(chr(ord(char) - 0xE0000) for char in _FLAG.sub("", text) if ord(char) in _TAGS)
    if len(tags) > 3:
        yield "tags", tags
    selectors = bytearray()
    for match in _HIDDEN.finditer(text):
        code = ord(match[0])
        if 0xFE00 <= code <= 0xFE0F:
            selectors.append(code - 0xFE00)
        elif 0xE0100 <= code <= 0xE01EF:
            selectors.append(code - 0xE0100 + 16)
    if (decoded := _readable(bytes(selectors))) is not None:
        yield "selectors", decoded


def _from_base64(piece: str) -> str | None:
    groups = piece.split("-")
    is_grouped = len(groups) > 2 and len({len(group) for group in groups[:-1]}) == 1
    plain = piece.replace("-", "" if is_grouped else "+").replace("_", "/").rstrip("=")
    for skipped in range(4):  # whatever stands in front may belong to it by its looks alone
        part = plain[skipped:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        try:
            data = base64.b64decode(part + "=" * (-len(part) % 4))
            decoded = _readable(data) or _once_more(data)
        except (binascii.Error, ValueError):
            continue
        if decoded is not None:
            return decoded
    return _from_base32(piece) if _SMALL_BASE32.fullmatch(piece) else None


def _from_base32(piece: str) -> str | None:
    plain = piece.rstrip("=").upper()
    plain = plain[: len(plain) - (len(plain) % 8 in (1, 3, 6))]
    return _readable(base64.b32decode(plain + "=" * (-len(plain) % 8)))


def _from_decimals(piece: str) -> str | None:
    numbers = _NUMBER.findall(piece)
    codes = [int(code) for code in numbers]
    if max(codes) < 256 and (decoded := _readable(bytes(codes))) is not None:
        return decoded
    is_octal = all(
        len(number) == 3 and number[0] in "01" and not set(number) & {"8", "9"} for number in numbers
    )
    return _readable(bytes(int(number, 8) for number in numbers)) if is_octal else None


_NUMBER: Final = re.compile(r"\d+")


def _from_hex(piece: str) -> str | None:
    digits = (
        re.sub(r"0[xX]|[\s:,;]", "", piece)
        if "x" in piece or "X" in piece
        else re.sub(r"[ :,\n-]", "", piece)
    )
    return _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))


def _from_bits(piece: str) -> str | None:
    bits = re.sub(r"[^01]", "", piece)
    return _readable(bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) // 8 * 8, 8)))


def _from_code_points(piece: str) -> str | None:
    codes = [int(code, 16) for code in re.findall(r"U\+([0-9a-fA-F]{4,5})", piece)]
    return _readable("".join(map(chr, codes)).encode("utf-8", "replace"))


def _from_css(piece: str) -> str | None:
    return _readable(bytes.fromhex("".join(re.findall(r"[2-7][0-9a-fA-F](?= ?\\|\Z)", piece))))


def _once_more(data: bytes) -> str | None:
    """Return what *data* says, if it is text of two bytes a character, or in hexadecimal."""
    if data[1::2].count(0) * 10 > len(data) * 4:
        return _readable(data[::2])
    return _from_hex(data.decode()) if _ALL_HEX.fullmatch(data) else None


_ALL_HEX: Final = re.compile(rb"[0-9a-fA-F]{24,}")


def _readable(data: bytes) -> str | None:
    """Return *data* as text, where it is text that somebody could have written."""
    text = data.decode(errors="ignore")  # a piece may have been cut within a character
    if len(text.encode()) < len(data) - 6:
        return None
    letters = sum(char.isalpha() or char == " " for char in text)
    return text if len(text) > 7 and letters > 0.7 * len(text) else None
