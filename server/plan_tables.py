"""Settings that differ by plan: a table of ``plan=value`` entries, or one value for all plans."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal, TypeAlias, cast

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

__all__ = ["Mode", "Modes", "check_rows", "modes_of", "read_rows", "row_of", "rows_of"]

Mode: TypeAlias = Literal["off", "shadow", "on"]
"""Shadow: what would be done is counted, and not done."""

_DEFAULT: Final = "default"
_PLAN: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def read_rows(value: object) -> object:
    """Turn ``"on, free=shadow"``, a mapping, or a list of entries into ``plan=value`` entries."""
    if isinstance(value, dict):
        value = tuple(f"{plan}={each}" for plan, each in value.items())
    elif isinstance(value, str):
        value = tuple(part.strip() for part in value.split(",") if part.strip())
    elif isinstance(value, int | float):
        value = (str(value),)
    if isinstance(value, list | tuple):
        return tuple(part if "=" in str(part) else f"{_DEFAULT}={part}" for part in value)
    return value


def check_rows(check: Callable[[str], bool], what: str) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Return what refuses entries whose values *check* doesn't pass, which should be *what*."""

    def checked(rows: tuple[str, ...]) -> tuple[str, ...]:
        plans = [row.partition("=")[0].strip() for row in rows]
        for row in rows:
            plan, _, value = row.partition("=")
            if not _PLAN.fullmatch(plan.strip()) or not check(value.strip()):
                raise ValueError(f"should be {what}, or plan=value for each plan, as in default=.., free=..")
        if len(set(plans)) < len(plans):
            raise ValueError("should have one entry for each plan")
        if rows and _DEFAULT not in plans:
            raise ValueError("should have an entry for the plan default, which holds for all others")
        return tuple(f"{plan}={row.partition('=')[2].strip()}" for plan, row in zip(plans, rows, strict=True))

    return checked


def _is_mode(value: str) -> bool:
    return value in ("off", "shadow", "on")


Modes = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(read_rows),
    AfterValidator(check_rows(_is_mode, "off, shadow or on")),
]
"""A mode by plan, as a setting has it."""


def rows_of(entries: tuple[str, ...]) -> dict[str, str]:
    """Return a table's values by plan."""
    return dict(entry.split("=", 1) for entry in entries)


def row_of(rows: Mapping[str, str], plan: str, otherwise: str) -> str:
    """Return what *rows* have for *plan*, else for all."""
    return rows.get(plan, rows.get(_DEFAULT, otherwise))


def modes_of(entries: tuple[str, ...]) -> dict[str, Mode]:
    """Return the modes by plan that :data:`Modes` has let through."""
    return cast("dict[str, Mode]", rows_of(entries))
