"""What an operator may want of an API key, whether on the command line or over HTTP.

::

    Exception
    +-- BadKeyRequest       it can't be had: which field is wrong, and what it should be
"""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import Struct

from unbroken.server.auth.key_store import KeyRecord, new_key
from unbroken.server.auth.principal import ALL_SCOPES, STRANGERS
from unbroken.server.plan_tables import PLAN_NAME, is_plan_name

__all__ = ["BadKeyRequest", "KeyRequest", "key_fields"]

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LONGEST: Final = 10 * 366 * 86_400


class BadKeyRequest(Exception):
    """It can't be had."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class KeyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a key is to be."""

    name: str
    tenant: str = "default"
    user: str | None = None
    plan: str = "default"
    scopes: tuple[str, ...] | None = None
    expires_in: float | None = None
    """Seconds."""

    def made(self, now: float) -> tuple[str, KeyRecord]:
        """Return a fresh key, and what to keep of it.

        Raises:
            BadKeyRequest: It can't be had.

        """
        for field, value in (("name", self.name), ("tenant", self.tenant)):
            if _NAME.fullmatch(value) is None:
                raise BadKeyRequest(
                    field, f"`{field}` should be 1 to 64 letters, digits, dots, dashes or underscores."
                )
        if self.tenant == STRANGERS:
            raise BadKeyRequest("tenant", f"`tenant` can't be {STRANGERS}: that is of those without a key.")
        if not is_plan_name(self.plan):
            raise BadKeyRequest("plan", f"`plan` should be {PLAN_NAME}.")
        if self.user is not None and not (0 < len(self.user) <= 256 and self.user.isprintable()):
            raise BadKeyRequest("user", "`user` should be up to 256 printable characters.")
        scopes = ALL_SCOPES if self.scopes is None else frozenset(self.scopes)
        if not scopes or not scopes <= ALL_SCOPES:
            raise BadKeyRequest("scopes", f"`scopes` should be some of {', '.join(sorted(ALL_SCOPES))}.")
        if self.expires_in is not None and not 1 <= self.expires_in <= _LONGEST:
            raise BadKeyRequest("expires_in", "`expires_in` should be seconds, up to ten years' worth.")
        return new_key(
            self.name,
            now=now,
            tenant=self.tenant,
            user=self.user,
            plan=self.plan,
            scopes=scopes,
            expires_at=None if self.expires_in is None else now + self.expires_in,
        )


def key_fields(record: KeyRecord, used: float | None) -> dict[str, Any]:
    """Return what an operator is shown of a key: no digest, and never the key."""
    return {
        "id": record.id,
        "object": "key",
        "name": record.name,
        "tenant": record.tenant,
        "user": record.user,
        "plan": record.plan,
        "scopes": list(record.scopes),
        "created_at": int(record.created_at),
        "expires_at": None if record.expires_at is None else int(record.expires_at),
        "last_used_at": None if used is None else int(used),
    }
