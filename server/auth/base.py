"""The interface of whoever decides who is speaking.

::

    Exception
    +-- Unauthenticated     nothing valid was presented: one answer for all that is wrong
        +-- LongLivedKey    a key that is good for long came where only short-lived ones may
        +-- UnusedKey       a short-lived key, valid and unused, where there is no session to use it for
        +-- NoKey           where any key is taken, none was presented
        +-- UnknownSigner   what signed it isn't known yet, and couldn't be looked for
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

from unbroken.server.auth.pins import Pins
from unbroken.server.auth.principal import Principal
from unbroken.sessions.ids import SessionId

__all__ = [
    "Authenticator",
    "Credentials",
    "Grant",
    "KeyKind",
    "LongLivedKey",
    "NoKey",
    "Spend",
    "Unauthenticated",
    "UnknownSigner",
    "UnusedKey",
    "is_jwt",
]

Spend: TypeAlias = Callable[[SessionId], Awaitable[bool]]
"""Uses up what was presented, for a session. Returns whether it was still there to be used.

Raises:
    StoreUnavailable: That can't be found out for the moment.
"""


class Unauthenticated(Exception):
    """Nothing valid was presented. Never says what was wrong with it."""

    is_failure: ClassVar[bool] = True
    """Whether it counts as an attempt with a wrong key."""

    def __str__(self) -> str:
        return (
            "Present a valid key as `Authorization: Bearer <key>`, "
            "or from a browser as the subprotocol `openai-insecure-api-key.<key>`."
        )


class UnknownSigner(Unauthenticated):
    """It is signed with a key that isn't known, and that nobody could look for just now: it may be new."""

    is_failure: ClassVar[bool] = False


class UnusedKey(Unauthenticated):
    """A valid short-lived key, or a ticket, came to a door that begins no session with one."""

    is_failure: ClassVar[bool] = False

    def __str__(self) -> str:
        return (
            "Short-lived keys and tickets are for WebSockets: over HTTP, send one that was used for a "
            "session with `resume`, that session's token."
        )


class NoKey(Unauthenticated):
    """Nothing was presented to a server that takes any key."""

    def __str__(self) -> str:
        return (
            "Present a key as `Authorization: Bearer <key>`. Any will do: this server names none, for "
            "developing, and knows whoever shows the same one again."
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
    """Good for minutes, or with an end of its own: for pages."""

    @classmethod
    def of(cls, key: str) -> KeyKind:
        """Return the kind of *key*, be it valid or not."""
        return cls.SHORT_LIVED if key.startswith(("ek_", "tk_")) or is_jwt(key) else cls.API


def is_jwt(key: str) -> bool:
    """Return whether *key* has the form of a signed JSON Web Token (RFC 7515, section 7.1)."""
    return key.startswith("eyJ") and key.count(".") == 2


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client presented. The key is a secret: it is not shown."""

    key: str | None
    is_browser: bool
    """Whether the request says that a web page made it."""
    is_subprotocol: bool = False
    """Whether the key was offered as a subprotocol, as pages have to: they can't set headers."""
    ticket: str | None = None
    """What the query holds where clients can set nothing but an address. A secret too."""
    resume: str | None = None
    """The resume token that comes with it, unchecked. A secret too."""
    origin: str | None = None
    """Where the page comes from that made the request; None: no page made it."""

    def __repr__(self) -> str:
        return f"<Credentials key={'none' if self.key is None else '****'}>"


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody is let in with: who they are, and on which terms."""

    principal: Principal
    key_id: str | None = None
    """The API key that it all comes from: it ends when that is revoked. None: there is none to revoke."""
    pins: Pins | None = None
    """What its maker has settled of the sessions; None: nothing."""
    is_plan_given: bool = False
    """Whether its maker was to say by which plan it is: a plan of their tenant's doesn't replace that."""
    spend: Spend | None = None
    """Where it is good for so many sessions only: what uses it up, once the session is there."""


class Authenticator(Protocol):
    """Decides who is speaking."""

    async def authenticate(self, credentials: Credentials) -> Grant:
        """Return what *credentials* prove.

        Takes the same time for a wrong key as for a right one.

        Raises:
            Unauthenticated: They prove nothing.
            LongLivedKey: They may not be presented in this way.
            StoreUnavailable: Nobody can say for the moment.

        """
