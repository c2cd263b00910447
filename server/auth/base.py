"""The interface of whoever decides who is speaking.

::

    Exception
    +-- Unauthenticated     nothing valid was presented: one answer for all that is wrong
        +-- LongLivedKey    a key that is good for long came where only short-lived ones may
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from unbroken.server.auth.principal import Principal

__all__ = ["Authenticator", "Credentials", "KeyKind", "LongLivedKey", "Unauthenticated"]


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
