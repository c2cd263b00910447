"""Keys that the settings name, and, in development, any key at all."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from unbroken.server.auth.base import Credentials, KeyKind, LongLivedKey, Unauthenticated
from unbroken.server.auth.principal import Principal

__all__ = ["DevelopmentAuthenticator", "KeyAuthenticator"]

_MAX_KEY_LENGTH: Final = 1024


class DevelopmentAuthenticator:
    """Takes any key, and knows its bearer again. Only ever for a server that listens on loopback."""

    async def authenticate(self, credentials: Credentials) -> Principal:
        """See :meth:`Authenticator.authenticate`."""
        key = credentials.key
        if not key or len(key) > _MAX_KEY_LENGTH:
            raise Unauthenticated
        return Principal(user="dev:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest())


class KeyAuthenticator:
    """Knows keys by their SHA-256 digests. They need enough entropy: ``unbroken new-key`` makes them so.

    Args:
        keys: Pairs of a name, which becomes the principal's user, and a digest in hexadecimal.
        in_browsers: Whether API keys are taken as subprotocols too.

    """

    def __init__(self, keys: Sequence[tuple[str, str]], *, in_browsers: bool = False) -> None:
        self._in_browsers = in_browsers
        self._keys = [(name, bytes.fromhex(digest)) for name, digest in keys]

    async def authenticate(self, credentials: Credentials) -> Principal:
        """See :meth:`Authenticator.authenticate`."""
        key = credentials.key or ""
        if credentials.is_subprotocol and not self._in_browsers and KeyKind.of(key) is KeyKind.API:
            raise LongLivedKey  # before any is compared: right and wrong ones are told the same
        presented = key[:_MAX_KEY_LENGTH].encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(presented).digest()
        found: str | None = None
        for name, known in self._keys:  # all of them, whichever matches
            if hmac.compare_digest(digest, known):
                found = name
        if found is None:
            raise Unauthenticated
        return Principal(user=f"key:{found}")
