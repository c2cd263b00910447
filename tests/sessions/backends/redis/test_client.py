"""What is left out of redis-py's client does no harm, and what it relies on is there."""

from __future__ import annotations

import asyncio
import enum
import signal
from collections.abc import Callable

import pytest
from redis.asyncio import Connection
from redis.exceptions import ConnectionError, DataError, ResponseError

from tests.fakes.valkey import Server
from unbroken.sessions.backends.redis.client import BriefClient, BriefConnection, BriefPool
from unbroken.sessions.backends.redis.connection import RESERVED, Address, connect


class Kind(enum.StrEnum):
    A = "a"


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)


def client_of(valkey: Server, *, connections: int = 16) -> BriefClient:
    client = connect(Address(valkey.url, connections=connections), name="test")
    assert isinstance(client, BriefClient)
    return client


def pool_of(client: BriefClient) -> BriefPool:
    pool = client.connection_pool
    assert isinstance(pool, BriefPool)
    return pool


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "key"),
        ("CLIENT SETNAME", "two words"),
        (b"GET", b"\x00\xff"),
        ("SET", "key", 1, 0.1, -(2**70), 1e22, "\u00fc\U0001f600", ""),
        ("SET", "key", b"x" * 100_000),
        ("SET", Kind.A, signal.SIGTERM),
        ("SET", bytearray(b"key"), memoryview(b"value")),
    ],
)
def test_a_command_is_packed_as_redis_py_does(command: tuple[str | bytes, ...]) -> None:
    brief = type("Brief", (BriefConnection, Connection), {})()

    packed = brief.pack_command(*command)

    assert b"".join(packed) == b"".join(Connection().pack_command(*command))


def test_what_can_t_be_sent_is_refused() -> None:
    brief = type("Brief", (BriefConnection, Connection), {})()

    with pytest.raises(DataError):
        brief.pack_command("SET", "key", None)


async def test_more_callers_than_connections_each_get_their_own_answer(valkey: Server) -> None:
    client = client_of(valkey, connections=1)
    count = 4 * (1 + RESERVED)
    try:
        answers = await asyncio.gather(*(client.echo(f"{number}") for number in range(count)))

        assert answers == [f"{number}".encode() for number in range(count)]
        assert len(pool_of(client)._available_connections) <= 1 + RESERVED
        assert not pool_of(client)._in_use_connections
    finally:
        await client.aclose()


async def test_who_waits_for_a_connection_gets_the_next_that_is_given_back(valkey: Server) -> None:
    client = client_of(valkey, connections=1)
    try:
        held = [await pool_of(client).get_connection() for _ in range(1 + RESERVED)]
        waiting = asyncio.ensure_future(client.echo("here"))
        await until(lambda: pool_of(client)._waiting)
        for connection in held:
            await pool_of(client).release(connection)

        assert await waiting == b"here"
        assert pool_of(client)._waiting == 0
    finally:
        await client.aclose()


async def test_the_answer_to_a_call_that_was_cancelled_is_nobody_s(valkey: Server) -> None:
    client = client_of(valkey)
    try:
        call = asyncio.create_task(client.execute_command("BLPOP", "nothing", 0))
        await until(lambda: pool_of(client)._in_use_connections)
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait((call,))

        assert await client.echo("mine") == b"mine"
        assert not pool_of(client)._in_use_connections
    finally:
        await client.aclose()


async def test_an_error_that_the_server_answers_with_leaves_the_connection_open(valkey: Server) -> None:
    client = client_of(valkey)
    try:
        name = await client.client_id()
        with pytest.raises(ResponseError):
            await client.execute_command("EVALSHA", "0" * 40, 0)

        assert await client.client_id() == name
    finally:
        await client.aclose()


async def test_a_connection_that_the_server_has_closed_is_made_anew(valkey: Server) -> None:
    client, other = client_of(valkey), client_of(valkey)
    try:
        name = await client.client_id()
        await other.client_kill_filter(_id=str(name))
        [connection] = pool_of(client)._available_connections
        await until(lambda: connection._reader is None or connection._reader.at_eof())

        assert await client.client_id() != name
    finally:
        await client.aclose()
        await other.aclose()


async def test_a_connection_that_ends_before_its_answer_is_told_of(valkey: Server) -> None:
    client, other = client_of(valkey), client_of(valkey)
    try:
        name = await client.client_id()
        call = asyncio.create_task(client.execute_command("BLPOP", "nothing", 0))
        await until(lambda: pool_of(client)._in_use_connections)
        while not await other.client_kill_filter(_id=str(name)):
            pass

        with pytest.raises(ConnectionError):
            await call
    finally:
        await client.aclose()
        await other.aclose()
