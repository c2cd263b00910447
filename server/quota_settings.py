"""The settings of quotas and prices. Part of :class:`Settings`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import NoDecode

from unbroken.server.plan_tables import PLAN_NAME, Modes, is_plan_name
from unbroken.server.settings_part import SettingsPart

__all__ = ["ModelPrice", "PlanQuota", "QuotaSettings"]

_Count = Annotated[int | None, Field(ge=1, le=2**50)]
_LEAST: Final = Decimal("0.000001")
"""What is counted in: of less, nothing could be bought."""

_Money = Annotated[Decimal | None, Field(ge=_LEAST, le=10**9, max_digits=20)]


class _Row(BaseModel):
    """Numbers by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _is_number(cls, value: object) -> object:
        if isinstance(value, bool):  # which would be taken for 0 or 1
            raise ValueError("should be a number")
        return value


class PlanQuota(_Row):
    """What whoever is of a plan may use. None: no bound. Money is in units of the prices' currency."""

    requests_per_minute: _Count = None
    requests_per_day: _Count = None
    tokens_per_minute: _Count = None
    tokens_per_day: _Count = None
    cost_per_day: _Money = None
    turns: _Count = None
    connections: _Count = None

    tenant_requests_per_minute: _Count = None
    tenant_requests_per_day: _Count = None
    tenant_tokens_per_minute: _Count = None
    tenant_tokens_per_day: _Count = None
    tenant_cost_per_day: _Money = None
    tenant_turns: _Count = None
    tenant_connections: _Count = None

    address_requests_per_minute: _Count = None
    address_requests_per_day: _Count = None
    address_tokens_per_minute: _Count = None
    address_tokens_per_day: _Count = None
    address_cost_per_day: _Money = None
    address_turns: _Count = None
    address_connections: _Count = None


class ModelPrice(_Row):
    """What a million tokens of a model cost. *cached*: of input that its provider had read before."""

    input: Annotated[Decimal, Field(ge=0, le=10**6)]
    output: Annotated[Decimal, Field(ge=0, le=10**6)]
    cached: Annotated[Decimal | None, Field(ge=0, le=10**6)] = None


def _rows(value: object, row: type[_Row], what: str, names: str) -> dict[str, Any]:
    """Read a table of tables: of TOML, or as JSON of the environment. *names*: those a table may have."""
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


def _problem(name: str, row: type[_Row], error: ErrorDetails, what: str, names: str) -> str:
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


_BOUNDS: Final = (
    "requests_per_minute, requests_per_day, tokens_per_minute, tokens_per_day, cost_per_day, turns and "
    "connections, also with tenant_ or address_ before them"
)


def _plans(value: object) -> dict[str, Any]:
    plans = _rows(value, PlanQuota, "plans, such as [quotas.default]", _BOUNDS)
    for name in plans:
        if not is_plan_name(name):
            raise ValueError(f"can't be used: {name} should be a plan's name: {PLAN_NAME}")
    return plans


def _prices(value: object) -> dict[str, Any]:
    what = "models, such as [prices.my-model] with input and output"
    return _rows(value, ModelPrice, what, "input, output and cached")


class QuotaSettings(SettingsPart):
    """How much whoever is of which plan may use, and what it costs."""

    quota_mode: Modes = Field(
        default=("default=on",),
        description="By plan; off: count nothing; shadow: count and say so, refuse nobody; on.",
    )
    quota_strict: bool = Field(
        default=False,
        description="Refuse responses that can't be counted: Redis can't be asked, or the user isn't known.",
    )
    quotas: Annotated[dict[str, PlanQuota], NoDecode, BeforeValidator(_plans)] = Field(
        default={}, description="What each plan may use, a table each; `default` holds for all others."
    )
    prices: Annotated[dict[str, ModelPrice], NoDecode, BeforeValidator(_prices)] = Field(
        default={}, description="What a million tokens of a model cost, before the list that is shipped."
    )
