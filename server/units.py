"""How sizes, times and lists are written in settings."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

__all__ = ["UNIT_NAMES", "Bytes", "Names", "Seconds"]

_UNITS: Final = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}

UNIT_NAMES: Final = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
"""Units that sizes are shown in, the largest first, with their bytes."""


def _size(value: object) -> object:
    """Turn ``"64KiB"`` into 65536; leave numbers to the field's own type."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+)\s*([a-zA-Z]*)", value.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError("should be a number of bytes, or a size such as 64KiB, 1MiB or 2GiB")
    return int(match[1]) * unit


def _list(value: object) -> object:
    """Split ``"a, b"`` at its commas; an environment variable has no lists."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Bytes = Annotated[int, BeforeValidator(_size)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_list)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400, allow_inf_nan=False)]
