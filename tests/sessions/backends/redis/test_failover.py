"""Nodes over a server that fails over without its tail: what they leave in it, all of them can open."""

from __future__ import annotations

import pytest

from tests.server.realtime.serving import eventually
from tests.sessions.backends.redis.test_state_machine import plant
from tests.sessions.conversation import Client as Person
from tests.sessions.conversation import World, limits_of
from tests.sessions.town import House, Town, actor_on, texts
from unbroken.sessions.backends.redis.connection import Client
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.store import RedisStore


@pytest.mark.parametrize("is_old", [False, True], ids=["this release", "one that compares nothing"])
async def test_an_idle_session_whose_tail_was_lost_can_be_opened(client: Client, is_old: bool) -> None:
    """Its owner lets it go before anything has told it; of the release before, it isn't told then either."""
    town, keys = Town(), Keys("test")
    stores = [RedisStore(client, keys, Bounds()) for _ in range(3)]
    if is_old:
        plant(stores[0]._scripts, "compact", "if not holds(tonumber(ARGV[5]), ARGV[6]) then", "if false then")
        old = "tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(at[5])"
        plant(stores[0]._scripts, "compact", "tonumber(ARGV[4]), tonumber(ARGV[5])", old)
    one, two, three = [World(store, limits_of(), cluster=House(town)) for store in stores]
    async with one.node, two.node, three.node:
        person = Person(one)
        await person.connect()
        await person.say("first")
        actor = actor_on(one, person)
        person.disconnect()
        await eventually(lambda: actor.is_idle)
        copied = {key: data for key in await client.keys("*") if (data := await client.dump(key))}
        await person.resume()
        for number in range(30):
            await person.say("y" * 300 + str(number))
        person.disconnect()
        await eventually(lambda: actor.is_idle)
        said = texts(one, person)
        assert len(said) == 31
        for key, data in copied.items():
            await client.restore(key, 0, data, replace=True)
        await one.node._ownership.forget(actor)
        if not is_old:  # it has found out, and kept it
            await eventually(lambda: actor.feed.is_durable and actor.is_idle)
            await one.node._ownership.forget(actor)
        for world in (two, three):
            guest = Person(world, person.session_id)
            await guest.connect()
            assert texts(world, guest) == said
            await eventually(lambda w=world, g=guest: actor_on(w, g).feed.is_durable)  # type: ignore[misc]
            kept = (await stores[1].inspect(actor.session.id)).snapshot
            assert kept is not None
            assert kept.seq <= (await stores[1].inspect(actor.session.id)).head
    for store in stores:
        await store.aclose()
