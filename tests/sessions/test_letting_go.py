"""Sessions that nobody needs on a node any more: let go of, whatever it polls and the store answers."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from tests.sessions.conversation import Client, World, limits_of, settle
from tests.sessions.town import (
    Town,
    answered,
    asked,
    begin_outage,
    distant,
    go,
    open_town,
    orphaned,
    polls,
    tab_on,
    texts,
)
from unbroken.sessions.backends.base import NOBODY
from unbroken.sessions.ids import NodeId

SEEDS: Final = (None, 1, 2, 3)

RELEASE_AFTER: Final = 20.0

LIMITS: Final = limits_of(release_after=RELEASE_AFTER, sweep_interval=5.0)


async def pass_time(town: Town, seconds: int) -> None:
    """Let time pass on all nodes, with a slow poll in each second."""
    for _ in range(seconds):
        for world in town.worlds:
            world.clock.advance(1)
        await settle()
        await polls(town, 1)


def stored_owner(town: Town, client: Client) -> NodeId:
    """Return whose a client's session is by the store."""
    owner: NodeId = town.stored(client).fence.node
    return owner


def has(world: World) -> int:
    """Return how many sessions a node has."""
    return len(world.node.hub)


# While a node polls.


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_is_but_read_is_let_go_of(seed: int | None) -> None:
    async with open_town(seed=seed, limits=LIMITS) as town:
        one, _ = town.worlds
        client = await one.client()
        await client.say("hi")
        client.disconnect()
        await pass_time(town, 40)

        assert (has(one), stored_owner(town, client)) == (0, NOBODY)


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_just_answered_is_let_go_of(seed: int | None) -> None:
    async with open_town(seed=seed, limits=LIMITS) as town:
        one, _, client = await answered(town)
        client.disconnect()
        await pass_time(town, 40)

        assert (has(one), stored_owner(town, client)) == (0, NOBODY)


@pytest.mark.parametrize("seed", SEEDS)
async def test_who_leaves_in_mid_answer_has_it_kept_from_its_end_on(seed: int | None) -> None:
    async with open_town(seed=seed, limits=LIMITS) as town:
        one, two, client = await asked(town)
        client.disconnect()
        await pass_time(town, 40)
        assert has(one) == 1

        one.responder.last.say("c")
        one.responder.last.end()
        await settle()
        await pass_time(town, 15)
        assert has(one) == 1, "it counts from its last work"
        await pass_time(town, 15)
        assert (has(one), stored_owner(town, client)) == (0, NOBODY)

        await go(client, two)
        assert client.resumed
        assert (client.text(), client.statuses()) == ("abc", ["completed"])


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_is_said_elsewhere_is_work(seed: int | None) -> None:
    """It comes to the owner by being read."""
    async with open_town(seed=seed, limits=LIMITS) as town:
        one, two, client = await answered(town)
        town.is_silent = True  # what the other node wishes is lost: else it would have the session
        tab = await tab_on(two, client)
        client.disconnect()
        await pass_time(town, 15)
        await tab.say("hi")
        await pass_time(town, 15)
        assert has(one) == 1
        await pass_time(town, 15)

        assert (has(one), stored_owner(town, client)) == (0, two.node.id)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_follower_goes_while_the_owner_stays(seed: int | None) -> None:
    async with open_town(seed=seed, limits=LIMITS) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        await pass_time(town, 40)
        assert (has(one), has(two)) == (1, 1)

        tab.disconnect()
        await pass_time(town, 40)
        assert (has(one), has(two)) == (1, 0)
        assert town.owner_of(client) is one.node
        assert two.node.id not in town.stored(client).followers


@pytest.mark.parametrize("seed", SEEDS)
async def test_nodes_that_all_have_it_do_not_keep_it_for_each_other(seed: int | None) -> None:
    async with open_town(3, seed=seed, limits=LIMITS) as town:
        _, _, client = await answered(town)
        tabs = [await tab_on(world, client) for world in town.worlds[1:]]
        client.disconnect()
        await pass_time(town, 5)
        assert town.owner_of(client) in [world.node for world in town.worlds[1:]]

        for tab in tabs:
            tab.disconnect()
            await pass_time(town, 5)
        await pass_time(town, 60)
        assert [has(world) for world in town.worlds] == [0, 0, 0]
        assert (stored_owner(town, client), town.stored(client).followers) == (NOBODY, set())


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_taken_from_the_dead_goes_when_it_has_ended(seed: int | None) -> None:
    async with open_town(seed=seed, limits=LIMITS) as town:
        two, client = await orphaned(town)
        client.disconnect()
        del town.worlds[0]
        await pass_time(town, 60)

        assert (has(two), stored_owner(town, client)) == (0, NOBODY)
        assert two.ended == ["interrupted"]


# Whatever the store answers.


@pytest.mark.parametrize("seed", SEEDS[1:])
async def test_a_release_that_fails_is_made_good(seed: int) -> None:
    """Nobody else would: to all others the session is a living node's."""
    async with open_town(seed=seed, limits=LIMITS) as town:
        one, _ = town.worlds
        client = await one.client()
        await client.say("hi")
        client.disconnect()
        distant(one).is_out = True  # nothing has been asked of it since
        one.clock.advance(30)
        await settle()
        distant(one).is_out = False
        await pass_time(town, 40)

        assert (has(one), stored_owner(town, client)) == (0, NOBODY)


@pytest.mark.parametrize("seed", SEEDS[1:])
async def test_a_release_whose_answer_is_lost_takes_nothing_from_the_next_owner(seed: int) -> None:
    async with open_town(seed=seed, limits=LIMITS) as town:
        one, two = town.worlds
        client = await one.client()
        await client.say("hi")
        client.disconnect()
        distant(one).loses_answers = True
        one.clock.advance(30)
        await settle()
        await go(client, two)
        await town.store_is_back()
        await pass_time(town, 40)

        assert (has(one), stored_owner(town, client)) == (0, two.node.id)
        await client.say("again")
        assert texts(two, client) == ["hi", "again"]


@pytest.mark.parametrize("seed", SEEDS[1:])
async def test_what_could_not_be_passed_on_is_passed_on_later(seed: int) -> None:
    async with open_town(seed=seed, limits=LIMITS) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        one.responder.last.end()
        await settle()
        distant(one).is_out = True  # nothing has been asked of it since
        client.disconnect()
        await settle()
        assert town.owner_of(client) is None
        await town.store_is_back()

        assert town.owner_of(client) is two.node
        await tab.ask("again")
        assert len(two.responder.turns) == 1


@pytest.mark.parametrize("seed", SEEDS[1:])
async def test_while_the_store_is_out_sessions_are_kept_for_who_comes_back(seed: int) -> None:
    async with open_town(seed=seed, limits=LIMITS) as town:
        one, _ = town.worlds
        clients = [await one.client() for _ in range(3)]
        for client in clients:
            await client.say("hi")
            client.disconnect()
        await begin_outage(one)
        one.clock.advance(60)
        await settle()
        assert has(one) == 3

        for client in clients:
            await go(client, one)
            await client.say("again")
            assert texts(one, client) == ["hi", "again"]
            client.disconnect()
        await town.store_is_back()
        await pass_time(town, 40)
        assert has(one) == 0
        assert {stored_owner(town, client) for client in clients} == {NOBODY}


@pytest.mark.parametrize("seed", SEEDS[1:])
async def test_the_first_release_that_fails_tells_of_the_outage(seed: int) -> None:
    """Else as many as are due would be nowhere until it is over."""
    async with open_town(seed=seed, limits=LIMITS) as town:
        one, _ = town.worlds
        clients = [await one.client() for _ in range(3)]
        for client in clients:
            await client.say("hi")
            client.disconnect()
        one.clock.advance(19)
        await settle()
        distant(one).is_out = True
        one.clock.advance(2)
        await settle()
        assert has(one) == 2

        await town.store_is_back()
        await pass_time(town, 40)
        assert has(one) == 0
        assert {stored_owner(town, client) for client in clients} == {NOBODY}


@pytest.mark.parametrize("seed", SEEDS[1:])
async def test_a_full_node_makes_room_without_the_store(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It isn't asked, which may take long: it is told later."""

    async def never_answers(*_: object) -> None:
        await asyncio.get_running_loop().create_future()

    async with open_town(seed=seed, limits=limits_of(sessions=2)) as town:
        one, two = town.worlds
        clients = [await one.client() for _ in range(2)]
        for client in clients:
            await client.say("hi")
            client.disconnect()
            one.clock.advance(1)
        await begin_outage(one)
        with monkeypatch.context() as patched:
            patched.setattr(distant(one), "release", never_answers)
            async with asyncio.timeout(10):
                await one.client()
        await go(clients[1], one)
        assert texts(one, clients[1]) == ["hi"]

        await town.store_is_back()
        assert stored_owner(town, clients[0]) == NOBODY
        await go(clients[0], two)
        assert clients[0].resumed
        assert town.owner_of(clients[0]) is two.node
