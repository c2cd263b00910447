"""How it is found out who is speaking, as the settings say: on one node, or with what several share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unbroken.server.auth.base import Authenticator
from unbroken.server.auth.client_secrets import ClientSecrets
from unbroken.server.auth.directory import Directory, MemoryDirectory
from unbroken.server.auth.entrance import Entrance
from unbroken.server.auth.key_file import FileKeyStore
from unbroken.server.auth.key_store import KeyStore, KeyStoreUnusable, MemoryKeyStore
from unbroken.server.auth.keyring import Keyring
from unbroken.server.auth.keys import DevelopmentAuthenticator, KeyAuthenticator
from unbroken.server.auth.lapse import Lapses
from unbroken.server.auth.presence import Presence
from unbroken.server.auth.secret_pools import SecretBounds
from unbroken.server.auth.secret_store import MemorySecretStore, SecretStore
from unbroken.server.auth.tenant_plans import TenantPlans
from unbroken.server.config import Settings, StartupError, is_loopback
from unbroken.server.metrics import Metrics
from unbroken.server.resume import ResumeTokens
from unbroken.server.setting_values import plans_given
from unbroken.server.store_selection import RedisState
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import StoreUnavailable

if TYPE_CHECKING:
    from unbroken.server.auth.jwks import KeySet
    from unbroken.server.auth.redis.connection import Redis

__all__ = ["Auth", "build_auth", "key_store", "shared_redis"]


@dataclass(frozen=True, slots=True)
class Auth:
    """Everything about who is speaking."""

    authenticator: Authenticator
    secrets: ClientSecrets
    directory: Presence
    lapses: Lapses
    keyring: Keyring | None
    jwks: KeySet | None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Have it work meanwhile. What it shares is open already.

        Raises:
            StartupError: It can't.

        """
        await self._start()
        try:
            yield
        finally:
            if self.keyring is not None:
                await self.keyring.stop()
            if self.jwks is not None:
                await self.jwks.stop()

    async def _start(self) -> None:
        if self.jwks is not None:
            from unbroken.server.auth.jwks import JwksUnavailable

            try:
                await self.jwks.start()
            except JwksUnavailable as exc:
                raise StartupError(str(exc)) from None
        if self.keyring is not None:
            try:
                await self.keyring.start()
            except KeyStoreUnusable as exc:
                raise StartupError(str(exc)) from None
            except StoreUnavailable as exc:
                raise StartupError(f"The keys in Redis can't be read ({exc}). Is it reachable?") from None


def build_auth(
    settings: Settings, shared: RedisState | None, tokens: ResumeTokens, clock: Clock, metrics: Metrics
) -> Auth:
    """Return what *settings* describe, with what is *shared* with other nodes. Nothing is read yet.

    Raises:
        StartupError: It can't be had.

    """
    redis = None if shared is None else shared_redis(settings, shared)
    lapses = Lapses(clock)
    keys = key_store(settings, redis)
    keyring = None if keys is None else Keyring(keys, lapses, clock)
    jwks, jwt = _jwt(settings, clock, metrics)
    secrets = ClientSecrets(
        _secret_store(settings, redis, clock),
        tokens,
        keyring,
        clock,
        session_lifetime=settings.client_session_lifetime,
        plans=plans_given(settings.client_secret_plans),
    )
    entrance: Authenticator = Entrance(
        secrets,
        jwt,
        _keys(settings, keyring),
        in_browsers=settings.api_keys_in_browsers or _is_open(settings),
        takes_any=_is_open(settings),
    )
    if settings.tenant_plans:
        entrance = TenantPlans(entrance, dict(entry.split("=", 1) for entry in settings.tenant_plans))
    return Auth(entrance, secrets, Presence(_directory(settings, redis, clock)), lapses, keyring, jwks)


def key_store(settings: Settings, redis: Redis | None) -> KeyStore | None:
    """Return where API keys are kept that come and go; None: nowhere."""
    match settings.key_store:
        case "none":
            return None
        case "memory":
            return MemoryKeyStore()
        case "file":
            if settings.key_file is None:
                raise AssertionError("can't happen: the settings are refused without a file")
            return FileKeyStore(settings.key_file)
        case "redis":
            if redis is None:
                raise AssertionError("can't happen: the settings are refused without Redis")
            from unbroken.server.auth.redis.keys import RedisKeyStore

            return RedisKeyStore(redis)


def shared_redis(settings: Settings, shared: RedisState) -> Redis:
    """Return what nodes share, as this package asks it."""
    from unbroken.server.auth.redis.connection import Redis

    return Redis(shared.client, settings.redis_prefix, settings.redis_timeout)


def _directory(settings: Settings, redis: Redis | None, clock: Clock) -> Directory:
    if redis is None:
        return MemoryDirectory(clock)
    from unbroken.server.auth.redis.directory import RedisDirectory

    return RedisDirectory(redis, clock, idle=settings.session_idle_timeout)


def _secret_store(settings: Settings, redis: Redis | None, clock: Clock) -> SecretStore:
    bounds = SecretBounds(
        user=settings.client_secrets_per_user,
        user_bytes=settings.client_secrets_per_user_bytes,
        key=settings.client_secrets_per_key,
        key_bytes=settings.client_secrets_per_key_bytes,
        address=settings.client_secrets_per_address,
        address_bytes=settings.client_secrets_per_address_bytes,
        strangers=settings.client_secrets_of_strangers,
        strangers_bytes=settings.client_secrets_of_strangers_bytes,
        node=settings.max_client_secrets,
        node_bytes=settings.max_client_secret_bytes,
    )
    if redis is None:
        return MemorySecretStore(clock, bounds)
    from unbroken.server.auth.redis.secrets import RedisSecretStore

    return RedisSecretStore(redis, bounds)


def _is_open(settings: Settings) -> bool:
    """Whether any key is taken: nobody has said whose are."""
    return not settings.has_authentication


def _keys(settings: Settings, keyring: Keyring | None) -> tuple[Authenticator, ...]:
    if _is_open(settings):
        if not is_loopback(settings.host):
            raise AssertionError("can't happen: the settings are refused without keys beyond loopback")
        return (DevelopmentAuthenticator(),)
    pairs = [entry.partition(":") for entry in settings.api_keys]
    known = KeyAuthenticator([(name, digest) for name, _, digest in pairs])
    return (known,) if keyring is None else (known, keyring)


def _jwt(
    settings: Settings, clock: Clock, metrics: Metrics
) -> tuple[KeySet, Authenticator] | tuple[None, None]:
    if settings.jwt_jwks is None:
        return None, None
    try:
        from unbroken.server.auth.jwks import KeySet
        from unbroken.server.auth.jwt_tokens import JwtAuthenticator, JwtRules
    except ImportError:
        message = "UNBROKEN_JWT_JWKS needs PyJWT and cryptography. Install them: pip install 'unbroken[jwt]'"
        raise StartupError(message) from None
    fetches = metrics.jwks_fetches
    keys = KeySet(settings.jwt_jwks, clock, on_fetch=lambda outcome: fetches.labels(outcome).inc())
    rules = JwtRules(
        issuer=settings.jwt_issuer or "",
        audience=settings.jwt_audience,
        algorithms=settings.jwt_algorithms,
        leeway=settings.jwt_leeway,
        user_claim=settings.jwt_user_claim,
        tenant_claim=settings.jwt_tenant_claim,
        plan_claim=settings.jwt_plan_claim,
        scopes_claim=settings.jwt_scopes_claim,
    )
    return keys, JwtAuthenticator(rules, keys, clock)
