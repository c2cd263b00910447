"""Settings as bytes, for another process of the same server: all of them, secrets in the clear."""

from __future__ import annotations

import json
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from unbroken.server.chain import ChainEntry
from unbroken.server.config import Settings

__all__ = ["packed", "unpacked"]


def packed(settings: Settings) -> bytes:
    """Return *settings* as JSON. They hold keys: give the bytes to nobody else."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    return json.dumps(values, default=_plain).encode()


def unpacked(data: bytes) -> Settings:
    """Return the settings that :func:`packed` made *data* of: equal ones, checked once more."""
    values: dict[str, Any] = json.loads(data)
    return Settings(**{**values, "fallbacks": tuple(_entry(**each) for each in values["fallbacks"])})


def _plain(value: object) -> object:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case Path():
            return str(value)
        case ChainEntry():
            return asdict(value)
        case Decimal():
            return str(value)
        case BaseModel():
            return value.model_dump()  # with its secrets: in JSON's mode these would be masked
    raise TypeError(f"a setting is of a type that has no JSON: {type(value).__name__}")


def _entry(*, api_key: str | None, **others: Any) -> ChainEntry:
    return ChainEntry(api_key=None if api_key is None else SecretStr(api_key), **others)
