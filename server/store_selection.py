"""Where sessions are, as the settings say: in this process's memory, or in a Redis that nodes share."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from unbroken.server.config import Settings, StartupError
from unbroken.server.quota.base import Ledger
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.cluster import Alone, Cluster
from unbroken.sessions.backends.index import SessionIndex
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.backends.memory_index import MemoryIndex
from unbroken.sessions.backends.memory_outbox import MemoryOutbox
from unbroken.sessions.backends.outbox import Outbox, OutboxLimits
from unbroken.sessions.backends.tally import Tally
from unbroken.sessions.backends.walk import WalkThrough
from unbroken.sessions.format import FORMAT_1, Format, Formats

if TYPE_CHECKING:
    from unbroken.sessions.backends.redis.connection import Client
    from unbroken.sessions.backends.redis.keys import Keys
    from unbroken.sessions.backends.redis.kinship import Kinship
    from unbroken.sessions.backends.redis.trouble import Trouble
    from unbroken.sessions.backends.redis.watch import Watch

__all__ = ["RedisState", "Stored", "build_store"]

_CAUSES: Final = 16

_LEAST_PART: Final = 64 << 10
"""Bytes of one part of an outbox, of which there are many: less would hold no turn of some length."""


@dataclass(frozen=True, slots=True)
class RedisState:
    """How it is reached, and what goes on there."""

    trouble: Trouble
    watch: Watch
    client: Client
    keys: Keys
    kinship: Kinship


@dataclass(frozen=True, slots=True)
class Stored:
    """A store, the nodes that share it, and how to let go of both."""

    store: SessionStore
    cluster: Cluster
    index: SessionIndex
    """Whose sessions are there."""
    walk: WalkThrough
    """Looks through all of them: it may take long."""
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
    outbox: Outbox | None = None
    """Where turns go that have ended; None: nowhere, as there is no archive."""


def build_store(settings: Settings, newest: Format = FORMAT_1, older: Format | None = None) -> Stored:
    """Return the store that *settings* describe. Nothing is connected yet.

    *newest* and *older* are the formats that this release reads.

    Raises:
        StartupError: It can't be had.

    """
    if settings.redis_url is None:
        limits = OutboxLimits(part_bytes=settings.archive_outbox_bytes)
        outbox = None if settings.archive_url is None else MemoryOutbox(limits)
        memory = MemoryStore(outbox=outbox)
        return Stored(memory, Alone(), MemoryIndex(), memory.walk, _nothing, outbox=outbox)
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
    from unbroken.sessions.backends.redis.index import RedisIndex
    from unbroken.sessions.backends.redis.keys import BUCKETS, Bounds, Keys
    from unbroken.sessions.backends.redis.kinship import Kinship
    from unbroken.sessions.backends.redis.membership import RedisMembership
    from unbroken.sessions.backends.redis.outbox import RedisOutbox
    from unbroken.sessions.backends.redis.store import RedisStore
    from unbroken.sessions.backends.redis.tally import RedisTally
    from unbroken.sessions.backends.redis.trouble import Trouble
    from unbroken.sessions.backends.redis.walk import RedisWalk
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
    secret = b"" if settings.secret is None else settings.secret.get_secret_value().encode()
    kinship = Kinship(client, keys, secret)
    outbox: RedisOutbox | None = None
    if settings.archive_url is not None:
        limits = OutboxLimits(part_bytes=max(_LEAST_PART, settings.archive_outbox_bytes // BUCKETS))
        outbox = RedisOutbox(
            client,
            keys,
            limits,
            trouble=trouble,
            is_cluster=is_cluster,
            patience=settings.redis_timeout,
        )
    store = RedisStore(
        client,
        keys,
        bounds,
        formats=formats,
        trouble=trouble,
        is_cluster=is_cluster,
        connections=settings.redis_connections,
        patience=settings.redis_timeout,
        outbox=outbox,
    )

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        tasks: list[asyncio.Task[None]] = []
        try:
            await _check(client)
            await _check_kinship(kinship)
            tasks += [asyncio.create_task(watch.run()), asyncio.create_task(kinship.run())]
            yield
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await store.aclose()
            await client.aclose()

    membership = RedisMembership(client, keys, formats=formats, trouble=trouble, kept=bounds.lifetime)
    tally = RedisTally(client, keys, membership, patience=settings.redis_timeout, is_cluster=is_cluster)
    ledger = RedisLedger(client, settings.redis_prefix, patience=settings.redis_timeout)
    state = RedisState(trouble, watch, client, keys, kinship)
    index = RedisIndex(client, keys, bounds, trouble=trouble, patience=settings.redis_timeout)
    walk = RedisWalk(client, keys).through
    return Stored(store, membership, index, walk, opened, state, formats, tally, ledger, outbox)


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
            f"Redis can't be reached: {_cause(exc)}. Start it, or correct UNBROKEN_REDIS_URL; "
            "without that, sessions are in memory."
        )
        raise StartupError(message) from None


async def _check_kinship(kinship: Kinship) -> None:
    from unbroken.sessions.backends.redis.connection import ERRORS
    from unbroken.sessions.backends.redis.kinship import ForeignNodes

    try:
        await kinship.check()
    except ForeignNodes:
        raise StartupError(
            "Nodes with another UNBROKEN_SECRET are in this Redis. Give this one the same secret; or, if it "
            "isn't to share their sessions, another UNBROKEN_REDIS_PREFIX. A new secret can be had a minute "
            "after the last of them has ended."
        ) from None
    except ERRORS:
        pass  # whoever joins the others next finds out why nothing can be written, and says what to do


def _cause(error: BaseException) -> str:
    """Return why a connection couldn't be had, in words of ours: the client's may quote an address."""
    causes: list[BaseException] = []
    while len(causes) < _CAUSES and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__ or error
    for cause in reversed(causes):  # the first one of all says most
        match cause:
            case socket.gaierror():
                return "the name of its host is unknown"
            case ConnectionRefusedError():
                return "nothing listens at its address"
            case ssl.SSLCertVerificationError():
                return f"its certificate isn't trusted ({cause.verify_message}); see UNBROKEN_REDIS_CA_FILE"
            case ssl.SSLError():
                return "no TLS can be agreed on with what listens there"
            case FileNotFoundError() | PermissionError():
                return "a file that is named isn't there, or can't be read"
            case TimeoutError():
                return "it doesn't answer in time"
    name = type(causes[0]).__name__
    if name == "RedisClusterException":
        return "what listens there is no cluster, or can't be reached (RedisClusterException)"
    return name


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield
