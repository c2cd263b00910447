"""A socket's transport, without the socket: it keeps what is written, and shows whether it is read."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["FakeTransport"]


class FakeTransport(asyncio.Transport):
    """Stands in for a TCP transport, or without *has_halves* for one of TLS."""

    def __init__(self, *, has_halves: bool = True) -> None:
        super().__init__()
        self.written = bytearray()
        self.has_ended = False
        """Our half has been closed."""
        self.is_closed = False
        self.is_aborted = False
        self._has_halves = has_halves
        self._is_reading = True
        self._protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_reading(self) -> bool:
        return self._is_reading

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.has_ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.is_closed:
            return  # as the real one, with a warning from the fifth time on
        self.written += data

    def can_write_eof(self) -> bool:
        return self._has_halves

    def write_eof(self) -> None:
        assert self._has_halves
        self.has_ended = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True
