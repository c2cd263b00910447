"""A session that is deleted: on whichever node, whatever runs in it, and whoever is cut off meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from tests.sessions.conversation import ALICE, Client, World, limits_of, settle
from tests.sessions.town import (
    Town,
    actor_on,
    answered,
    asked,
    begin_outage,
    distant,
    knock,
    open_town,
    polls,
    tab_on,
)
from unbroken.sessions.deletion import delete
from unbroken.sessions.errors import SessionDeleted, SessionError, SessionNotFound, StoreUnavailable
from unbroken.sessions.ids import PrincipalId, SessionId
from unbroken.sessions.responder import Handle

pytestmark = pytest.mark.parametrize("seed", [1, 2, 3, 4])


def named(client: Client) -> SessionId:
    return SessionId(client.session_id or "")


async def deleted(world: World, client: Client) -> None:
    """Have a client's session be deleted through a node; time passes for what waits."""
    work = asyncio.ensure_future(delete(world.node, named(client), ALICE))
    for _ in range(8):
        await settle()
    await work
    await settle()


def why_ended(client: Client) -> SessionError | None:
    """Have a client see all that there is, and return why nothing more comes."""
    try:
        client.read()
    except SessionError as exc:
        return exc
    return None


async def is_nowhere(town: Town, client: Client) -> bool:
    """Whether no node has a session, nor gets it from the store."""
    for world in town.worlds:
        if not world.node._tasks.is_open:
            continue
        actor = world.node.hub.get(named(client))
        if actor is not None and actor.feed.ended is None:
            return False
        with pytest.raises(SessionNotFound):
            await world.node.attach(named(client), ALICE, None, client.chain)
    return named(client) not in town.memory._sessions


@pytest.mark.parametrize("where", [0, 1], ids=["on the owner", "elsewhere"])
async def test_an_answer_that_runs_is_cancelled_and_everybody_is_told(seed: int, where: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)

        await deleted(town.worlds[where], client)

        assert isinstance(why_ended(client), SessionDeleted)
        assert client.statuses() == ["cancelled"]
        assert one.responder.last.is_closed
        assert isinstance(why_ended(tab), SessionDeleted)
        assert await is_nowhere(town, client)


@pytest.mark.parametrize("where", [0, 1], ids=["on the owner", "elsewhere"])
async def test_what_runs_is_cancelled_also_where_as_many_watch_as_may(seed: int, where: int) -> None:
    async with open_town(seed=seed, limits=limits_of(connections_per_session=1)) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)

        await deleted(town.worlds[where], client)

        assert isinstance(why_ended(client), SessionDeleted)
        assert isinstance(why_ended(tab), SessionDeleted)
        assert client.statuses() == ["cancelled"]
        assert one.ended == ["cancelled"]


async def test_another_s_session_is_as_one_that_is_not_there(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await answered(town)
        for world in (one, two):
            with pytest.raises(SessionNotFound):
                await delete(world.node, named(client), PrincipalId("bob"))
        client.read()
        assert client.text() == "ab"


async def test_an_owner_that_is_not_told_finds_out(seed: int) -> None:
    """By its next write, and what ran there ends for good: also its bill."""
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        town.is_silent = True
        await town.memory.erase(named(client))
        one.responder.last.say("c")
        await settle()

        assert isinstance(why_ended(client), SessionDeleted)
        assert one.responder.last.is_closed
        assert one.ended == ["cancelled"]
        town.is_silent = False
        await polls(town, 3)
        assert await is_nowhere(town, client)


async def test_who_follows_it_and_is_not_told_finds_out(seed: int) -> None:
    async with open_town(seed=seed) as town:
        _, two, client = await answered(town)
        tab = await tab_on(two, client)
        town.is_silent = True
        await town.memory.erase(named(client))
        await polls(town, 2)
        assert isinstance(why_ended(tab), SessionDeleted)


async def test_who_says_something_in_it_is_told(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await answered(town)
        town.is_silent = True
        await town.memory.erase(named(client))
        with pytest.raises(SessionDeleted):
            await client.ask("more")
        assert actor_on(one, client).feed.ended is not None


async def test_what_was_deleted_while_its_owner_was_cut_off_stays_deleted(seed: int) -> None:
    """The owner goes on alone, and has a lot to give back."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        await begin_outage(one)
        one.responder.last.say("c")
        one.responder.last.end()
        await settle()
        client.read()
        assert (client.text(), client.statuses()) == ("abc", ["completed"])

        await two.node.erase(named(client))
        await town.store_is_back()
        await polls(town, 2)

        assert isinstance(why_ended(client), SessionDeleted)
        assert await is_nowhere(town, client)


async def test_a_store_that_lost_the_session_and_had_it_deleted_is_not_given_it_back(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await answered(town)
        await begin_outage(one)
        town.lose()
        await two.node.erase(named(client))
        await town.store_is_back()
        await polls(town, 2)
        assert isinstance(why_ended(client), SessionDeleted)
        assert await is_nowhere(town, client)


async def test_a_session_that_is_lost_is_given_back_all_the_same(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await answered(town)
        town.lose()
        await client.ask("more")
        one.responder.last.say("c")
        one.responder.last.end()
        await settle()
        await polls(town, 2)
        assert named(client) in town.memory._sessions


async def test_a_late_write_and_a_late_input_do_not_bring_it_back(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        distant(one).is_late = True
        one.responder.last.say("c")
        await settle()
        await two.node.erase(named(client))

        results = await distant(one).deliver()
        distant(one).is_late = False

        assert all(isinstance(result, SessionDeleted) for result in results)
        await town.store_is_back()
        await polls(town, 2)
        assert await is_nowhere(town, client)


async def test_what_is_empty_can_be_deleted_and_begins_nowhere_again(seed: int) -> None:
    """Its client may be on several nodes; none has told the store of it."""
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        await settle()
        client.read()
        tab = Client(two, client.session_id)
        tab.last_id, tab.chain = client.last_id, client.chain
        await knock(tab, two)

        await deleted(one, client)

        assert isinstance(why_ended(client), SessionDeleted)
        with pytest.raises(SessionDeleted):
            await tab.ask("hello")
        assert await is_nowhere(town, client)


async def test_a_store_that_is_out_of_reach_says_so_and_it_can_be_asked_again(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await answered(town)
        distant(two).is_out = True
        with pytest.raises(StoreUnavailable):
            await two.node.erase(named(client))
        distant(two).is_out = False
        await town.store_is_back()
        await deleted(two, client)
        assert isinstance(why_ended(client), SessionDeleted)
        await one.node.erase(named(client))  # again: harmless
        assert await is_nowhere(town, client)


async def test_what_an_upstream_does_by_itself_is_stopped(seed: int) -> None:
    """However its owner hears of it: no other will go on with it."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town, Handle("upstream"), "a")
        await two.node.erase(named(client))
        await settle()
        assert isinstance(why_ended(client), SessionDeleted)
        assert one.responder.cancelled == ["upstream"]


async def test_a_dead_owner_s_session_can_be_deleted(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        town.kill(one)
        town.notice(one)
        await settle()
        await deleted(two, client)
        await polls(town, 3)
        assert await is_nowhere(town, client)
