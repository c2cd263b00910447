"""Who is speaking: from what a client presents to a :class:`Principal`.

Authentication returns the object that everything further needs; nothing behind
it accepts a raw key.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from unbroken.sessions.ids import PrincipalId

__all__ = [
    "Authenticator",
    "Credentials",
    "DevelopmentAuthenticator",
    "KeyAuthenticator",
    "KeyKind",
    "LongLivedKey",
    "Principal",
    "Unauthenticated",
]

_MAX_KEY_LENGTH: Final = 1024


class Unauthenticated(Exception):
    """Nothing valid was presented. Never says what was wrong with it."""

    def __str__(self) -> str:
        return (
            "Present a valid key as `Authorization: Bearer <key>`, "
            "or from a browser as the subprotocol `openai-insecure-api-key.<key>`."
        )


class LongLivedKey(Unauthenticated):
    """A key that is good for long came where only short-lived ones may: whoever has the page has it too.

    Says nothing of whether it is a valid one: that isn't looked at.
    """

    def __str__(self) -> str:
        return (
            "An API key doesn't belong in a web page: only short-lived keys, which begin with `ek_`, are "
            "taken as a subprotocol. Send the API key from a backend, as `Authorization: Bearer <key>`. "
            "To develop on loopback, the operator can set UNBROKEN_API_KEYS_IN_BROWSERS."
        )


class KeyKind(enum.Enum):
    """What a key is for. Its prefix says so, as OpenAI's do: nothing has to be looked up."""

    API = "api"
    """Good until it is taken off the list: for backends."""

    SHORT_LIVED = "short-lived"
    """Good for minutes: for pages."""

    @classmethod
    def of(cls, key: str) -> KeyKind:
        """Return the kind of *key*, be it valid or not."""
        return cls.SHORT_LIVED if key.startswith("ek_") else cls.API


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is speaking."""

    user: str
    tenant: str = "default"
    plan: str = "default"

    @property
    def id(self) -> PrincipalId:
        """One opaque, stable string for all of it, safe to log."""
        return PrincipalId(hashlib.sha256(f"{self.tenant}\0{self.user}".encode()).hexdigest()[:32])


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client presented. The key is a secret: it is not shown."""

    key: str | None
    is_browser: bool
    """Whether the request says that a web page made it."""
    is_subprotocol: bool = False
    """Whether the key was offered as a subprotocol, as pages have to: they can't set headers."""

    def __repr__(self) -> str:
        return f"<Credentials key={'none' if self.key is None else '****'}>"


class Authenticator(Protocol):
    """Decides who is speaking."""

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return the principal that *credentials* prove.

        Takes the same time for a wrong key as for a right one.

        Raises:
            Unauthenticated: They prove nothing.
            LongLivedKey: They may not be presented in this way.

        """


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
