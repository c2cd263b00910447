"""Values of settings: how each kind is read from text, and what is wrong with one.

Every function raises ValueError with the end of a sentence that begins with the setting's name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from unbroken.server.plan_tables import PLAN_NAME, is_plan_name
from unbroken.server.web_origins import origin_fault

__all__ = [
    "UNIT_NAMES",
    "Bytes",
    "Names",
    "Port",
    "Seconds",
    "check_address",
    "check_admin_key",
    "check_agent_name",
    "check_algorithms",
    "check_api_keys",
    "check_given_plans",
    "check_jwks",
    "check_mcp_keys",
    "check_mcp_servers",
    "check_origins",
    "check_plan_name",
    "check_secret",
    "check_targets",
    "check_tenant_plans",
    "plans_given",
    "read_list",
    "read_pairs",
    "read_size",
    "zero_or",
]

_UNITS: Final = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
UNIT_NAMES: Final = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def read_size(value: object) -> object:
    """Turn ``"64KiB"`` into 65536; leave numbers to the field's own type."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+)\s*([a-zA-Z]*)", value.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError("should be a number of bytes, or a size such as 64KiB, 1MiB or 2GiB")
    return int(match[1]) * unit


def read_list(value: object) -> object:
    """Split ``"a, b"`` at its commas; an environment variable has no lists."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def zero_or(least: float) -> Callable[[float], float]:
    """Return a check of a number of which 0 has a meaning of its own, and others are *least* or more."""

    def check(value: float) -> float:
        if 0 < value < least:
            raise ValueError(f"should be 0, or at least {least:g}")
        return value

    return check


def check_api_keys(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries with their digests in lower case, or say which isn't ``name:sha256``."""
    for number, entry in enumerate(entries, 1):
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}:[0-9a-fA-F]{64}", entry):
            raise ValueError(
                f"entry {number} should be name:sha256, 64 hexadecimal digits after the colon; "
                "`unbroken new-key NAME` prints one"
            )
    return tuple(name + ":" + digest.lower() for name, _, digest in (e.partition(":") for e in entries))


def check_secret(value: SecretStr | None) -> SecretStr | None:
    """Refuse a secret that is too short to sign with."""
    if value is not None and len(value.get_secret_value()) < 32:
        raise ValueError("should have at least 32 characters; `openssl rand -hex 32` prints some")
    return value


def check_address(value: str | None) -> str | None:
    """Refuse what is no HTTP address."""
    try:
        parts = urlsplit(value or "http://unset")
        is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that make no sense
        is_sound = False
    if not is_sound:
        raise ValueError("should begin with http:// or https://, as in http://127.0.0.1:11434/v1")
    return value


def check_agent_name(value: str | None) -> str | None:
    """Refuse what isn't ``module:function``."""
    if value is not None and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise ValueError("should be module:function, such as my_agent:answer")
    return value


def check_targets(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what isn't ``module:object``."""
    for value in values:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            raise ValueError("should be module:object each, such as my_tools:get_weather or my_tools:ALL")
    return values


def check_origins(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what no browser sends as the origin of a page: nothing would ever be let in by it."""
    for value in values:
        if (fault := origin_fault(value)) is not None:
            every = "; there is no entry for all of them" if "*" in value else ""
            # A name in front of the host may have a password behind it.
            entry = "an entry with an @" if "@" in value else repr(value[:100])
            raise ValueError(f"has {entry}, which {fault}{every}")
    return values


def check_mcp_servers(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what isn't ``label=address`` or ``label=command``, and labels that aren't unique."""
    labels = [value.partition("=")[0] for value in values]
    for number, value in enumerate(values, 1):
        label, _, place = value.partition("=")
        if not (re.fullmatch(r"[A-Za-z0-9_-]{1,32}", label) and place.strip()) or label == "tools":
            text = f"entry {number} should be label=address or label=command, such as docs=https://host/mcp"
            raise ValueError(text + ("; the label `tools` is taken" if label == "tools" else ""))
        try:
            shlex.split(place)
        except ValueError:
            raise ValueError(f"entry {number} has a quote that isn't closed") from None
    if len(set(labels)) < len(labels):
        raise ValueError("should have another label for each server")
    return values


def check_mcp_keys(values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Refuse what isn't ``label:token``."""
    for number, value in enumerate(values, 1):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}:[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError(f"entry {number} should be label:token")
    return values


_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""None that signs with a secret: whoever has a public key could sign with that."""


def check_algorithms(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what tokens can't be signed by, and what they mustn't be."""
    if not values or any(value not in _ALGORITHMS for value in values):
        raise ValueError(f"should be some of {', '.join(_ALGORITHMS)}")
    return values


def check_jwks(value: str | None) -> str | None:
    """Refuse an address that anybody on the way could answer for."""
    if value is None or "://" not in value:
        return value
    try:
        parts = urlsplit(value)
        is_local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        is_sound = is_local or (parts.scheme == "https" and bool(parts.hostname))
    except ValueError:
        is_sound = False
    if not is_sound:
        raise ValueError("should be a path, or begin with https:// (with http:// on this machine only)")
    return value


def check_plan_name(value: str) -> str:
    """Refuse what no plan can be called."""
    if not is_plan_name(value):
        raise ValueError(f"should be {PLAN_NAME}")
    return value


def read_pairs(value: object) -> object:
    """Turn ``"a=1, b=2"``, or a mapping, into ``name=value`` entries."""
    return (
        tuple(f"{name}={each}" for name, each in value.items())
        if isinstance(value, dict)
        else read_list(value)
    )


def check_tenant_plans(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what isn't ``tenant=plan``, and tenants with two plans."""
    pairs = [entry.partition("=") for entry in entries]
    names = re.compile(r"[A-Za-z0-9_.:@-]{1,64}")
    if not all(names.fullmatch(tenant.strip()) and is_plan_name(plan.strip()) for tenant, _, plan in pairs):
        raise ValueError(f"should be tenant=plan for each tenant; either name is {PLAN_NAME}")
    plans = {tenant.strip(): plan.strip() for tenant, _, plan in pairs}
    if len(plans) < len(pairs):
        raise ValueError("should have one plan for each tenant")
    return tuple(f"{tenant}={plan}" for tenant, plan in plans.items())


def check_given_plans(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what isn't ``maker=plan``, or ``maker=plan|plan``, and makers with two entries."""
    rows = [(maker.strip(), *plans) for maker, plans in _given(entries)]
    if not all(len(row) > 1 and all(map(is_plan_name, row)) for row in rows):
        raise ValueError(
            f"should be maker=plan, or maker=plan|plan, for each plan of makers; a plan's name is {PLAN_NAME}"
        )
    if len({maker for maker, *_ in rows}) < len(rows):
        raise ValueError("should have one entry for each plan of makers, as in maker=plan|plan")
    return tuple(f"{maker}={'|'.join(plans)}" for maker, *plans in rows)


def plans_given(entries: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return which plans makers give to short-lived keys, by their own plan; the first one is the usual."""
    return dict(_given(entries))


def _given(entries: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for entry in entries:
        maker, _, plans = entry.partition("=")
        yield maker, tuple(each.strip() for each in plans.split("|"))


def check_admin_key(value: SecretStr | None) -> SecretStr | None:
    """Refuse a key that can be guessed, or that no header can carry."""
    if value is not None and not re.fullmatch(r"[\x21-\x7e]{32,1024}", value.get_secret_value()):
        raise ValueError(
            "should have at least 32 characters, of ASCII and without spaces; "
            "`openssl rand -hex 32` prints some"
        )
    return value


Bytes = Annotated[int, BeforeValidator(read_size)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(read_list)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0.1, le=7 * 86400, allow_inf_nan=False)]
"""A time in which something has to come: in less than a tenth of a second nothing reliably does."""
