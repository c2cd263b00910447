"""The settings of the injection firewall. Part of :class:`Settings`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from unbroken.server.plan_tables import Modes, check_rows, read_rows
from unbroken.server.setting_values import Names, Seconds, check_address
from unbroken.server.settings_part import SettingsPart

__all__ = ["FirewallSettings"]


def _is_score(value: str) -> bool:
    return re.fullmatch(r"0?\.\d{1,4}|[01](\.0{1,4})?", value) is not None


_Scores = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(read_rows),
    AfterValidator(check_rows(_is_score, "a score from 0 to 1")),
]


def _check_digests(values: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.fullmatch(r"[0-9a-fA-F]{64}", value) for value in values):
        raise ValueError("should be SHA-256 digests, of 64 hexadecimal digits each")
    return tuple(value.lower() for value in values)


class FirewallSettings(SettingsPart):
    """What is looked at, how closely, and what becomes of it."""

    firewall: Modes = Field(
        default=("default=shadow",),
        description="Whether what comes in is checked for attacks, by plan: on, shadow (count only) or off.",
    )
    firewall_flag: _Scores = Field(
        default=("default=0.5",), description="Least score that is flagged, by plan, from 0 to 1."
    )
    firewall_block: _Scores = Field(
        default=("default=0.8",), description="Least score that is blocked, by plan, from 0 to 1."
    )
    firewall_model: str = Field(
        default="auto",
        min_length=1,
        description="The local model: auto (that of the extra guards, if installed), off, or a folder.",
    )
    firewall_threads: int = Field(default=1, ge=1, le=64, description="Texts that are examined at once.")
    firewall_queue: int = Field(
        default=256,
        ge=1,
        le=10_000,
        description="Inputs that are examined or wait for it (in shadow, parts of 16 KiB). "
        "More are unchecked.",
    )
    firewall_timeout: Seconds = Field(default=2, description="Seconds in which a text has to be checked.")
    firewall_failure: Literal["closed", "open"] = Field(
        default="closed", description="What isn't checked in time is refused (closed), or let in (open)."
    )
    firewall_rules_off: Names = Field(
        default=(), description="Rules that don't count, by name, as logs have them; comma-separated."
    )
    firewall_allow: Annotated[Names, AfterValidator(_check_digests)] = Field(
        default=(), description="SHA-256 digests of texts that always pass; comma-separated."
    )
    firewall_trusted_tools: Names = Field(
        default=(),
        description="Labels of toolsets whose results aren't checked; tools for your own; comma-separated.",
    )
    firewall_service: Annotated[str | None, AfterValidator(check_address)] = Field(
        default=None,
        repr=False,
        description="Address of a heavier detector, asked only where there are doubts.",
    )
    firewall_service_api: Literal["plain", "lakera"] = Field(
        default="plain", description="Its API: plain (see docs/guards.md), or one of Lakera's kind."
    )
    firewall_service_key: SecretStr | None = Field(default=None, description="Key for that detector.")
    firewall_heavy_model: Path | None = Field(
        default=None, description="Folder of a larger ONNX classifier, asked only where there are doubts."
    )
    canaries: bool = Field(
        default=False,
        description="Mark each session's instructions, so that an answer that quotes them is recognised.",
    )
