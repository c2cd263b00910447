"""How Redis is reached: one server, a server that Sentinels name, or a cluster.

Addresses: ``redis://`` and ``rediss://`` (with TLS) with user, password and
database as redis-py has them; ``unix://``; ``redis+sentinel://host:port,host:port/name``;
``redis+cluster://host:port,host:port``; the last two with an ``s`` behind
``redis`` for TLS.

Nothing that writes is ever sent twice by the client: after an error, what was
asked for may have taken effect, and only who asked knows how to find out.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

from msgspec import Struct
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    ConnectionError,
    MasterDownError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
)

from unbroken.sessions.backends.redis.client import BriefClient, BriefConnection, BriefPool
from unbroken.sessions.backends.redis.cluster_client import CalmCluster, CalmConnection
from unbroken.sessions.backends.redis.places import TooManyCalls
from unbroken.sessions.backends.redis.scripts import HalfMoved, SlotDown
from unbroken.sessions.errors import StoreBusy, StoreUnavailable

__all__ = [
    "ERRORS",
    "RESERVED",
    "Address",
    "AddressError",
    "Client",
    "connect",
    "is_of_a_slot",
    "is_watched",
    "moves_of",
    "server_of",
    "unavailable",
]

Client = Redis | RedisCluster

ERRORS: Final = (RedisError, RedisClusterException, OSError)
"""What a client raises. The second isn't one of the first."""

RESERVED: Final = 14
"""Connections beside those for calls: for what this node is told and tells, who else is there, how many
connections and responses there are of whom, who is speaking, what sessions are suspected of, what was
answered before, and what is done in the background."""

_UNREACHABLE: Final = (
    ConnectionError,
    TimeoutError,
    BusyLoadingError,
    ClusterDownError,
    HalfMoved,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    SlotDown,
    OSError,
)

_PASSING: Final = (
    "OOM",
    "MISCONF",
    "LOADING",
    "READONLY",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "NOREPLICAS",
    "UNKILLABLE",
    "BUSY",
)
"""What a server begins errors with that are over some time."""

_MALFORMED: Final = (
    "The address of Redis can't be understood. It looks like redis://user:password@host:6379/0, where "
    "characters such as / # ? @ in the password are written as %2F %23 %3F %40."
)

_DEFAULT_PORTS: Final = {"sentinel": 26379, "cluster": 6379}


class AddressError(ValueError):
    """The address names nothing that can be reached; the text says what to write."""


class Address(Struct, frozen=True):
    """Where the sessions are."""

    url: str
    timeout: float = 2.0
    """Seconds after which a call is given up."""
    connections: int = 16
    """How many there may be at once for calls; a few are beside. In a cluster, to each server."""
    ca_file: str | None = None
    """The authority that TLS certificates have to be signed by; None: those of the system."""
    sentinel_password: str | None = None

    @property
    def kind(self) -> str:
        """``server``, ``sentinel`` or ``cluster``.

        Raises:
            AddressError: It is none of them.

        """
        scheme = self.url.partition("://")[0]
        match scheme:
            case "redis" | "rediss" | "unix":
                return "server"
            case "redis+sentinel" | "rediss+sentinel":
                return "sentinel"
            case "redis+cluster" | "rediss+cluster":
                return "cluster"
            case _:
                raise AddressError(
                    "The address of Redis begins with redis://, rediss:// (TLS), unix://, redis+sentinel:// "
                    f"or redis+cluster://, not {scheme + '://' if scheme != self.url else 'as this one'}."
                )


class _WatchedPool(SentinelConnectionPool):
    """Keeps no connection to a server that isn't the primary any more, once the Sentinels say so.

    The client keeps those that are in use then. If that server was but slow, their calls go well, and so do
    the next ones on them, until it is made a replica, and what they wrote is lost. Nor does the client close
    its connections to Sentinels; and of several calls that ask them at once, each takes its turn of their
    list, and one of them may be on it no more, another twice.
    """

    moves = 0
    """How often another server has become the primary."""
    _asking: asyncio.Task[tuple[str, int]] | None = None

    async def get_master_address(self) -> tuple[str, int]:
        """Return where the Sentinels say that the primary is. Who asks meanwhile waits for the same."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._note_answer)
        return await asyncio.shield(self._asking)

    async def _ask(self) -> tuple[str, int]:
        before = self.master_address
        try:
            address: tuple[str, int] = await super().get_master_address()  # type: ignore[no-untyped-call]
            return address
        finally:
            self.moves += before not in (None, self.master_address)

    def _note_answer(self, task: asyncio.Task[tuple[str, int]]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # whoever waits for it is told; perhaps nobody does any more

    async def release(self, connection: Any) -> None:
        """Take a connection back; close it if it is to another server than the primary."""
        if (connection.host, connection.port) != self.master_address:
            connection.mark_for_reconnect()
        await super().release(connection)

    async def aclose(self) -> None:
        """Disconnect from all."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        await super().aclose()
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()


def _brief(connection: type[Any]) -> type[Any]:
    return type(connection.__name__, (BriefConnection, connection), {})


def connect(address: Address, *, name: str) -> Client:
    """Return a client, which connects when it is first used. *name* is what the server lists it as.

    Raises:
        AddressError: The address can't be understood.

    """
    common: dict[str, Any] = {
        "client_name": name,
        "socket_timeout": address.timeout,
        "socket_connect_timeout": address.timeout,
        "health_check_interval": 0,
    }
    if not address.url.startswith("unix:"):
        common["socket_keepalive"] = True
    kind = address.kind
    if kind == "server":
        return _server(address, common)
    hosts, parts = _hosts(address, _DEFAULT_PORTS[kind])
    credentials: dict[str, Any] = {
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
    }
    tls = {"ssl": True, **_tls(address)} if parts.scheme.startswith("rediss") else {}
    if kind == "cluster":
        cluster = CalmCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in hosts],
            max_connections=address.connections + RESERVED,
            retry=Retry(NoBackoff(), 0),
            # A call that is told where its slot has moved goes there. Else, at each fifth time, the client
            # would close all connections, to all servers, with the calls that are under way on them.
            reinitialize_steps=0,
            **common,
            **credentials,
            **tls,
        )
        known = cluster.nodes_manager
        of_cluster = known.connection_kwargs["connection_class"]
        of_cluster = type(of_cluster.__name__, (CalmConnection, _brief(of_cluster)), {})
        known.connection_kwargs["connection_class"] = of_cluster  # of the servers that it comes to know
        for node in known.startup_nodes.values():
            node.connection_class = of_cluster
        return cluster
    service = parts.path.strip("/")
    if not service:
        raise AddressError("An address of Sentinels ends with the name of the service: .../mymaster")
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        hosts,
        sentinel_kwargs={"password": address.sentinel_password, **common, **tls},
        **common,
        **credentials,
    )
    pool = _WatchedPool(  # type: ignore[no-untyped-call]
        service,
        sentinel,
        max_connections=address.connections + RESERVED,
        retry=Retry(NoBackoff(), 0),
        **common,
        **credentials,
        **tls,
    )
    for own in (pool, *(each.connection_pool for each in sentinel.sentinels)):
        own.connection_class = _brief(own.connection_class)
    return BriefClient.from_pool(pool)


def _server(address: Address, common: dict[str, Any]) -> Redis:
    tls = _tls(address) if address.url.startswith("rediss://") else {}
    try:
        pool = BriefPool.from_url(
            address.url,
            max_connections=address.connections + RESERVED,
            timeout=address.timeout,
            retry=Retry(NoBackoff(), 0),
            **common,
            **tls,
        )
    except ValueError:  # whose text may quote a password
        raise AddressError(_MALFORMED) from None
    if not address.url.startswith("unix:"):
        database = urlsplit(address.url).path.strip("/")
        if database and not database.isdecimal():  # which the client would take for 0
            raise AddressError("An address of Redis ends with the number of a database, such as .../0")
    pool.connection_class = _brief(pool.connection_class)
    return BriefClient.from_pool(pool)


def _tls(address: Address) -> dict[str, Any]:
    return {} if address.ca_file is None else {"ssl_ca_certs": address.ca_file}


def _hosts(address: Address, port: int) -> tuple[list[tuple[str, int]], Any]:
    """Return the hosts of an address that may have several, and its parts."""
    scheme, _, rest = address.url.partition("://")
    authority, slash, path = rest.partition("/")
    before, _, hosts = authority.rpartition("@")
    names = [host for host in hosts.split(",") if host]
    if not names:
        raise AddressError("The address of Redis names no host.")
    found: list[tuple[str, int]] = []
    for name in names:
        try:
            split = urlsplit(f"//{name}")
            found.append((split.hostname or "", split.port or port))
        except ValueError:
            raise AddressError(_MALFORMED) from None
    first = f"{before}@{names[0]}" if before else names[0]
    try:
        parts = urlsplit(f"{scheme}://{first}{slash}{path}")
        parts.port  # noqa: B018 - raises for one that is none
    except ValueError:
        raise AddressError(_MALFORMED) from None
    return found, parts


def server_of(client: Client, key: str) -> str:
    """Return the name of the server that holds *key* now; empty: there is but one, or none is known."""
    if not isinstance(client, RedisCluster):
        return ""
    try:
        node = client.get_node_from_key(key)
    except RedisClusterException:
        return ""
    return "" if node is None else str(node.name)


def is_watched(client: Client) -> bool:
    """Return whether Sentinels tell where *client*'s server is."""
    return isinstance(client, Redis) and isinstance(client.connection_pool, _WatchedPool)


async def moves_of(client: Client) -> int:
    """Ask the Sentinels, and return how often another server has become the primary: later calls go there.

    Else a client asks when a connection breaks: those to a server that was but slow don't, until it is told.

    Raises:
        RedisError: They can't be asked, or know none.

    """
    assert is_watched(client)
    pool = cast(_WatchedPool, cast(Redis, client).connection_pool)
    await pool.get_master_address()
    return pool.moves


def is_of_a_slot(error: Exception) -> bool:
    """Return whether a client's *error* is one of the slot that was asked for, while its servers are well."""
    # The latter: it was sent from the one to the other for too often, each saying that the other has it.
    return isinstance(error, HalfMoved) or type(error) is ClusterError


def unavailable(error: Exception) -> StoreUnavailable | None:
    """Return what to raise for a client's *error*: None if it is a bug of ours, not a state of the server."""
    if isinstance(error, TooManyCalls | MaxConnectionsError):
        return StoreBusy(type(error).__name__)
    if isinstance(error, AuthenticationError):
        return StoreUnavailable("AuthenticationError")
    if isinstance(error, _UNREACHABLE):
        return StoreUnavailable(type(error).__name__)
    if isinstance(error, NoPermissionError) or str(error).startswith("ACL failure in script"):
        return StoreUnavailable("NoPermissionError")
    if isinstance(error, ResponseError) and str(error).startswith(_PASSING):
        return StoreUnavailable(str(error).partition(" ")[0])
    if isinstance(error, RedisError) and not isinstance(error, ResponseError):
        return StoreUnavailable(type(error).__name__)
    return None
