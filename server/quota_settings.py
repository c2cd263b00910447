"""The settings of quotas and prices. Part of :class:`Settings`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode

from unbroken.server.plan_tables import Modes

__all__ = ["ModelPrice", "PlanQuota", "QuotaSettings"]

_Count = Annotated[int | None, Field(ge=1, le=2**50)]
_Money = Annotated[Decimal | None, Field(ge=0, le=10**9, max_digits=20)]


class PlanQuota(BaseModel):
    """What whoever is of a plan may use. None: no bound. Money is in units of the prices' currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class ModelPrice(BaseModel):
    """What a million tokens of a model cost. *cached*: of input that its provider had read before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Annotated[Decimal, Field(ge=0, le=10**6)]
    output: Annotated[Decimal, Field(ge=0, le=10**6)]
    cached: Annotated[Decimal | None, Field(ge=0, le=10**6)] = None


def _rows(value: object, row: type[BaseModel], what: str) -> dict[str, Any]:
    """Read a table of tables: of TOML, or as JSON of the environment."""
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_float=Decimal)
        except ValueError:
            raise ValueError(f"should be a table in unbroken.toml, or JSON of {what}") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"should be a table of {what}")
    found: dict[str, Any] = {}
    for name, given in value.items():
        if isinstance(given, row):
            found[name] = given
            continue
        try:
            found[name] = row.model_validate(given)
        except ValidationError as errors:
            first = errors.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in (name, *first["loc"]))
            raise ValueError(f"can't be used: {where}: {first['msg']}") from None
    return found


def _plans(value: object) -> dict[str, Any]:
    return _rows(value, PlanQuota, "plans, such as [quotas.default]")


def _prices(value: object) -> dict[str, Any]:
    return _rows(value, ModelPrice, "models, such as [prices.my-model] with input and output")


class QuotaSettings(BaseSettings):
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
