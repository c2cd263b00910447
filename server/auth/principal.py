"""A principal: who is speaking, and what they may do here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

from unbroken.sessions.ids import PrincipalId

__all__ = [
    "ALL_SCOPES",
    "CLIENT_SECRETS",
    "DEFAULT_PLAN",
    "FILES",
    "KEY",
    "REALTIME",
    "STRANGERS",
    "Principal",
]

REALTIME: Final = "realtime"
"""May connect to sessions, and begin them."""

FILES: Final = "files"
"""May send files and read their own."""

CLIENT_SECRETS: Final = "client_secrets"
"""May make short-lived keys for pages."""

STRANGERS: Final = "strangers"
"""The tenant of all strangers, and of nobody else: what they do is counted apart."""

DEFAULT_PLAN: Final = "default"
"""The plan of whoever has none of their own, and the row of tables by plan that holds for all others."""

KEY: Final = "key:"
"""With this begins the user of a principal who is a key that names none; those of users begin otherwise."""

ALL_SCOPES: Final = frozenset({REALTIME, FILES, CLIENT_SECRETS})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is speaking."""

    user: str
    tenant: str = "default"
    plan: str = DEFAULT_PLAN
    scopes: frozenset[str] = ALL_SCOPES
    """What they may do. Whoever may do nothing that a door asks for is refused there."""
    expires_at: float | None = None
    """Until when they are believed, in seconds since the epoch. None: until they are taken off a list."""
    id: PrincipalId = field(init=False, compare=False)
    """One opaque, stable string for tenant and user, safe to log."""

    def __post_init__(self) -> None:
        digest = hashlib.sha256(f"{self.tenant}\0{self.user}".encode()).hexdigest()
        object.__setattr__(self, "id", PrincipalId(digest[:32]))

    @property
    def names_no_user(self) -> bool:
        """Whether this is an application's key, which may speak for all whom it serves."""
        return self.user.startswith(KEY)

    def by(self, plan: str | None) -> Principal:
        """Return the same, as they came by *plan*. None: nobody knows by which, so that it is this one's.

        One user may come by several at once, with keys of different plans: each policy goes by that of what
        it deals with, never by that of whoever came last.
        """
        return self if plan is None or plan == self.plan else replace(self, plan=plan)
