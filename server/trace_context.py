"""Traces that requests belong to (W3C Trace Context, level 1): taken as they come, told to upstreams. No I/O.

The server makes no spans of its own: in a trace, an upstream's request is a child of the client's.
``tracestate`` is not passed on, which the recommendation allows (section 3.3).
"""

from __future__ import annotations

import re
import secrets
from typing import Final

__all__ = ["child_of", "taken", "trace_id_of"]

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

_MOST: Final = 512
"""Characters of a header of a later version that are read."""


def taken(header: str | None) -> str | None:
    """Return a ``traceparent`` as it is to be kept: of 55 characters, in version 00; None: it is void.

    Of a later version is read what version 00 has, as its section 3.2.4 wants it.
    """
    found = None if header is None or len(header) > _MOST else _FORM.fullmatch(header.strip(" \t"))
    if found is None:
        return None
    version, trace, parent, flags, more = found.groups()
    is_void = version == "ff" or not trace.strip("0") or not parent.strip("0")
    if is_void or (version == "00" and more is not None):
        return None
    sampled = int(flags, 16) & 1  # the one flag that has a meaning
    return f"00-{trace}-{parent}-0{sampled}"


def trace_id_of(traceparent: str) -> str:
    """Return the trace's id, of what :func:`taken` has returned."""
    return traceparent[3:35]


def child_of(traceparent: str) -> str:
    """Return the ``traceparent`` of a request that follows from the one that came with *traceparent*."""
    return f"{traceparent[:36]}{secrets.token_hex(8)}{traceparent[52:]}"
