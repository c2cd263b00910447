"""Which file store the settings ask for. With the composition root, the only place that chooses one."""

from __future__ import annotations

from unbroken.server.config import Settings
from unbroken.server.fair_names import FairName
from unbroken.server.files.base import FileLimits, FileStore
from unbroken.server.files.disk import DiskFiles
from unbroken.server.files.memory import MemoryFiles
from unbroken.sessions.clock import Clock

__all__ = ["build_files"]


def build_files(settings: Settings, clock: Clock, fair_name: FairName = str) -> FileStore | None:
    """Return the store that *settings* describe, not entered; None: none is wanted."""
    limits = FileLimits(
        file_bytes=settings.max_file_bytes,
        principal_bytes=settings.max_principal_file_bytes,
        node_bytes=settings.max_node_file_bytes,
        strangers_bytes=int(settings.strangers_share * settings.max_node_file_bytes),
        principal_files=settings.max_principal_files,
    )
    match settings.files:
        case "disk":
            return DiskFiles(
                limits, clock, settings.files_dir, is_kept=settings.files_keep, fair_name=fair_name
            )
        case "memory":
            return MemoryFiles(limits, clock, fair_name)
        case "off":
            return None
