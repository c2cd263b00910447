"""The settings of files that clients send along. Part of :class:`Settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unbroken.server.setting_values import Bytes
from unbroken.server.settings_part import SettingsPart

__all__ = ["FileSettings"]


class FileSettings(SettingsPart):
    """Where files are, for how long, and how much there may be of them."""

    files: Literal["disk", "memory", "off"] = Field(
        default="disk", description="Where files that clients send along are kept; off takes none."
    )
    files_dir: Path | None = Field(
        default=None, description="Folder for files. Unset: a temporary one, gone with the server."
    )
    files_keep: bool = Field(default=False, description="Keep files over restarts. Needs UNBROKEN_FILES_DIR.")
    file_lifetime: Annotated[float, Field(ge=1, le=30 * 86400, allow_inf_nan=False)] = Field(
        default=86400, description="Seconds after which a file is removed; a client may ask for less."
    )
    max_file_bytes: Bytes = Field(default=8 << 20, ge=1024, le=1 << 30, description="Bytes of one file.")
    max_principal_file_bytes: Bytes = Field(
        default=256 << 20, ge=8192, description="Bytes of all files of one principal."
    )
    max_node_file_bytes: Bytes = Field(
        default=2 << 30, ge=8192, description="Bytes of all files of this node."
    )
    max_principal_files: int = Field(default=1000, ge=1, description="Files of one principal.")
    max_turn_file_bytes: Bytes = Field(
        default=8 << 20, ge=1024, le=1 << 30, description="Bytes of files that one turn gives to its agent."
    )
    max_uploads: int = Field(
        default=32, ge=1, description="Files that may be on their way at once, up and down; of a principal 8."
    )
