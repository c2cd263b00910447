"""How many responses a principal may have at once: on one node, on several, and while nodes come and go."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import pytest

from tests.sessions.conversation import ALICE, Client, World, limits_of, open_world, settle
from tests.sessions.town import Town, distant, open_town
from unbroken.sessions.errors import LostTail
from unbroken.sessions.ids import PrincipalId
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.responder import Handle
from unbroken.sessions.run import RunLimits

SEEDS: Final = (None, 1, 2, 3)
several: Final = pytest.mark.parametrize("seed", SEEDS)
TWO: Final = limits_of(responses_per_principal=2, outage_patience=0)
ONE: Final = limits_of(responses_per_principal=1, outage_patience=0)
REQUEST: Final = {"type": "response.create"}
BOB: Final = PrincipalId("bob")


async def ask(client: Client, **event: Any) -> None:
    """Ask for a response; whoever is refused by the tally is asked for again after a moment."""
    task = asyncio.create_task(client.send({**REQUEST, **event}))
    await asyncio.wait({task, asyncio.create_task(turns(100))}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        client.world.clock.advance(0.25)
    await task
    await settle()
    client.read()


async def turns(count: int) -> None:
    """Let others have so many turns. (Two at a time can't wait for the others to come to rest.)"""
    for _ in range(count):
        await asyncio.sleep(0)


async def begun(world: World, **event: Any) -> Client:
    """Return a client that has asked for a response."""
    client = await world.client()
    await ask(client, **event)
    return client


async def set_policy(client: Client, policy: str) -> None:
    await client.send(
        {"type": "session.update", "session": {"type": "realtime", "unbroken": {"concurrency": policy}}}
    )
    client.read()


async def end(world: World) -> None:
    """End the oldest answer that a node gives."""
    world.responder.open[0].end()
    await settle()


def counted(world: World) -> int:
    return world.node.caps.held("response", ALICE)


def told(town: Town) -> list[int]:
    """Return what the tally has of each node, the first one first."""
    numbers = town.tally.of("response", ALICE)
    return [numbers.get(town.tallies[world].node, 0) for world in town.worlds]


# One node.


async def test_a_principal_has_so_many_at_once_over_all_its_sessions() -> None:
    async with open_world(TWO) as world:
        clients = [await begun(world) for _ in range(3)]

        assert [each.errors() for each in clients] == [[], [], ["too_many_responses"]]
        stranger = Client(world)
        await stranger.connect(principal=BOB)
        await ask(stranger)
        assert stranger.errors() == []
        await end(world)
        await ask(clients[2])
        assert clients[2].statuses() == []
        assert len(world.responder.turns) == 4


async def test_what_is_refused_may_be_sent_again_under_the_same_name() -> None:
    """It was never written: the refusal isn't remembered."""
    async with open_world(ONE) as world:
        one, two = await begun(world), await world.client()
        named = {"unbroken": {"message_id": "m"}}
        await ask(two, **named)
        await ask(two, **named)
        assert two.errors() == ["too_many_responses"] * 2
        await end(world)
        await ask(two, **named)

        assert two.errors() == ["too_many_responses"] * 2
        assert two.types()[-1] == "response.created"
        assert one.statuses() == []


async def test_without_a_bound_nothing_is_counted() -> None:
    async with open_world() as world:
        for _ in range(3):
            await begun(world)
        assert counted(world) == 0
        assert len(world.responder.open) == 3


async def test_those_that_wait_count_too() -> None:
    async with open_world(limits_of(responses_per_principal=3)) as world:
        client = await world.client()
        await set_policy(client, "queue")
        for _ in range(4):
            await ask(client)

        assert client.errors() == ["too_many_responses"]
        assert counted(world) == 3
        for left in (2, 1, 0):
            await end(world)
            assert counted(world) == left


async def test_requests_that_become_one_response_count_as_one() -> None:
    async with open_world(limits_of(responses_per_principal=3)) as world:
        client = await world.client()
        await set_policy(client, "merge")
        for _ in range(5):
            await ask(client)

        assert client.errors() == []
        assert counted(world) == 2


async def test_a_request_that_its_session_refuses_leaves_its_place() -> None:
    async with open_world(TWO) as world:
        client = await begun(world)
        await ask(client)
        assert client.errors() == ["conversation_already_has_active_response"]
        assert counted(world) == 1
        await end(world)
        assert counted(world) == 0


async def test_what_is_cancelled_leaves_its_place() -> None:
    async with open_world(ONE) as world:
        client = await begun(world)
        await client.send({"type": "response.cancel"})
        assert counted(world) == 0


async def test_only_requests_are_held_up() -> None:
    async with open_world(ONE) as world:
        client = await begun(world)
        other = await world.client()
        await other.say("hello")
        await client.send({"type": "response.cancel"})
        assert other.errors() == client.errors() == []


# What was taken before.


async def test_a_resend_of_what_was_taken_is_no_request_too_many() -> None:
    async with open_world(ONE) as world:
        client = await begun(world, unbroken={"message_id": "m"})
        await ask(client, unbroken={"message_id": "m"})
        assert client.errors() == []
        await ask(client, unbroken={"message_id": "m"}, response={"instructions": "other"})
        assert client.errors() == ["message_id_reused"]
        assert counted(world) == 1
        await end(world)
        await ask(client, unbroken={"message_id": "m"})
        assert len(world.responder.turns) == 1


@several
async def test_a_resend_to_another_node_is_none_either(seed: int | None) -> None:
    limits = limits_of(
        responses_per_principal=1, actor=ActorLimits(run=RunLimits(), retain_bytes=0, log_bytes=50_000)
    )
    async with open_town(seed=seed, limits=limits) as town:
        one, two = town.worlds
        client = await begun(one, unbroken={"message_id": "m"})
        one.responder.last.say("x" * 20_000)
        await settle()
        client.disconnect()
        client.world = two
        await client.resume()
        await ask(client, unbroken={"message_id": "m"})
        assert client.errors() == []
        other = await begun(two)
        assert other.errors() == ["too_many_responses"]
        await end(one)
        await ask(client, unbroken={"message_id": "m"})

        assert client.errors() == []
        assert len(one.responder.turns) + len(two.responder.turns) == 1


async def test_a_resend_while_the_store_is_out_of_reach_is_none_either() -> None:
    async with open_town(seed=5, limits=ONE) as town:
        (one, _) = town.worlds
        client = await begun(one, unbroken={"message_id": "m"})
        distant(one).is_out = True
        await client.say("alone", id="item_alone")
        await ask(client, unbroken={"message_id": "m"})
        assert client.errors() == []
        await ask(client, unbroken={"message_id": "m"}, response={"instructions": "other"})
        assert client.errors() == ["message_id_reused"]
        await ask(client)
        assert client.errors() == ["message_id_reused", "too_many_responses"]
        await town.store_is_back()


async def test_whether_it_was_taken_can_not_be_told_without_the_store() -> None:
    """Not on a node that only follows: it doesn't know all names."""
    async with open_town(seed=5, limits=ONE) as town:
        one, two = town.worlds
        client = await begun(one, unbroken={"message_id": "m"})
        client.disconnect()
        client.world = two
        await client.resume()
        distant(two).is_out = True
        await ask(client, unbroken={"message_id": "m"})
        assert client.errors() == ["store_unavailable"]
        await town.store_is_back()


# Several nodes.


@several
async def test_all_nodes_together_give_so_many(seed: int | None) -> None:
    async with open_town(3, seed=seed, limits=TWO) as town:
        clients = [await begun(world) for world in town.worlds]

        assert [each.errors() for each in clients] == [[], [], ["too_many_responses"]]
        assert told(town) == [1, 1, 0]
        await end(town.worlds[0])
        await ask(clients[2])
        assert told(town) == [0, 1, 1]


@several
async def test_a_request_counts_where_it_comes_in_and_then_where_its_session_is(seed: int | None) -> None:
    async with open_town(seed=seed, limits=TWO) as town:
        one, two = town.worlds
        await begun(one)
        client = await one.client()
        await client.say("hello")
        tab = Client(two, client.session_id)
        await tab.connect()
        town.is_silent = True
        await ask(tab)
        assert (counted(one), counted(two)) == (1, 1), "its owner doesn't know of it yet"
        assert (await begun(two)).errors() == ["too_many_responses"]
        town.is_silent = False
        town.poll()
        await settle()

        assert (counted(one), counted(two)) == (2, 0)
        assert told(town) == [2, 0]


@several
async def test_a_request_that_the_owner_refuses_leaves_its_place_where_it_came_in(seed: int | None) -> None:
    async with open_town(seed=seed, limits=TWO) as town:
        one, two = town.worlds
        client = await begun(one)
        tab = Client(two, client.session_id)
        await tab.connect()
        await ask(tab)

        assert tab.errors() == ["conversation_already_has_active_response"]
        assert (counted(one), counted(two)) == (1, 0)


@several
async def test_a_dead_node_s_responses_count_where_they_are_taken(seed: int | None) -> None:
    limits = limits_of(
        responses_per_principal=1, actor=ActorLimits(run=RunLimits(), attempts=2), outage_patience=0
    )
    async with open_town(3, seed=seed, limits=limits) as town:
        one, two, three = town.worlds
        client = await begun(one)
        town.kill(one)
        assert (await begun(three)).errors() == ["too_many_responses"], "nobody knows that it is dead"
        client.world = two
        await client.resume()
        town.notice(one)
        await settle()

        assert (counted(two), told(town)[1:]) == (1, [1, 0])
        assert (await begun(three)).errors() == ["too_many_responses"]
        await end(two)
        assert (await begun(three)).errors() == []
        assert told(town)[1:] == [0, 1]


@several
async def test_an_owner_that_is_fenced_has_its_responses_no_more(seed: int | None) -> None:
    async with open_town(seed=seed, limits=TWO) as town:
        one, two = town.worlds
        client = await begun(one)
        tab = Client(two, client.session_id)
        await tab.connect()
        town.notice(one)
        await settle()
        one.responder.last.say("too late")
        await settle()

        assert counted(one) == 0


@several
async def test_an_answer_that_goes_on_on_another_node_counts_there_alone(seed: int | None) -> None:
    async with open_town(seed=seed, limits=TWO) as town:
        one, two = town.worlds
        for world in town.worlds:
            world.responder.can_resume = True
        client = await begun(one)
        one.responder.last.say(Handle("upstream_1"), "a")
        tab = Client(two, client.session_id)
        await tab.connect()
        town.notice(one)
        await settle()
        assert counted(two) == 1
        one.responder.last.say("too late")
        await settle()

        assert (counted(one), counted(two)) == (0, 1)
        assert tab.statuses() == []


@several
async def test_a_resend_of_what_nobody_has_answered_yet_counts_once(seed: int | None) -> None:
    async with open_town(seed=seed, limits=TWO) as town:
        one, two = town.worlds
        client = await one.client()
        await client.say("hello")
        tab = Client(two, client.session_id)
        await tab.connect()
        town.is_silent = True
        for _ in range(3):
            await ask(tab, unbroken={"message_id": "m"})

        assert counted(two) == 1


async def test_a_session_that_was_given_up_counts_no_more() -> None:
    async with open_world(TWO) as world:
        await begun(world)
        (actor,) = world.node.hub
        actor.feed.end(LostTail("planted"))
        world.node.hub.account(actor)

        assert actor.session.is_running
        assert counted(world) == 0


async def test_what_could_not_be_written_leaves_its_place() -> None:
    async with open_town(seed=3, limits=limits_of(responses_per_principal=1, is_strict=True)) as town:
        one, _ = town.worlds
        client = await one.client()
        await client.say("hello")
        distant(one).is_out = True
        await ask(client)
        assert client.errors() == ["store_unavailable"]
        assert counted(one) == 0
        await town.store_is_back()


async def test_a_request_that_is_cut_off_leaves_its_place_when_it_is_over() -> None:
    for turns in range(0, 40, 3):
        async with open_town(seed=turns, limits=ONE) as town:
            one, _ = town.worlds
            client = await one.client()
            await client.say("hello")
            task = asyncio.create_task(client.send(REQUEST))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await settle()
            assert counted(one) == len(one.responder.open)
            assert told(town) == [counted(one), 0]


@several
async def test_a_session_that_is_forgotten_takes_its_requests_along(seed: int | None) -> None:
    async with open_town(seed=seed, limits=TWO) as town:
        one, two = town.worlds
        client = await one.client()
        await client.say("hello")
        tab = Client(two, client.session_id)
        await tab.connect()
        town.is_silent = True
        await ask(tab)
        assert counted(two) == 1
        (actor,) = two.node.hub
        two.node.hub.remove(actor)

        assert counted(two) == 0


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_what_is_counted_is_what_runs(seed: int) -> None:
    draw = random.Random(seed)
    limits = limits_of(responses_per_principal=3, outage_patience=0)
    async with open_town(3, seed=seed, limits=limits) as town:
        clients = [await draw.choice(town.worlds).client() for _ in range(4)]
        for client in clients:
            await client.say("hello")
            await set_policy(client, draw.choice(["reject", "queue", "interrupt", "merge"]))
        for _ in range(60):
            await step(town, draw, draw.choice(clients))
        town.tally.is_out = False
        await town.store_is_back()
        for world in town.worlds:
            world.node.caps.renew()
            town.poll()
            await settle()
        running = {
            world: sum(len(actor.session.responses) for actor in world.node.hub if actor.is_owner)
            for world in town.worlds
        }

        assert {world: counted(world) for world in town.worlds} == running
        assert told(town) == list(running.values())
        for client in clients:
            if client.attachment is None:
                await client.resume()
            await client.send({"type": "response.cancel"})
        await settle()
        for world in town.worlds:
            for turn in world.responder.open:
                turn.end()
        await settle()
        assert told(town) == [0, 0, 0]


async def step(town: Town, draw: random.Random, client: Client) -> None:
    """Do one thing that happens."""
    world = client.world
    match draw.randrange(7):
        case 0 | 1:
            await ask(client)
        case 2:
            if world.responder.open:
                draw.choice(world.responder.open).end()
        case 3:
            await client.send({"type": "response.cancel"})
        case 4:
            client.disconnect()
            client.world = draw.choice(town.worlds)
            await client.resume()
        case 5:
            town.tally.is_out = not town.tally.is_out
        case 6:
            for each in town.worlds:
                each.clock.advance(1)
            town.poll()
    await settle()
    client.read()
