"""The settings of sessions: how long, how large. Part of :class:`Settings`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unbroken.server.setting_values import Bytes, Seconds
from unbroken.server.settings_part import SettingsPart

__all__ = ["SessionSettings"]

_Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class SessionSettings(SettingsPart):
    """Bounds on sessions and their logs, and what a session does by default."""

    concurrency: Literal["reject", "queue", "interrupt", "merge"] = Field(
        default="reject",
        description="What response.create does while a response runs; a session can override it.",
    )
    session_idle_timeout: Annotated[float, Field(gt=0, le=366 * 86400, allow_inf_nan=False)] = Field(
        default=86400, description="Seconds without a turn or a connection after which a session ends."
    )
    empty_session_grace: Seconds = Field(
        default=60, description="Seconds that a session without input outlives its last connection."
    )
    max_sessions: int = Field(default=10_000, ge=1, description="Sessions this node holds.")
    principal_share: _Share = Field(
        default=0.25,
        description="Share of these, and of their bytes, that a principal or an address of strangers keeps.",
    )
    strangers_share: _Share = Field(
        default=0.5,
        description="Share of these, of their bytes, and of the bytes of files, of all strangers together.",
    )
    sessions_per_user: int = Field(
        default=10_000,
        ge=0,
        le=10_000,
        description="Stored sessions of a user, or of an address of strangers, on all nodes; 0: no bound.",
    )
    max_node_bytes: Bytes = Field(
        default=1 << 30, ge=1 << 20, description="Bytes of all sessions of this node."
    )
    max_session_bytes: Bytes = Field(default=2 << 20, ge=4096, description="Bytes of one conversation.")
    log_retain_bytes: Bytes = Field(
        default=256 << 10,
        ge=0,
        description="Bytes of a session's event log that compaction keeps for resuming.",
    )
    log_max_bytes: Bytes = Field(
        default=1 << 20,
        ge=4096,
        description="Bytes of a session's event log, whatever its connections still need.",
    )
    max_output_bytes: Bytes = Field(default=256 << 10, ge=1024, description="Bytes of one response.")
