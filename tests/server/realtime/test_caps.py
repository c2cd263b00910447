"""Caps of principals over real doors: several servers that share one Valkey."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Client
from tests.server.realtime.raw import RawClient
from tests.server.realtime.serving import Served, eventually, serving

pytestmark = pytest.mark.slow

Doors = list[Served[ManualAgent]]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@contextlib.asynccontextmanager
async def opened(valkey: Server, count: int = 2, **settings: Any) -> AsyncIterator[Doors]:
    """Start servers that share their sessions."""
    async with contextlib.AsyncExitStack() as stack:
        doors = [
            await stack.enter_async_context(
                serving(ManualAgent(), redis_url=valkey.url, secret="x" * 32, **settings)
            )
            for _ in range(count)
        ]
        try:
            yield doors
        finally:
            for door in doors:  # before the first is closed, which looks for what is left
                await door.hang_up()
                await door.idle()


@pytest_asyncio.fixture
async def doors(valkey: Server) -> AsyncIterator[Doors]:
    valkey.command("FLUSHALL")
    async with opened(valkey, connections_per_principal=2, responses_per_principal=1) as doors:
        yield doors


async def refusal(door: Served[ManualAgent], key: str = "alice", address: str = "") -> str | None:
    """Return why a connection is refused; None: it isn't. It is gone afterwards."""
    async with RawClient(door.port, key, headers={"X-Forwarded-For": address} if address else None) as raw:
        response = await raw.response()
    if response.status_code == 101:
        return None
    assert response.status_code == 429
    assert "Retry-After" in response.headers
    code: str = json.loads(response.body or b"")["error"]["code"]
    return code


def held(door: Served[ManualAgent]) -> int:
    """Return how many connections all principals have at one door."""
    return sum(count for (kind, _), count in door.app.node.caps._held.items() if kind == "connection")


def let_in_alone(door: Served[ManualAgent]) -> float:
    value = door.app.metrics.registry.get_sample_value("unbroken_let_in_alone_total", {"kind": "connection"})
    return value or 0.0


async def test_a_key_has_so_many_connections_at_all_doors(doors: Doors) -> None:
    a, b = doors
    first = await a.client()
    await b.client()
    assert await refusal(a) == await refusal(b) == "too_many_connections_of_key"
    assert await refusal(b, "bob") is None

    await first.drop()
    assert await refusal(b) is None, "it has just left the other one"


async def test_a_tenant_has_so_many_connections_at_all_doors(valkey: Server) -> None:
    """Of all its users together."""
    valkey.command("FLUSHALL")
    async with opened(valkey, connections_per_tenant=3) as (a, b):
        first = await a.client("alice")
        await b.client("bob")
        await b.client("carol")
        assert await refusal(a, "alice") == await refusal(b, "dave") == "too_many_connections_of_tenant"

        await first.drop()
        assert await refusal(b, "dave") is None


async def test_an_address_has_so_many_connections_at_all_doors(valkey: Server) -> None:
    """Whoever they are. Without a key that is good they cause no call: each door counts those by itself."""
    valkey.command("FLUSHALL")
    proxied: dict[str, Any] = {"trusted_proxies": ("127.0.0.1",), "connections_per_address": 2}
    async with opened(valkey, **proxied) as (a, b), contextlib.AsyncExitStack() as stack:
        for door, key in ((a, "alice"), (b, "bob")):
            headers = {"X-Forwarded-For": "203.0.113.7"}
            raw = await stack.enter_async_context(RawClient(door.port, key, headers=headers))
            assert (await raw.response()).status_code == 101
        assert await refusal(a, "carol", "203.0.113.7") == "too_many_connections_from_address"
        assert await refusal(a, "carol", "203.0.113.8") is None

        await eventually(lambda: a.app.node.caps.holders("address_connection") == 1)


async def test_a_client_comes_back_to_another_door_at_once(doors: Doors) -> None:
    """Again and again, with no pause, and always at the bound."""
    a, b = doors
    await a.client()
    client = await a.client()
    await client.say("hello")
    await client.sync()
    for turn in range(10):
        await client.drop()
        client.port = doors[turn % 2].port
        await client.resume()

    assert held(a) + held(b) == 2


async def test_a_key_has_so_many_responses_at_all_doors(doors: Doors) -> None:
    a, b = doors
    one, two = await a.client(), await b.client()
    await one.ask("first")
    await one.until("response.created")
    await two.say("second")
    request = {"type": "response.create", "event_id": "mine"}
    await two.send(request)
    error = await two.error()
    assert (error["code"], error["event_id"]) == ("too_many_responses", "mine")

    await finish(a, one)
    await two.send(request)
    await two.until("response.created")
    await finish(b, two)


async def finish(door: Served[ManualAgent], client: Client) -> None:
    turn = await door.agent.turn()
    turn.say("Here it is.")
    turn.end()
    await client.done()


async def test_who_hangs_up_while_the_tally_is_asked_is_not_counted(doors: Doors, valkey: Server) -> None:
    a, _ = doors
    valkey.freeze()
    try:
        async with RawClient(a.port, "alice"):
            await eventually(
                lambda: bool("" in a.app.node.caps._parts and a.app.node.caps._parts[""]._askers)
            )
    finally:
        valkey.thaw()
    part = a.app.node.caps._parts[""]
    await eventually(lambda: a.app.admission.is_empty and part._task is None)
    assert valkey.command("KEYS", "unbroken:*:t:*") == b"*0\r\n"


def counted(valkey: Server) -> int:
    """Return how many connections Valkey knows of, of the only one who has any."""
    key = valkey.command("KEYS", "unbroken:*:t:*").splitlines()[2:][:1]
    return sum(map(int, valkey.command("HVALS", key[0].decode()).splitlines()[2::2])) if key else 0


async def test_without_redis_each_door_holds_the_bound_alone(tmp_path: Path) -> None:
    """And together again, when it is back, though it has forgotten everything."""
    with Server(tmp_path / "data").running() as server:
        async with opened(server, connections_per_principal=2) as (a, b):
            clients = [await a.client() for _ in range(2)]
            assert await refusal(b) == "too_many_connections_of_key"
            server.kill()
            clients += [await b.client() for _ in range(2)]
            assert await refusal(b) == "too_many_connections_of_key"
            assert let_in_alone(b) == 2
            server.start()
            # What each knows to have told may have been told before: to a server that has forgotten it.
            await eventually(lambda: counted(server) == 4)

            await clients.pop().drop()
            assert await refusal(b) == "too_many_connections_of_key"
            for client in clients:
                await client.drop()
            assert await refusal(b) is None
