"""The settings of who may speak, beyond the keys that settings name. Part of :class:`Settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from unbroken.server.setting_values import (
    Bytes,
    Names,
    check_algorithms,
    check_given_plans,
    check_jwks,
    check_plan_name,
    check_tenant_plans,
    read_pairs,
)
from unbroken.server.settings_part import SettingsPart

__all__ = ["AuthSettings"]

_Count = Annotated[int, Field(ge=1, le=100_000_000)]
_Size = Annotated[Bytes, Field(ge=64 << 10, le=1 << 40)]
_Claim = Annotated[str, Field(max_length=128)]
_TenantPlans = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(read_pairs), AfterValidator(check_tenant_plans)
]
_GivenPlans = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(read_pairs), AfterValidator(check_given_plans)
]
_PlanName = Annotated[str, AfterValidator(check_plan_name)]


class AuthSettings(SettingsPart):
    """Keys that come and go, short-lived keys, strangers, and tokens of somebody else's."""

    key_store: Literal["none", "memory", "file", "redis"] = Field(
        default="none", description="Where the keys are that `unbroken keys` and /admin/keys make."
    )
    key_file: Path | None = Field(
        default=None, description="File of those keys, for UNBROKEN_KEY_STORE=file. It is made when needed."
    )
    client_secret_lifetime: Annotated[float, Field(ge=10, le=7200, allow_inf_nan=False)] = Field(
        default=60,
        description="Seconds within which a short-lived key is used, unless its maker asks for others.",
    )
    ticket_lifetime: Annotated[float, Field(ge=5, le=600, allow_inf_nan=False)] = Field(
        default=30, description="Seconds within which a ticket is used."
    )
    client_session_lifetime: Annotated[float, Field(ge=60, le=7 * 86400, allow_inf_nan=False)] = Field(
        default=3600, description="Seconds after which whoever came with a short-lived key needs another."
    )
    client_secret_plans: _GivenPlans = Field(
        default=(),
        description=(
            "Plans of short-lived keys by their makers' plan, as maker=plan, or several with bars between, "
            "the usual one first; comma-separated. Unset: their makers' own."
        ),
    )
    client_secrets_per_user: _Count = Field(
        default=200, description="Short-lived keys of one user that can be used, or reconnected with."
    )
    client_secrets_per_user_bytes: _Size = Field(
        default=2 << 20, description="Bytes of these; what several settle alike counts once."
    )
    client_secrets_per_key: _Count = Field(
        default=40_000,
        description="The same of one API key that names no user, whomever it makes them for.",
    )
    client_secrets_per_key_bytes: _Size = Field(default=32 << 20, description="Bytes of these.")
    client_secrets_per_address: _Count = Field(
        default=1000,
        description="The same of all strangers from one address, or IPv6 /64; loopback aside.",
    )
    client_secrets_per_address_bytes: _Size = Field(default=2 << 20, description="Bytes of these.")
    client_secrets_of_strangers: _Count = Field(default=20_000, description="The same of all strangers.")
    client_secrets_of_strangers_bytes: _Size = Field(default=32 << 20, description="Bytes of these.")
    max_client_secrets: _Count = Field(
        default=100_000, description="Short-lived keys that this node holds, without Redis."
    )
    max_client_secret_bytes: _Size = Field(default=128 << 20, description="Bytes of these.")
    anonymous: bool = Field(
        default=False, description="Give short-lived keys to pages of allowed origins without a key."
    )
    anonymous_rate: int = Field(
        default=10,
        ge=1,
        le=100_000,
        description="Keys for strangers that an address may ask for in a minute, of each node.",
    )
    tenant_plans: _TenantPlans = Field(
        default=(), description="The plan of all users of a tenant, as tenant=plan; comma-separated."
    )
    anonymous_plan: _PlanName = Field(default="anonymous", description="The plan of strangers.")
    jwt_jwks: Annotated[str | None, AfterValidator(check_jwks)] = Field(
        default=None,
        description="Address or file of the keys (JWKS) that tokens are signed with. Unset: none are taken.",
    )
    jwt_issuer: str | None = Field(default=None, description="Who must have issued them: the claim iss.")
    jwt_audience: Names = Field(
        default=(), description="Whom they must be meant for, one of these: the claim aud; comma-separated."
    )
    jwt_algorithms: Annotated[Names, AfterValidator(check_algorithms)] = Field(
        default=("RS256", "ES256", "EdDSA"), description="What they may be signed by; comma-separated."
    )
    jwt_leeway: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = Field(
        default=30, description="Seconds by which clocks may differ."
    )
    jwt_user_claim: Annotated[_Claim, Field(min_length=1)] = Field(
        default="sub", description="Claim that names the user."
    )
    jwt_tenant_claim: _Claim = Field(
        default="", description="Claim that names the tenant. Unset: all are of the tenant `default`."
    )
    jwt_plan_claim: _Claim = Field(
        default="", description="Claim that names the plan. Unset: all are on the plan `default`."
    )
    jwt_scopes_claim: _Claim = Field(
        default="",
        description="Claim that lists scopes: realtime, files, client_secrets. Unset: all have all.",
    )
