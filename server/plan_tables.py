"""Settings that differ by plan: a table of ``plan=value`` entries, or one value for all plans."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal, TypeAlias, cast

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

__all__ = [
    "DEFAULT_PLAN",
    "PLAN_NAME",
    "Mode",
    "Modes",
    "ModesElseOff",
    "ModesElseShadow",
    "are_off",
    "check_rows",
    "is_plan_name",
    "modes_of",
    "read_rows",
    "row_of",
    "rows_of",
]

Mode: TypeAlias = Literal["off", "shadow", "on"]
"""Shadow: what would be done is counted, and not done."""

DEFAULT_PLAN: Final = "default"
"""The row that holds for all plans that have none."""

_PLAN: Final = re.compile(r"[\w.:@-]{1,64}")
PLAN_NAME: Final = "up to 64 letters, digits and . _ - : @"
"""What a plan's name is, for whoever is told that theirs is none."""


def is_plan_name(name: str) -> bool:
    """Whether a plan can have that name: the same wherever settings name one."""
    return _PLAN.fullmatch(name) is not None


def read_rows(value: object) -> object:
    """Turn ``"on, free=shadow"``, a mapping, or a list of entries into ``plan=value`` entries."""
    if isinstance(value, dict):
        value = tuple(f"{plan}={each}" for plan, each in value.items())
    elif isinstance(value, str):
        value = tuple(part.strip() for part in value.split(",") if part.strip())
    elif isinstance(value, int | float):
        value = (str(value),)
    if isinstance(value, list | tuple):
        return tuple(part if "=" in str(part) else f"{DEFAULT_PLAN}={part}" for part in value)
    return value


def check_rows(
    check: Callable[[str], bool], what: str, otherwise: str | None = None
) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Return what refuses entries whose values *check* doesn't pass, which should be *what*.

    With *otherwise* there is always an entry for all other plans: that, where none is given.
    """

    def checked(rows: tuple[str, ...]) -> tuple[str, ...]:
        pairs = [(plan.strip(), value.strip()) for plan, _, value in (row.partition("=") for row in rows)]
        for plan, value in pairs:
            if not check(value):
                raise ValueError(f"should be {what}, or plan=value for each plan, as in default=.., free=..")
            if not is_plan_name(plan):
                raise ValueError(
                    f"should be {what}, or plan=value for each plan; a plan's name is {PLAN_NAME}"
                )
        plans = {plan for plan, _ in pairs}
        if len(plans) < len(pairs):
            raise ValueError("should have one entry for each plan; one without a plan is that of default")
        if otherwise is not None and not pairs:
            raise ValueError(f"should be {what}, or plan=value for each plan, as in default=.., free=..")
        if pairs and DEFAULT_PLAN not in plans:
            if otherwise is None:
                raise ValueError("should have an entry for the plan default, which holds for all others")
            pairs.insert(0, (DEFAULT_PLAN, otherwise))
        return tuple(f"{plan}={value}" for plan, value in pairs)

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

ModesElseOff = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(read_rows),
    AfterValidator(check_rows(_is_mode, "off, shadow or on", "off")),
]
"""The same, where a plan that isn't named may be left out: off."""

ModesElseShadow = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(read_rows),
    AfterValidator(check_rows(_is_mode, "off, shadow or on", "shadow")),
]
"""The same: shadow."""


def rows_of(entries: tuple[str, ...]) -> dict[str, str]:
    """Return a table's values by plan."""
    return dict(entry.split("=", 1) for entry in entries)


def row_of(rows: Mapping[str, str], plan: str, otherwise: str) -> str:
    """Return what *rows* have for *plan*, else for all."""
    return rows.get(plan, rows.get(DEFAULT_PLAN, otherwise))


def modes_of(entries: tuple[str, ...]) -> dict[str, Mode]:
    """Return the modes by plan that :data:`Modes` has let through."""
    return cast("dict[str, Mode]", rows_of(entries))


def are_off(entries: tuple[str, ...]) -> bool:
    """Whether those modes are off for every plan."""
    return set(rows_of(entries).values()) == {"off"}
