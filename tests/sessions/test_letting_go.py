"""Sessions that nobody needs on a node any more: let go of, whatever it polls."""

from __future__ import annotations

from typing import Final

import pytest

from tests.sessions.conversation import Client, World, limits_of, settle
from tests.sessions.town import (
    Town,
    answered,
    asked,
    go,
    open_town,
    polls,
    tab_on,
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
