"""How values of settings are written: sizes, lists, names of Python objects."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

__all__ = ["Bytes", "Names", "Targets"]

_UNITS: Final = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def _size(value: object) -> object:
    """Turn ``"64KiB"`` into 65536; leave numbers to the field's own type."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+)\s*([a-zA-Z]*)", value.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError("should be a number of bytes, or a size such as 64KiB, 1MiB or 2GiB")
    return int(match[1]) * unit


def _split(value: object) -> object:
    """Split ``"a, b"`` at its commas; an environment variable has no lists."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _targets(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            raise ValueError("should be module:object each, such as my_tools:get_weather or my_tools:ALL")
    return values


Bytes = Annotated[int, BeforeValidator(_size)]
"""A number of bytes, or a size such as ``64KiB``."""

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Words, separated by commas."""

Targets = Annotated[Names, AfterValidator(_targets)]
"""Python objects, each as ``module:object``, separated by commas."""
