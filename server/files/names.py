"""What files are called. For people only: no path is ever made of such a name."""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import quote

__all__ = ["clean_name", "disposition"]

_MOST: Final = 200
"""Characters."""


def clean_name(name: str) -> str:
    """Return *name* as it is kept: one line of printable characters, without folders. It may be empty."""
    # Longer ones aren't looked at to their end; what matters of a name stands there.
    name = re.split(r"[/\\]", name[-4 * _MOST :])[-1]
    shown = "".join(char for char in name if unicodedata.category(char)[0] != "C").strip()
    return shown[-_MOST:]


def disposition(name: str) -> str:
    """Return the header that has a browser save a file as *name*, and never show it (RFC 6266, RFC 8187)."""
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name) or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name or plain, safe='')}"
