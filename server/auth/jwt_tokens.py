"""JSON Web Tokens (RFC 7519) of somebody else's, who says who is speaking. Practices: RFC 8725."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import jwt

from unbroken.server.auth.base import Credentials, Grant, LongLivedKey, Unauthenticated, UnknownSigner
from unbroken.server.auth.jwks import JwksUnavailable, KeySet, NotLookedFor, SigningKey
from unbroken.server.auth.principal import ALL_SCOPES, STRANGERS, Principal
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["JwtAuthenticator", "JwtRules"]

_MOST_BYTES: Final = 8192
_MOST_NAME: Final = 256
_IN_BROWSERS: Final = 3600.0
"""Seconds that a token may still be good for that a page presents: whoever has the page has it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRules:
    """Which tokens are believed, and what of them says what. An empty name of a claim: none does."""

    issuer: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...]
    leeway: float = 30.0
    """Seconds by which clocks may differ."""
    user_claim: str = "sub"
    tenant_claim: str = ""
    plan_claim: str = ""
    scopes_claim: str = ""


class JwtAuthenticator:
    """An :class:`~unbroken.server.auth.base.Authenticator` for tokens that *keys* have signed."""

    def __init__(self, rules: JwtRules, keys: KeySet, clock: Clock) -> None:
        self._rules = rules
        self._keys = keys
        self._clock = clock

    async def authenticate(self, credentials: Credentials) -> Grant:
        """See :meth:`Authenticator.authenticate`."""
        token = credentials.key or ""
        if len(token) > _MOST_BYTES:
            raise Unauthenticated
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid")
            if algorithm not in self._rules.algorithms or not isinstance(kid, str | None):
                raise Unauthenticated
            keys = await self._keys.find(kid)
            claims = self._verified(token, keys, str(algorithm))
        except JwksUnavailable as exc:
            raise StoreUnavailable(str(exc)) from None
        except NotLookedFor:
            raise UnknownSigner from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Unauthenticated from None
        principal = self._principal(claims)
        ends = principal.expires_at
        if credentials.is_subprotocol and ends is not None and ends - self._clock.time() > _IN_BROWSERS:
            raise LongLivedKey
        return Grant(principal)

    def _verified(self, token: str, keys: Sequence[SigningKey], algorithm: str) -> dict[str, Any]:
        rules = self._rules
        claims = self._signed(token, keys, algorithm)
        now = self._clock.time()
        if not _number(claims["exp"]) > now - rules.leeway:
            raise Unauthenticated
        if any(_number(claims[name]) > now + rules.leeway for name in ("nbf", "iat") if name in claims):
            raise Unauthenticated
        return claims

    def _signed(self, token: str, keys: Sequence[SigningKey], algorithm: str) -> dict[str, Any]:
        """Return what a token says that one of *keys* has signed."""
        for key in keys:
            if key.algorithm not in (None, algorithm):
                continue
            with suppress(
                jwt.InvalidSignatureError, jwt.InvalidKeyError, TypeError
            ):  # it may be the next one
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.key,
                    algorithms=[algorithm],
                    audience=self._rules.audience,
                    issuer=self._rules.issuer,
                    # What has an end or a beginning is looked at by this server's clock.
                    options={
                        "require": ["exp", "iss", "aud"],
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
                return claims
        raise Unauthenticated

    def _principal(self, claims: dict[str, Any]) -> Principal:
        rules = self._rules
        user = _named(claims, rules.user_claim)
        if user is None:
            raise Unauthenticated
        scopes = ALL_SCOPES
        if rules.scopes_claim:
            said = claims.get(rules.scopes_claim, "")
            # RFC 8693, section 4.2: a string with spaces; some say it as a list.
            words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
            scopes = ALL_SCOPES & {word for word in words if isinstance(word, str)}
        return Principal(
            f"user:{user}",
            self._tenant(claims),
            self._of(claims, rules.plan_claim),
            scopes,
            _number(claims["exp"]) + rules.leeway,
        )

    def _tenant(self, claims: dict[str, Any]) -> str:
        tenant = self._of(claims, self._rules.tenant_claim)
        if tenant == STRANGERS:  # who has a token is none
            raise Unauthenticated
        return tenant

    @staticmethod
    def _of(claims: dict[str, Any], claim: str) -> str:
        """Return what a claim says that has to be there if it is asked for: a tenant isn't to be guessed."""
        if not claim:
            return "default"
        found = _named(claims, claim)
        if found is None:
            raise Unauthenticated
        return found


def _named(claims: dict[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_NAME or not value.isprintable():
        return None
    return value


def _number(value: object) -> float:
    """Return a time that a claim says. JSON has numbers of any size, and Python reads more than JSON has."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise Unauthenticated
    return float(value)
