"""What one connection may do."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ConnectionLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Bounds on one connection. The size of a frame is the transport's to check, before it is whole."""

    frame_depth: int = 32
    """How deeply an event may be nested."""
    input_queue: int = 64
    """Events that may wait to be taken; what comes beyond is refused."""
    close_timeout: float = 5.0
    """Seconds that a client which doesn't read is given to take the last frames."""
