"""How values of settings are written: sizes, lists, names of Python objects."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

__all__ = ["Address", "Bytes", "LongSecret", "McpKeys", "McpServers", "Names", "Target", "Targets"]

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


def _long_secret(value: SecretStr | None) -> SecretStr | None:
    if value is not None and len(value.get_secret_value()) < 32:
        raise ValueError("should have at least 32 characters; `openssl rand -hex 32` prints some")
    return value


def _address(value: str | None) -> str | None:
    try:
        parts = urlsplit(value or "http://unset")
        is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that make no sense
        is_sound = False
    if not is_sound:
        raise ValueError("should begin with http:// or https://, as in http://127.0.0.1:11434/v1")
    return value


def _target(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise ValueError("should be module:function, such as my_agent:answer")
    return value


def _targets(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            raise ValueError("should be module:object each, such as my_tools:get_weather or my_tools:ALL")
    return values


def _mcp_servers(values: tuple[str, ...]) -> tuple[str, ...]:
    labels = [value.partition("=")[0] for value in values]
    for number, value in enumerate(values, 1):
        label, _, place = value.partition("=")
        if not (re.fullmatch(r"[A-Za-z0-9_-]{1,32}", label) and place.strip()) or label == "tools":
            raise ValueError(
                f"entry {number} should be label=address or label=command, such as docs=https://host/mcp; "
                "the label `tools` is taken"
            )
        try:
            shlex.split(place)
        except ValueError:
            raise ValueError(f"entry {number} has a quote that isn't closed") from None
    if len(set(labels)) < len(labels):
        raise ValueError("should have another label for each server")
    return values


def _mcp_keys(values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for number, value in enumerate(values, 1):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}:[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError(f"entry {number} should be label:token")
    return values


Bytes = Annotated[int, BeforeValidator(_size)]
"""A number of bytes, or a size such as ``64KiB``."""

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Words, separated by commas."""

Address = Annotated[str | None, AfterValidator(_address)]
"""Of an HTTP server."""

LongSecret = Annotated[SecretStr | None, AfterValidator(_long_secret)]
"""What nobody guesses."""

Target = Annotated[str | None, AfterValidator(_target)]
"""A Python function, as ``module:function``."""

Targets = Annotated[Names, AfterValidator(_targets)]
"""Python objects, each as ``module:object``, separated by commas."""

McpServers = Annotated[Names, AfterValidator(_mcp_servers)]
"""MCP servers, each as ``label=address`` or ``label=command``, separated by commas."""

McpKeys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split), AfterValidator(_mcp_keys)]
"""Tokens for MCP servers, each as ``label:token``, separated by commas."""
