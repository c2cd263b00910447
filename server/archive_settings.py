"""The settings of the archive. Part of :class:`Settings`."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from unbroken.server.plan_tables import check_rows, read_rows
from unbroken.server.setting_values import Bytes, Seconds
from unbroken.server.settings_part import SettingsPart

__all__ = ["ArchiveSettings", "retention_of"]

_RETENTION: Final = re.compile(r"(?P<number>\d{1,9})(?P<unit>[smhd]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def retention_of(value: str) -> float | None:
    """Return the seconds that a value of the table is; None: for ever."""
    match = _RETENTION.fullmatch(value)
    return None if match is None else float(int(match["number"]) * _UNITS[match["unit"]])


def _is_retention(value: str) -> bool:
    return value == "forever" or _RETENTION.fullmatch(value) is not None


def _check_url(value: SecretStr | None) -> SecretStr | None:
    given = None if value is None else value.get_secret_value()
    if given is not None and not re.match(r"sqlite:///.|postgres(ql)?://.", given):
        raise ValueError(
            "should begin with sqlite:/// (and go on with a path; an absolute one has a fourth slash) or "
            "postgresql://"
        )
    return value


class ArchiveSettings(SettingsPart):
    """Where finished turns are kept for good, and for how long."""

    archive_url: Annotated[SecretStr | None, AfterValidator(_check_url)] = Field(
        default=None,
        description="Where finished turns are kept for good: sqlite:///path for one node, or "
        "postgresql://... Unset: nowhere.",
    )
    archive_retention: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(read_rows),
        AfterValidator(
            check_rows(_is_retention, "forever, or a time such as 90d, 12h or 0 (nothing is kept)", "forever")
        ),
    ] = Field(
        default=("default=forever",),
        description="How long they are kept, by plan: forever, or a time such as 90d or 12h; 0: not at all.",
    )
    archive_outbox_bytes: Bytes = Field(
        default=256 << 20,
        ge=1 << 20,
        le=1 << 40,
        description="Bytes of turns that may wait for the archive; more are lost, and counted.",
    )
    archive_connections: int = Field(
        default=4, ge=1, le=100, description="Connections to PostgreSQL that this node may have."
    )
    archive_timeout: Seconds = Field(
        default=5, description="Seconds after which a call to the archive is given up."
    )
