"""Where sessions are, as the settings say: in this process's memory, or in a Redis that nodes share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unbroken.server.config import Settings, StartupError
from unbroken.server.quota.base import Ledger
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.cluster import Alone, Cluster
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.backends.tally import Tally
from unbroken.sessions.format import FORMAT_1, Format, Formats

if TYPE_CHECKING:
    from unbroken.sessions.backends.redis.connection import Client
    from unbroken.sessions.backends.redis.keys import Keys
    from unbroken.sessions.backends.redis.trouble import Trouble
    from unbroken.sessions.backends.redis.watch import Watch

__all__ = ["RedisState", "Stored", "build_store"]


@dataclass(frozen=True, slots=True)
class RedisState:
    """How it is reached, and what goes on there."""

    trouble: Trouble
    watch: Watch
    client: Client
    keys: Keys


@dataclass(frozen=True, slots=True)
class Stored:
    """A store, the nodes that share it, and how to let go of both."""

    store: SessionStore
    cluster: Cluster
    opened: Callable[[], AbstractAsyncContextManager[None]]
    """Returns an asynchronous context manager, in which they can be used.

    Raises:
        StartupError: They can't be reached. One line, with what to do.
    """
    redis: RedisState | None = None
    """What can be told of a Redis; None: there is none."""
    formats: Formats | None = None
    """In which nodes write what they share; None: they share nothing."""
    tally: Tally | None = None
    """What all nodes have; None: there is but this one."""
    ledger: Ledger | None = None
    """What all principals have used; None: as of this node."""


def build_store(settings: Settings, newest: Format = FORMAT_1, older: Format | None = None) -> Stored:
    """Return the store that *settings* describe. Nothing is connected yet.

    *newest* and *older* are the formats that this release reads.

    Raises:
        StartupError: It can't be had.

    """
    if settings.redis_url is None:
        return Stored(MemoryStore(), Alone(), _nothing)
    try:
        import redis  # noqa: F401 - to say what is missing before anything else does
    except ImportError:
        message = "UNBROKEN_REDIS_URL needs the Redis client. Install it: pip install 'unbroken[redis]'"
        raise StartupError(message) from None
    try:
        formats = Formats(newest, older, latest=settings.store_format)
    except ValueError as exc:
        raise StartupError(f"UNBROKEN_STORE_FORMAT={settings.store_format}: {exc}") from None
    return _redis(settings, settings.redis_url.get_secret_value(), formats)


def _redis(settings: Settings, url: str, formats: Formats) -> Stored:
    from unbroken.server.quota.redis import RedisLedger
    from unbroken.sessions.backends.redis.connection import Address, AddressError, connect
    from unbroken.sessions.backends.redis.keys import Bounds, Keys
    from unbroken.sessions.backends.redis.membership import RedisMembership
    from unbroken.sessions.backends.redis.store import RedisStore
    from unbroken.sessions.backends.redis.tally import RedisTally
    from unbroken.sessions.backends.redis.trouble import Trouble
    from unbroken.sessions.backends.redis.watch import Watch

    password = settings.redis_sentinel_password
    address = Address(
        url,
        timeout=settings.redis_timeout,
        connections=settings.redis_connections,
        ca_file=None if settings.redis_ca_file is None else str(settings.redis_ca_file),
        sentinel_password=None if password is None else password.get_secret_value(),
    )
    try:
        client = connect(address, name="unbroken")
        is_cluster = address.kind == "cluster"
    except AddressError as exc:
        raise StartupError(f"UNBROKEN_REDIS_URL: {exc}") from None
    keys = Keys(settings.redis_prefix)
    bounds = Bounds(lifetime=max(60, int(settings.session_idle_timeout)))
    trouble, watch = Trouble(), Watch(client)
    store = RedisStore(
        client,
        keys,
        bounds,
        formats=formats,
        trouble=trouble,
        is_cluster=is_cluster,
        connections=settings.redis_connections,
        patience=settings.redis_timeout,
    )

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        watching: asyncio.Task[None] | None = None
        try:
            await _check(client)
            watching = asyncio.create_task(watch.run())
            yield
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.wait([watching])
            await store.aclose()
            await client.aclose()

    membership = RedisMembership(client, keys, formats=formats, trouble=trouble, kept=bounds.lifetime)
    tally = RedisTally(client, keys, membership, patience=settings.redis_timeout, is_cluster=is_cluster)
    ledger = RedisLedger(client, settings.redis_prefix, patience=settings.redis_timeout)
    state = RedisState(trouble, watch, client, keys)
    return Stored(store, membership, opened, state, formats, tally, ledger)


async def _check(client: Any) -> None:
    """Find out whether Redis can be used, before anybody connects here."""
    from redis.exceptions import AuthenticationError, AuthorizationError, ResponseError

    from unbroken.sessions.backends.redis.connection import ERRORS

    try:
        await client.ping()
    except (AuthenticationError, AuthorizationError):
        message = "Redis refuses the user or the password. Correct them in UNBROKEN_REDIS_URL."
        raise StartupError(message) from None
    except ResponseError as exc:
        raise StartupError(f"Redis refuses: {str(exc)[:100]}. Check UNBROKEN_REDIS_URL.") from None
    except ERRORS as exc:
        message = (
            f"Redis can't be reached ({type(exc).__name__}). Start it, or correct UNBROKEN_REDIS_URL; "
            "without that, sessions are in memory."
        )
        raise StartupError(message) from None


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield
