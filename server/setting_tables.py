"""Settings that are tables of tables: of TOML, or as JSON of the environment."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

__all__ = ["read_tables"]


def read_tables(value: object, row: type[BaseModel], what: str, names: str) -> dict[str, Any]:
    """Return a *row* for each table of *value*, by name. *what* they are of, and *names* they may have.

    Raises:
        ValueError: They can't be read. Says what is wrong with which.

    """
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_float=Decimal, object_pairs_hook=_each_once)
        except json.JSONDecodeError:
            raise ValueError(f"should be a table in unbroken.toml, or JSON of {what}") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"should be a table of {what}")
    found: dict[str, Any] = {}
    wrong: list[str] = []
    for name, given in value.items():
        try:
            found[name] = given if isinstance(given, row) else row.model_validate(given)
        except ValidationError as errors:
            wrong += (_problem(name, row, each, what, names) for each in errors.errors(include_url=False))
    if wrong:
        raise ValueError(f"can't be used: {'; '.join(wrong)}")
    return found


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of JSON, which may say two things of one name, and TOML can't."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"should have one entry for {name}")
        found[name] = value
    return found


def _problem(name: str, row: type[BaseModel], error: ErrorDetails, what: str, names: str) -> str:
    """Say what is wrong with the table *name*, and what would be right."""
    if not error["loc"]:
        return f"{name} should be a table of its own, as of {what}"
    field = str(error["loc"][0])
    where = f"{name}.{field}"
    match error["type"]:
        case "extra_forbidden":
            close = difflib.get_close_matches(field, row.model_fields, n=1, cutoff=0.8)
            return f"{where}: did you mean {close[0]}?" if close else f"{where}: there are {names}"
        case "missing":
            return f"{where} is missing"
        case "value_error":
            return f"{where} {error['ctx']['error']}"
        case _:  # "Input should be a valid integer, unable to parse ..."
            return f"{where} {error['msg'].partition(' ')[2].partition(', unable to')[0]}"
