"""The settings of sessions that several nodes share. Part of :class:`Settings`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from unbroken.server.setting_values import Seconds
from unbroken.server.settings_part import SettingsPart

__all__ = ["RedisSettings"]

_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


def _check_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None and value.get_secret_value().partition("://")[0] not in _SCHEMES:
        raise ValueError(
            "should begin with redis://, rediss:// (TLS), unix://, redis+sentinel:// or redis+cluster://"
        )
    return value


def _check_prefix(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value) is None:
        raise ValueError("should be up to 64 letters, digits, points, dashes and underscores")
    return value


class RedisSettings(SettingsPart):
    """Where sessions are shared, and what happens while that is out of reach."""

    redis_url: Annotated[SecretStr | None, AfterValidator(_check_url)] = Field(
        default=None,
        description="Redis or Valkey that nodes share sessions in. Unset: sessions are in memory.",
    )
    redis_prefix: Annotated[str, AfterValidator(_check_prefix)] = Field(
        default="unbroken", description="What all keys in Redis begin with; the same on all nodes."
    )
    redis_timeout: Annotated[Seconds, Field(ge=0.05)] = Field(
        default=2, description="Seconds after which a call to Redis is given up."
    )
    redis_connections: int = Field(
        default=16, ge=2, le=1000, description="Connections to Redis that this node may have."
    )
    redis_ca_file: Path | None = Field(
        default=None, description="Authority of Redis' certificate. Unset: those that the system trusts."
    )
    redis_sentinel_password: SecretStr | None = Field(
        default=None, description="What Sentinels ask for, where that isn't what Redis asks for."
    )
    store_patience: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = Field(
        default=1,
        description="Seconds that sessions wait for Redis when it is out of reach. Then they go on unsaved.",
    )
    store_strict: bool = Field(
        default=False, description="Say and take nothing that can't be saved, however long Redis is gone."
    )
    store_format: int | None = Field(
        default=None,
        ge=1,
        description="Latest format to write to Redis. Unset: the latest that all nodes read.",
    )
    turn_attempts: int = Field(
        default=1,
        ge=1,
        le=3,
        description="Attempts at a turn whose node dies, where no upstream keeps the answer.",
    )
    release_after: Annotated[Seconds, Field(ge=1)] = Field(
        default=60, description="Seconds after which a node lets go of an idle session that is in Redis."
    )
