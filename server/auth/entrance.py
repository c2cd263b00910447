"""Which of the ways to prove who one is, what is presented belongs to."""

from __future__ import annotations

from unbroken.server.auth.base import (
    Authenticator,
    Credentials,
    Grant,
    KeyKind,
    LongLivedKey,
    NoKey,
    Unauthenticated,
    is_jwt,
)

__all__ = ["Entrance"]


class Entrance:
    """Asks the authenticator that what is presented is for: its form says which.

    Args:
        secrets: For short-lived keys, and tickets.
        jwt: For JSON Web Tokens; None: they aren't taken.
        keys: For all other keys, in the order in which they are asked.
        in_browsers: Whether API keys are taken as subprotocols too.
        takes_any: Whether any key is taken: who shows none is told so.

    """

    def __init__(
        self,
        secrets: Authenticator,
        jwt: Authenticator | None,
        keys: tuple[Authenticator, ...],
        *,
        in_browsers: bool = False,
        takes_any: bool = False,
    ) -> None:
        self._secrets = secrets
        self._jwt = jwt
        self._keys = keys
        self._in_browsers = in_browsers
        self._takes_any = takes_any

    async def authenticate(self, credentials: Credentials) -> Grant:
        """See :meth:`Authenticator.authenticate`."""
        key = credentials.key
        if key is None and credentials.ticket is None and self._takes_any:
            raise NoKey
        if key is None:
            return await self._secrets.authenticate(credentials)
        if key.startswith("ek_"):
            try:
                return await self._secrets.authenticate(credentials)
            except Unauthenticated:
                pass  # the settings may name keys of this form too
        if self._jwt is not None and is_jwt(key):
            return await self._jwt.authenticate(credentials)
        if credentials.is_subprotocol and not self._in_browsers and KeyKind.of(key) is KeyKind.API:
            raise LongLivedKey  # before any is compared: right and wrong ones are told the same
        for authenticator in self._keys:
            try:
                return await authenticator.authenticate(credentials)
            except Unauthenticated:
                continue
        raise Unauthenticated
