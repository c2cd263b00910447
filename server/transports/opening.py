"""The opening handshake as nearly every client sends it, read without parsing it once more.

uvicorn writes a request that its HTTP parser has taken apart out again, for
``websockets`` to parse it a second time, which takes as long as all the rest of
a handshake. What is read here is a valid handshake (RFC 6455, 4.2.1) without
anything unusual in it. Whatever isn't goes the long way, and is refused there, or not.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha1
from typing import Final

from msgspec import Struct

__all__ = ["Opening", "answer"]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_KEY_LENGTH: Final = 24
_MOST_HEADERS: Final = 128
_LONGEST_LINE: Final = 8000
"""Bytes; ``websockets`` takes 8,192 with what separates its parts."""

_ONCE: Final = frozenset(
    {b"connection", b"upgrade", b"sec-websocket-key", b"sec-websocket-version", b"origin", b"host"}
)
_UNUSUAL: Final = frozenset({b"transfer-encoding", b"content-length", b"expect"})

_TOKENS: Final = re.compile(rb"{0}(?:[ \t]*,[ \t]*{0})*".replace(b"{0}", rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+"))
"""A list without empty places (RFC 9110, 5.6)."""

_Headers = list[tuple[bytes, bytes]]


class Opening(Struct, frozen=True):
    """A valid handshake."""

    target: bytes
    """Path and query, as sent."""
    headers: _Headers
    """Names in lower case, values without space around them."""
    accept: bytes
    """What proves to the client that its handshake was understood."""
    subprotocols: list[str]

    @classmethod
    def of(cls, method: bytes, version: str, target: bytes, headers: _Headers) -> Opening | None:
        """Return the handshake that an HTTP parser has taken apart; None: it is unusual, or none."""
        if method != b"GET" or version != "1.1" or not target.isascii() or len(target) > _LONGEST_LINE:
            return None
        if len(headers) > _MOST_HEADERS:
            return None
        found: dict[bytes, bytes] = {}
        offered: list[str] = []
        for name, value in headers:
            if name in _UNUSUAL or len(name) + len(value) > _LONGEST_LINE or value.strip(b" \t") != value:
                return None
            if name in _ONCE:
                if name in found:
                    return None
                found[name] = value
            elif name == b"sec-websocket-protocol":
                if _TOKENS.fullmatch(value) is None:
                    return None
                offered += [token.strip() for token in value.decode("latin-1").split(",")]
        key = found.get(b"sec-websocket-key", b"")
        if (
            found.get(b"sec-websocket-version") != b"13"
            or found.get(b"upgrade", b"").lower() != b"websocket"
            or found.get(b"connection", b"").lower() not in (b"upgrade", b"keep-alive, upgrade")
            or not _is_key(key)
        ):
            return None
        accept = b64encode(sha1(key + _GUID, usedforsecurity=False).digest())
        return cls(target, headers, accept, offered)


def _is_key(key: bytes) -> bool:
    try:
        return len(key) == _KEY_LENGTH and len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except binascii.Error:
        return False


def answer(accept: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the answer to a handshake (RFC 6455, 4.2.2), with *headers* beside its own."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        accept,
        b"\r\n",
    ]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
