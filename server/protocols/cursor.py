"""A position in a log, as clients see it: an opaque string.

``event_<incarnation>.<sequence>.<nonce>.<remaining>``

One entry may become several frames; *remaining* is how many of them come after
the frame that carries the cursor. Frames that belong to one connection alone
carry the cursor of the last frame before them and a suffix of their own, since
clients keep whatever id came last.
"""

from __future__ import annotations

import re
from typing import Final

from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import Incarnation, Nonce

__all__ = ["format_cursor", "parse_cursor"]

_FORM: Final = re.compile(
    r"event_([0-9a-f]{8})\.([0-9]{1,18})\.([0-9a-f]{1,8})\.([0-9]{1,2})(?:-[0-9a-z]{1,24})?"
)


def format_cursor(incarnation: str, seq: int, nonce: int, remaining: int = 0) -> str:
    """Return the cursor of a frame."""
    return f"event_{incarnation}.{seq}.{nonce:x}.{remaining}"


def parse_cursor(text: str) -> tuple[Position, int] | None:
    """Return the position and the number of frames still to come there; None if *text* isn't a cursor."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    incarnation, seq, nonce, remaining = match.groups()
    return Position(Incarnation(incarnation), int(seq), Nonce(int(nonce, 16))), int(remaining)
