"""Compactions: what a conversation was summed up to, in the hands of its client.

A client keeps what a summary says, and this server nothing: so it is sealed for one principal, and good on
every node with the same secret. Nobody can write one, change one, or have another's read to a model. That it
can't be read has its use on the way: once it is part of a conversation, whoever may see that sees it.

The seal is made of what Python brings along: the text is masked by a stream of SHAKE-256, whose key is fresh
with each nonce, and HMAC-SHA-256 stands for all of it. Keys are drawn from the secret, for each principal and
each of both uses its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import Final

from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import PrincipalId

__all__ = ["MOST_BYTES", "Compactions"]

MOST_BYTES: Final = 16 * 1024
"""Of a summary's text. Sealed, it fits into one frame of a WebSocket, and leaves room."""

_LIFETIME: Final = 30 * 24 * 3600
"""Seconds for which one is good."""

_VERSION: Final = b"\x01"
_NONCE: Final = 16
_TAG: Final = 32
_TIME: Final = 6

_MOST_CHARACTERS: Final = (len(_VERSION) + _NONCE + _TIME + MOST_BYTES + _TAG) * 4 // 3 + 4
_FORM: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{_MOST_CHARACTERS}}}")


class Compactions:
    """Seals summaries, and opens them again.

    Args:
        secret: What keys are drawn from. Nodes that share it open each other's.
        clock: Where time comes from.

    """

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    def seal(self, text: str, principal: PrincipalId) -> str:
        """Return *text*, which has up to :data:`MOST_BYTES`, for *principal* alone. It is safe in a URL."""
        nonce = secrets.token_bytes(_NONCE)
        plain = int(self._clock.time()).to_bytes(_TIME, "big") + text.encode("utf-8", "replace")
        head = _VERSION + nonce + self._masked(plain, nonce, principal)
        return base64.urlsafe_b64encode(head + self._tag(head, principal)).rstrip(b"=").decode()

    def open(self, sealed: str, principal: PrincipalId) -> str | None:
        """Return what was sealed for *principal*; None: it wasn't, or long ago, or isn't as it was."""
        if _FORM.fullmatch(sealed) is None or len(sealed) % 4 == 1:
            return None
        data = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
        head, tag = data[:-_TAG], data[-_TAG:]
        if not hmac.compare_digest(tag, self._tag(head, principal)):
            return None
        if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != sealed:  # bits that say nothing are zeros
            return None
        if head[:1] != _VERSION:
            return None
        nonce = head[1 : 1 + _NONCE]
        plain = self._masked(head[1 + _NONCE :], nonce, principal)
        if self._clock.time() - int.from_bytes(plain[:_TIME], "big") > _LIFETIME:
            return None
        return plain[_TIME:].decode()

    def _masked(self, data: bytes, nonce: bytes, principal: PrincipalId) -> bytes:
        """Return *data* masked, or what was masked as it was: that is the same."""
        stream = hashlib.shake_256(self._key("mask", principal) + nonce).digest(len(data))
        mask = int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")
        return mask.to_bytes(len(data), "big")

    def _tag(self, head: bytes, principal: PrincipalId) -> bytes:
        return hmac.digest(self._key("tag", principal), head, hashlib.sha256)

    def _key(self, use: str, principal: PrincipalId) -> bytes:
        return hmac.digest(self._secret, f"compaction\0{use}\0{principal}".encode(), hashlib.sha256)
