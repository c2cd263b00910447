"""Which of the ways to prove who one is, what is presented belongs to."""

from __future__ import annotations

from unbroken.server.auth.base import (
    Authenticator,
    Credentials,
    Grant,
    KeyKind,
    LongLivedKey,
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

    """

    def __init__(
        self,
        secrets: Authenticator,
        jwt: Authenticator | None,
        keys: tuple[Authenticator, ...],
        *,
        in_browsers: bool = False,
    ) -> None:
        self._secrets = secrets
        self._jwt = jwt
        self._keys = keys
        self._in_browsers = in_browsers

    async def authenticate(self, credentials: Credentials) -> Grant:
        """See :meth:`Authenticator.authenticate`."""
        key = credentials.key
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
