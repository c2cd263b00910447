"""Snapshots, and turns that ended, as they are kept: text takes half the room."""

from __future__ import annotations

import zlib
from typing import Final

__all__ = ["packed", "unpacked"]

_MOST_PACKED: Final = 64 * 1024


def packed(data: bytes) -> bytes:
    """Return what is JSON as it is kept. What is large stays as it is: it would take the loop's time."""
    return zlib.compress(data, 1) if len(data) <= _MOST_PACKED else data


def unpacked(data: bytes) -> bytes:
    """Return the JSON that :func:`packed` made *data* of."""
    return data if data.startswith(b"{") else zlib.decompress(data)
