"""Events of upstreams that cut an emoji in two.

JSON writes a character beyond U+FFFF as two escapes, and some servers send them
in two chunks. By itself, each is a lone surrogate, which the decoder refuses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Final, TypeVar

import msgspec

__all__ = ["Halves", "decode_halves"]

_T = TypeVar("_T")

_ESCAPED_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def decode_halves(data: bytes, kind: type[_T]) -> _T:
    """Decode JSON that the usual decoder has refused, with lone surrogates in its strings.

    Raises:
        msgspec.DecodeError: That wasn't the reason.

    """
    if _ESCAPED_HALF.search(data) is None:
        raise msgspec.DecodeError("not for a surrogate's sake")
    try:
        return msgspec.convert(json.loads(data), kind)
    except (ValueError, RecursionError):
        raise msgspec.DecodeError("not JSON") from None


class Halves:
    """Joins what was cut in two: a first half is held back until its second comes.

    One whose second never comes is left out. So text is counted alike, whether it came in halves or not.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, str] = {}  # by the text that it is part of

    def join(self, place: Hashable, text: str) -> str:
        """Return the next piece of the text at *place*, whole."""
        if self._held and (first := self._held.pop(place, None)) is not None:
            text = (first + text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._held[place] = text[-1]
            text = text[:-1]
        return text
