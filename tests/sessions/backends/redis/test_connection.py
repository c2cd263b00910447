from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError

from tests.fakes.surroundings import free_port
from tests.fakes.tls import make_certificate
from tests.fakes.valkey import Server, redis_binary
from tests.sessions.backends.store_contract import LIFE, A
from unbroken.sessions.backends.redis.connection import (
    ERRORS,
    Address,
    AddressError,
    connect,
    is_watched,
    moves_of,
    unavailable,
)
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.store import RedisStore
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import new_session_id


async def create(address: Address) -> None:
    """Do what needs a connection."""
    client = connect(address, name="test")
    store = RedisStore(client, Keys("test"), Bounds())
    try:
        await store.create(new_session_id(), A, LIFE)
    finally:
        await store.aclose()
        await client.aclose()


class ClosedStream:
    """A stream of uvloop's, of whose end nobody has been told yet."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    def close(self) -> None:
        pass


def test_a_connection_that_is_closed_while_it_is_written_to_is_no_bug(valkey: Server) -> None:
    """uvloop's streams raise a RuntimeError then."""

    async def ping() -> Exception:
        client = connect(Address(valkey.url), name="test")
        assert isinstance(client, Redis)
        try:
            await client.ping()
            [connection] = client.connection_pool._available_connections
            assert connection._writer is not None
            connection._writer.transport.abort()
            try:
                await connection.send_command("PING")
            except Exception as exc:  # noqa: BLE001 - whatever it is
                return exc
        finally:
            await client.aclose()
        raise AssertionError("it could be written to")

    error = uvloop.run(ping())
    assert isinstance(error, ERRORS), repr(error)
    assert isinstance(unavailable(error), StoreUnavailable)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "rediss://127.0.0.1:6379/0",
        "unix:///valkey.sock",
        "redis+sentinel://127.0.0.1:26379/name",
        "rediss+sentinel://127.0.0.1:26379/name",
        "redis+cluster://127.0.0.1:6379",
        "rediss+cluster://127.0.0.1:6379",
    ],
)
async def test_so_it_is_on_every_kind_of_connection(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(Address(url), name="test")
    pools: list[Any]
    if isinstance(client, RedisCluster):
        pools = list(client.nodes_manager.startup_nodes.values())
        pools.append(ClusterNode("127.0.0.1", 6380, **client.nodes_manager.connection_kwargs))
    else:
        pools = [client.connection_pool]
        if isinstance(client.connection_pool, SentinelConnectionPool):
            pools += [each.connection_pool for each in client.connection_pool.sentinel_manager.sentinels]
    for pool in pools:
        connection = pool.connection_class(**pool.connection_kwargs)
        monkeypatch.setattr(connection, "_reader", object())
        monkeypatch.setattr(connection, "_writer", ClosedStream())
        with pytest.raises(ConnectionError):
            await connection.send_packed_command(b"PING")
        assert not connection.is_connected
    await client.aclose()


async def test_a_connection_that_is_closed_as_it_is_made_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of a cluster closes all of them when it learns anew who is there, whoever uses them."""

    async def closed_at_once(*_: object, **__: object) -> None:
        pass

    client = connect(Address("redis+cluster://127.0.0.1:6379"), name="test")
    assert isinstance(client, RedisCluster)
    (node,) = client.nodes_manager.startup_nodes.values()
    monkeypatch.setattr(node.connection_class, "connect_check_health", closed_at_once)
    with pytest.raises(ConnectionError):
        await node.connection_class(**node.connection_kwargs).send_packed_command(b"PING")
    await client.aclose()


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "valkey.sock"
    with Server(tmp_path / "data", None, "--unixsocket", str(path)).running():
        await create(Address(f"unix://{path}?db=0"))


async def test_a_user_with_a_password_of_odd_characters(valkey: Server) -> None:
    valkey.command("ACL", "SETUSER", "ada", "on", ">p/s#?@:w", "~test:*", "&test:*", "+@all")
    await create(Address(f"redis://ada:p%2Fs%23%3F%40%3Aw@127.0.0.1:{valkey.port}/0"))

    with pytest.raises(StoreUnavailable):
        await create(Address(f"redis://ada:wrong@127.0.0.1:{valkey.port}/0"))


async def test_tls_is_checked_against_the_authority_that_is_named(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    port = free_port()
    options = ("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-cert-file", str(made.chain))
    files = ("--tls-key-file", str(made.key), "--tls-ca-cert-file", str(made.chain))
    with Server(tmp_path / "data", redis_binary(), *options, *files).running():
        await create(Address(f"rediss://localhost:{port}/0", ca_file=str(made.chain)))
        with pytest.raises(StoreUnavailable):
            await create(Address(f"rediss://localhost:{port}/0"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://ada:se#cret@127.0.0.1:6379/0",
        "redis://ada:se/cret@127.0.0.1:6379/0",
        "redis+cluster://ada:se/cret@127.0.0.1:6379",
        "redis+sentinel://ada:se#cret@127.0.0.1:26379/name",
        "redis+sentinel://ada:se?cret@127.0.0.1:26379/name",
    ],
)
def test_an_address_that_can_t_be_understood_is_not_quoted(url: str) -> None:
    with pytest.raises(AddressError) as caught:
        connect(Address(url), name="test")
    assert "se" not in str(caught.value).replace("user", "").split()
    assert "cret" not in str(caught.value)
    assert "%23" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://host", "begins with redis://"),
        ("redis+cluster://", "names no host"),
        ("redis+sentinel://host:26379", "name of the service"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(url: str, told: str) -> None:
    with pytest.raises(AddressError, match=told):
        connect(Address(url), name="test")


def test_a_mistake_of_ours_is_not_taken_for_an_outage() -> None:
    from redis.exceptions import RedisClusterException, ResponseError

    assert unavailable(ResponseError("WRONGTYPE Operation against a key")) is None
    assert unavailable(TypeError("x")) is None
    assert unavailable(ResponseError("NOREPLICAS Not enough good replicas")) is not None
    assert unavailable(RedisClusterException("Redis Cluster cannot be connected")) is not None


class Sentinels:
    """What a client asks where the primary is."""

    def __init__(self, primary: Server) -> None:
        self.primary = primary
        self.asked = 0
        self._asking = 0
        self.most_at_once = 0

    async def discover_master(self, name: str) -> tuple[str, int]:
        self.asked += 1
        self._asking += 1
        self.most_at_once = max(self.most_at_once, self._asking)
        await asyncio.sleep(0)
        self._asking -= 1
        return "127.0.0.1", self.primary.port


def watched(sentinels: Sentinels, monkeypatch: pytest.MonkeyPatch) -> Redis:
    """Return a client of the server that *sentinels* name."""
    client = connect(Address("redis+sentinel://127.0.0.1:1/sessions"), name="test")
    assert isinstance(client, Redis)
    assert isinstance(client.connection_pool, SentinelConnectionPool)
    manager = client.connection_pool.sentinel_manager
    monkeypatch.setattr(manager, "discover_master", sentinels.discover_master)
    return client


async def port_of(client: Redis) -> int:
    """Return the port of the server that a call goes to."""
    return int((await client.info("server"))["tcp_port"])


async def popped(client: Redis, name: str) -> Any:
    """Wait on a connection of its own for an item of a list."""
    return await client.blpop([name], timeout=30)


async def test_no_call_goes_to_a_server_that_sentinels_name_no_more(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a connection that was in use as they named another, and whose call went well all the same."""
    with Server(tmp_path / "other").running() as other:
        sentinels = Sentinels(valkey)
        client = watched(sentinels, monkeypatch)
        assert is_watched(client)
        waits = [asyncio.create_task(popped(client, f"list{number}")) for number in range(2)]
        assert await port_of(client) == valkey.port
        assert await moves_of(client) == 0

        sentinels.primary = other
        assert await moves_of(client) == await moves_of(client) == 1
        assert await port_of(client) == other.port
        for number, wait in enumerate(waits):
            valkey.command("LPUSH", f"list{number}", "x")
            assert await wait is not None
        assert set(await asyncio.gather(*(port_of(client) for _ in range(5)))) == {other.port}
        await client.aclose()


async def test_sentinels_are_asked_once_by_all_who_connect_at_once(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's list of them doesn't bear two at it."""
    sentinels = Sentinels(valkey)
    client = watched(sentinels, monkeypatch)
    await asyncio.gather(*(client.ping() for _ in range(20)))
    assert sentinels.most_at_once == 1
    await client.aclose()


async def test_who_waits_for_what_sentinels_say_may_give_up(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentinels = Sentinels(valkey)
    client = watched(sentinels, monkeypatch)
    gives_up, waits = asyncio.create_task(moves_of(client)), asyncio.create_task(moves_of(client))
    await asyncio.sleep(0)
    gives_up.cancel()
    assert await waits == 0
    assert sentinels.asked == 1
    await client.aclose()


async def test_a_client_of_one_server_is_not_watched(valkey: Server) -> None:
    client = connect(Address(valkey.url), name="test")
    assert not is_watched(client)
    await client.aclose()
