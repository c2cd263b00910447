"""The settings of quotas and prices. Part of :class:`Settings`."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_settings import NoDecode

from unbroken.server.plan_tables import PLAN_NAME, Modes, is_plan_name
from unbroken.server.setting_tables import read_tables
from unbroken.server.settings_part import SettingsPart
from unbroken.sessions.backends.index import LISTED

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
    sessions: _Count = None

    @field_validator("sessions")
    @classmethod
    def _is_listed(cls, value: int | None) -> int | None:
        if value is not None and value > LISTED:  # it would bind nobody
            raise ValueError(
                f"should be at most {LISTED}, as no more of a user's are listed, and so counted; "
                "without it the plan bounds nobody's"
            )
        return value

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


_BOUNDS: Final = (
    "requests_per_minute, requests_per_day, tokens_per_minute, tokens_per_day, cost_per_day, turns and "
    "connections, also with tenant_ or address_ before them, and sessions"
)


def _plans(value: object) -> dict[str, Any]:
    plans = read_tables(value, PlanQuota, "plans, such as [quotas.default]", _BOUNDS)
    for name in plans:
        if not is_plan_name(name):
            raise ValueError(f"can't be used: {name} should be a plan's name: {PLAN_NAME}")
    return plans


def _prices(value: object) -> dict[str, Any]:
    what = "models, such as [prices.my-model] with input and output"
    return read_tables(value, ModelPrice, what, "input, output and cached")


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
