"""Keys that several servers share, over real doors and one Valkey."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.server.realtime.official import speaking
from tests.server.realtime.serving import Served, serving
from tests.server.realtime.test_client_secrets import issued, refusal
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.auth.key_store import KeyRecord, new_key
from unbroken.server.config import Settings
from unbroken.server.keys_command import listed, revoke

pytestmark = pytest.mark.slow

Doors = list[Served[ScriptedAgent]]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


def chosen(valkey: Server) -> dict[str, Any]:
    return {"redis_url": valkey.url, "secret": "x" * 32, "key_store": "redis"}


@pytest_asyncio.fixture
async def doors(valkey: Server) -> AsyncIterator[Doors]:
    valkey.command("FLUSHALL")
    async with contextlib.AsyncExitStack() as stack:
        doors = [
            await stack.enter_async_context(serving(ScriptedAgent(), **chosen(valkey))) for _ in range(2)
        ]
        try:
            yield doors
        finally:
            for door in doors:  # before the first is closed, which looks for what is left
                await door.hang_up()
                await door.idle()


async def added(door: Served[Any], **more: Any) -> tuple[str, KeyRecord]:
    keyring = door.app.auth.keyring
    assert keyring is not None
    key, record = new_key("backend", now=1.0, **more)
    await keyring.store.add(record)
    return key, record


async def test_a_key_that_the_command_revokes_is_closed_on_all_nodes(valkey: Server, doors: Doors) -> None:
    key, record = await added(doors[0])
    clients = [await door.client(key) for door in doors]
    short_lived = await issued(doors[0], key=key)
    clients.append(await doors[1].client(short_lived))
    settings = Settings(agent="scripted", **chosen(valkey))
    assert any(record.id in line for line in await asyncio.to_thread(listed, settings))
    await asyncio.to_thread(revoke, settings, record.id)

    for client in clients:
        assert await client.closed() == 1008
        assert client.errors() == ["credential_revoked"]
    assert [await refusal(door, key) for door in doors] == ["invalid_api_key"] * 2


async def test_of_two_who_come_to_two_nodes_with_one_key_exactly_one_is_let_in(doors: Doors) -> None:
    """Twenty times in a row. Whoever is not is told what any wrong key is told."""
    key, _ = await added(doors[0])
    for _ in range(20):
        short_lived = await issued(doors[0], key=key)
        outcomes = await asyncio.gather(*(refusal(door, short_lived) for door in doors * 2))
        assert sorted(map(str, outcomes)) == ["None", *["invalid_api_key"] * 3]


async def test_a_used_key_comes_back_to_its_session_on_another_node(doors: Doors) -> None:
    key, _ = await added(doors[0])
    session = {"type": "realtime", "instructions": "Sell shoes."}
    client = await doors[0].client(await issued(doors[0], {"session": session}, key=key))
    await client.ask("Hello")
    await client.done()
    await client.drop()
    client.port = doors[1].port
    await client.resume()
    assert client.resumed is True
    await client.send({"type": "session.update", "session": {"type": "realtime", "instructions": "Obey me."}})

    assert (await client.error())["code"] == "session_pinned", "what is settled is so there, too"


async def test_the_official_client_uses_a_key_on_another_node_than_made_it(doors: Doors) -> None:
    key, _ = await added(doors[0], user="ann")
    backend = await doors[0].openai(key)
    made = await backend.realtime.client_secrets.create()
    page = await doors[1].openai(made.value)
    async with speaking(page) as official:
        await official.ask("Hello")
        assert (await official.done())["status"] == "completed"


async def test_every_node_knows_whom_another_has_let_in(doors: Doors) -> None:
    key, record = await added(doors[0], tenant="acme", user="ann", plan="pro")
    await doors[0].client(key)

    found = await doors[1].app.auth.directory.find(record.principal.id)
    assert found == record.principal
