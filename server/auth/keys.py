"""Keys that the settings name, and, in development, any key at all."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from unbroken.server.auth.base import Credentials, Grant, Unauthenticated
from unbroken.server.auth.principal import KEY, Principal

__all__ = ["DevelopmentAuthenticator", "KeyAuthenticator", "digest_of"]

_MAX_KEY_LENGTH: Final = 1024


class DevelopmentAuthenticator:
    """Takes any key, and knows its bearer again. Only ever for a server that listens on loopback.

    Short-lived keys are made there as anywhere, and those that weren't are refused as anywhere.
    """

    async def authenticate(self, credentials: Credentials) -> Grant:
        """See :meth:`Authenticator.authenticate`."""
        key = credentials.key
        if not key or len(key) > _MAX_KEY_LENGTH or key.startswith("ek_"):
            raise Unauthenticated
        user = "dev:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return Grant(Principal(user))


class KeyAuthenticator:
    """Knows keys by their SHA-256 digests. They need enough entropy: ``unbroken new-key`` makes them so.

    Args:
        keys: Pairs of a name, which becomes the principal's user, and a digest in hexadecimal.

    """

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        self._keys = [(name, bytes.fromhex(digest)) for name, digest in keys]

    async def authenticate(self, credentials: Credentials) -> Grant:
        """See :meth:`Authenticator.authenticate`."""
        digest = digest_of(credentials.key or "")
        found: str | None = None
        for name, known in self._keys:  # all of them, whichever matches
            if hmac.compare_digest(digest, known):
                found = name
        if found is None:
            raise Unauthenticated
        return Grant(Principal(user=f"{KEY}{found}"))


def digest_of(key: str) -> bytes:
    """Return the digest that *key* is known by. What is too long to be one is cut off, and is none."""
    return hashlib.sha256(key[:_MAX_KEY_LENGTH].encode("utf-8", "surrogatepass")).digest()
