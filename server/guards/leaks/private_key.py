"""Where the body of a private key ends that has begun. Pure.

It ends with its own last line. Where that never comes, as in an answer that only shows the
beginning, it ends with the first line that can't be part of one.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["PrivateKey"]

_LONGEST_LINE: Final = 128
"""Characters that are looked at together. PEM has 64 in a line, and headers somewhat more."""

_LINE: Final = re.compile(r"(.*?)(\n|\\n|\\r|\r)", re.DOTALL)
_LAST: Final = re.compile(r"-----END [A-Z0-9 ]{0,64}-----")
_BODY: Final = re.compile(r"\s*+(?>(?:[A-Za-z0-9+/=\0]{20,}+\s*+)*)[A-Za-z0-9+/=\0]*+\s*+")
_HEADER: Final = re.compile(r"[A-Za-z-]{1,32}+: ?[A-Za-z0-9,+/=.@<> -]*+")


class PrivateKey:
    """The body of one key."""

    def end_of(self, text: str, start: int, *, is_last: bool) -> tuple[int, bool]:
        """Return up to where *text* belongs to the key, from *start* on, and whether it ends there.

        A line that hasn't ended is left for later, unless it *is_last*.
        """
        position = start
        while position < len(text):
            most = position + _LONGEST_LINE
            line = _LINE.match(text, position, min(most, len(text)))
            if line is not None:
                body, end = line[1], line.end()
            elif len(text) >= most or is_last:
                body, end = text[position:most], min(most, len(text))
                # A last line that is cut in two by the window is kept for the next.
                marker = body.rfind("-----END")
                if marker > 0 and _LAST.search(body) is None and not is_last:
                    body, end = body[:marker], position + marker
            else:
                body = text[position:]
                if (last := _LAST.search(body)) is not None:
                    return position + last.end(), True
                return position, False
            if (last := _LAST.search(body)) is not None:
                return position + last.end(), True
            if _BODY.fullmatch(body) is None and _HEADER.fullmatch(body) is None:
                return position, True
            position = end
        return position, False
