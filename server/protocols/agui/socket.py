"""TanStack AI's framing of AG-UI over a WebSocket: its frames, both ways.

A frame is an event with its offset around it, ``{"id", "chunk"}``, or a bare event where that isn't of a
response. The other way it is a run that is asked for, or the end of one.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from unbroken.server.protocols.agui.decode import Run, run_of
from unbroken.server.protocols.agui.frames import RunParam
from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.items import DecodeError, check_name
from unbroken.server.protocols.nesting import too_deep

__all__ = ["PING", "Abort", "Said", "Unsaid", "decode_frame", "framed"]

PING: Final = b'{"type":"ping"}'
"""A sign of life, which clients skip."""


class _Head(Struct, frozen=True, rename="camel"):
    """As much as can be said of any frame."""

    type: Any = None
    run_id: Any = None


class Abort(Struct, frozen=True):
    """A run is to be stopped."""

    run_id: str


Said: TypeAlias = Run | Abort

_RUN: Final = msgspec.json.Decoder(RunParam)


class Unsaid(DecodeError):
    """A frame can't be taken. It is said of the run that it named; None: it named none."""

    def __init__(self, error: DecodeError, run_id: str | None) -> None:
        super().__init__(error.code, error.message, param=error.param)
        self.run_id = run_id


def decode_frame(data: str | bytes, *, max_depth: int) -> Said:
    """Return what a frame says.

    Raises:
        Unsaid: It says nothing that can be done.

    """
    run_id: str | None = None
    try:
        if isinstance(data, bytes):
            raise DecodeError("binary_frame", "Send text frames: this protocol has no binary ones.")
        raw = data.encode("utf-8", "surrogatepass")
        if (why := too_deep(raw, max_depth, "The frame")) is not None:
            raise DecodeError("invalid_json", why)
        try:
            head = msgspec.json.decode(raw, type=_Head)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise DecodeError("invalid_json", "The frame isn't a JSON object.") from None
        if isinstance(head.run_id, str):
            check_name(head.run_id, "runId", None)
            run_id = head.run_id
        if head.type == "abort" and run_id is not None:
            return Abort(run_id)
        return run_of(decoded(raw, _RUN, max_depth=max_depth))
    except DecodeError as exc:
        raise Unsaid(exc, run_id) from None


def framed(offset: bytes, event: bytes) -> bytes:
    """Return an event with its offset around it."""
    return b'{"id":"%b","chunk":%b}' % (offset, event)
