"""What of a server's settings, and of its parts, the document depends on."""

from __future__ import annotations

from dataclasses import dataclass

from unbroken.server.config import Settings
from unbroken.server.openapi.operation import JSON, Body, ref

__all__ = ["Terms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a server is set up, as far as who asks it notices."""

    settings: Settings
    has_files: bool
    """Whether it keeps files."""
    has_quotas: bool
    """Whether it counts what is used."""

    def body(self, name: str) -> Body:
        """Return a body that is JSON as the schema *name* says, within the settings' bounds."""
        most, depth = self.settings.max_body_bytes, self.settings.max_frame_depth
        return Body(content={JSON: ref(name)}, description=f"Up to {most} bytes, {depth} levels deep.")
