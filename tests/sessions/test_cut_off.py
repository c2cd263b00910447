"""Whoever comes may be cut off while a session is looked up: store and node agree all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
import structlog

from tests.sessions.conversation import ALICE, Client, World, limits_of, settle
from tests.sessions.town import Town, distant, go, open_town
from unbroken.sessions.backends.base import NOBODY
from unbroken.sessions.errors import NodeDraining
from unbroken.sessions.ids import PrincipalId, SessionId
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.node import Attachment

BOB = PrincipalId("bob")

seeds = pytest.mark.parametrize("seed", range(12))

MOMENTS = 24


async def left(world: World) -> Client:
    """Return a client that has said something, and has gone: nobody needs its session there."""
    client = await world.client()
    await client.say("hi")
    client.disconnect()
    await settle()
    return client


async def cut_off(coming: Coroutine[Any, Any, Attachment], turns: int) -> None:
    """Have somebody come, and give up after so many turns of the loop."""
    task = asyncio.ensure_future(coming)
    for _ in range(turns):
        await asyncio.sleep(0)
    if not task.cancel():
        task.result().close()
    await settle()


def is_agreed_on(town: Town, world: World, client: Client) -> bool:
    """Return whether *world*'s node has a client's session if the store says so."""
    owner = town.stored(client).fence.node
    is_here = SessionId(client.session_id or "") in {actor.session.id for actor in world.node.hub}
    return owner == NOBODY or owner != world.node.id or is_here


@seeds
async def test_a_session_that_was_being_loaded_is_here_or_nobody_s(seed: int) -> None:
    for turns in range(MOMENTS):
        async with open_town(seed=seed) as town:
            one, two = town.worlds
            client = await left(one)
            for actor in list(one.node.hub):
                await one.node._ownership.forget(actor)
            assert town.stored(client).fence.node == NOBODY
            session_id = SessionId(client.session_id or "")
            await cut_off(two.node.attach(session_id, ALICE, None, client.chain), turns)

            assert is_agreed_on(town, two, client), turns
            assert two.node.hub.connections == 0
            await go(client, two)
            assert client.resumed


@seeds
async def test_a_session_that_was_making_room_is_here_or_nobody_s(seed: int) -> None:
    for turns in range(MOMENTS):
        async with open_town(seed=seed, limits=limits_of(sessions=1)) as town:
            one, two = town.worlds
            client = await left(one)
            await cut_off(one.node.create(BOB, SessionConfig("m"), client.chain), turns)

            assert is_agreed_on(town, one, client), turns
            assert one.node.hub.connections == 0
            await go(client, two)
            assert client.resumed


async def test_who_is_cut_off_from_a_store_that_fails_next_leaves_no_complaint() -> None:
    async with open_town(seed=1) as town:
        one, two = town.worlds
        client = await left(one)
        distant(two).is_out = True
        with structlog.testing.capture_logs() as logs:
            session_id = SessionId(client.session_id or "")
            await cut_off(two.node.attach(session_id, ALICE, None, client.chain), 1)

            assert [entry for entry in logs if entry["log_level"] == "error"] == []


async def test_who_waits_as_the_node_ends_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_town(seed=1) as town:
        one = town.worlds[0]
        client = await left(one)
        two = await town.node()
        is_asked = asyncio.Event()

        async def hang(*_: Any, **__: Any) -> None:
            is_asked.set()
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(distant(two), "follow", hang)
        session_id = SessionId(client.session_id or "")
        coming = asyncio.ensure_future(two.node.attach(session_id, ALICE, None, client.chain))
        await is_asked.wait()
    with pytest.raises(NodeDraining):
        await coming
