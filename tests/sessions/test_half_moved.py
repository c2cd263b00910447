"""Sessions of which only some is where it is to be: a slot of a cluster is moved, key by key."""

from __future__ import annotations

import pytest

from tests.sessions.conversation import Client, World, settle
from tests.sessions.town import Town, actor_on, asked, distant, go, open_town, tab_on
from unbroken.sessions.ids import SessionId

pytestmark = pytest.mark.parametrize("seed", [1, 2, 3])


def id_of(client: Client) -> SessionId:
    return SessionId(client.session_id or "")


async def two_answers(town: Town) -> tuple[World, World, Client, Client]:
    """Return two nodes, and two clients of the first whose answers have begun."""
    one, two, torn = await asked(town)
    other = await one.client()
    await other.ask()
    one.responder.last.say("a", "b")
    await settle()
    other.read()
    return one, two, torn, other


async def pass_time(town: Town, seconds: float, *, is_polled: bool = True) -> None:
    for _ in range(int(seconds * 2)):
        for world in town.worlds:
            world.clock.advance(0.5)
        if is_polled:
            town.poll()
        await settle()


async def test_it_is_told_and_the_others_of_its_server_go_on(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, torn, other = await two_answers(town)
        distant(one).half_moved = {id_of(torn)}
        for turn in one.responder.turns:
            turn.say("c")
        await pass_time(town, 6)

        for client in (torn, other):
            client.read()
            assert client.text() == "abc"
        assert not actor_on(one, torn).feed.is_durable
        assert actor_on(one, other).feed.is_durable
        assert not actor_on(one, other).outage.is_on


async def test_a_short_while_is_told_to_nobody(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, torn, _ = await two_answers(town)
        distant(one).half_moved = {id_of(torn)}
        one.responder.turns[0].say("c")
        await settle()
        torn.read()
        assert torn.text() == "ab"
        distant(one).half_moved = set()
        await pass_time(town, 0.5)

        torn.read()
        assert torn.text() == "abc"
        assert actor_on(one, torn).feed.is_durable


async def test_once_it_is_whole_it_is_of_its_server_again(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, torn, other = await two_answers(town)
        distant(one).half_moved = {id_of(torn)}
        one.responder.turns[0].say("c")
        await pass_time(town, 6)
        distant(one).half_moved = set()
        await pass_time(town, 2, is_polled=False)

        assert actor_on(one, torn).feed.is_durable
        assert actor_on(one, torn).outage is actor_on(one, other).outage
        assert actor_on(one, torn)._committer is actor_on(one, other)._committer
        one.responder.turns[0].end()
        await settle()
        torn.disconnect()
        await go(torn, two)
        assert (torn.text(), torn.statuses()) == ("abc", ["completed"])


async def test_who_follows_another_of_its_server_s_is_not_sent_away(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, torn, other = await two_answers(town)
        tabs = [await tab_on(two, client) for client in (torn, other)]
        distant(two).half_moved = {id_of(torn)}
        actor_on(two, torn).look()
        await pass_time(town, 12)

        blind, seeing = [two.node.hub.get(id_of(client)) for client in (torn, other)]
        assert blind is None or blind.feed.ended is not None
        assert seeing is not None
        assert seeing.feed.ended is None
        one.responder.turns[1].end()
        await settle()
        tabs[1].read()
        assert tabs[1].statuses() == ["completed"]


async def test_that_an_empty_one_can_t_be_asked_for_says_nothing_of_its_server(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one = town.worlds[0]
        empty, other = await one.client(), await one.client()
        distant(one).half_moved = {id_of(empty)}
        await town.worlds[0].node._ownership.unopened.check(actor_on(one, empty))

        assert not actor_on(one, other).outage.is_on


async def test_the_outage_of_its_server_is_over_for_the_others_when_it_is(seed: int) -> None:
    """Though it was the one that the server failed first, and is what tells whether it is back."""
    async with open_town(seed=seed) as town:
        one, _, torn, other = await two_answers(town)
        distant(one).is_out = True
        one.responder.turns[0].say("c")
        await settle()
        await pass_time(town, 6)
        one.responder.turns[1].say("c")
        await pass_time(town, 1)
        assert not actor_on(one, other).feed.is_durable
        distant(one).half_moved = {id_of(torn)}
        distant(one).is_out = False
        await pass_time(town, 3, is_polled=False)

        assert actor_on(one, other).feed.is_durable
        assert not actor_on(one, other).outage.is_on
        assert not actor_on(one, torn).feed.is_durable
        assert one.node.is_store_lost
        distant(one).half_moved = set()
        await pass_time(town, 3, is_polled=False)
        assert actor_on(one, torn).feed.is_durable
        assert not one.node.is_store_lost


async def test_who_follows_another_isn_t_sent_away_once_the_server_is_back(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, torn, other = await two_answers(town)
        tabs = [await tab_on(two, client) for client in (torn, other)]
        distant(two).is_out = True
        actor_on(two, torn).look()
        await settle()
        distant(two).half_moved = {id_of(torn)}
        distant(two).is_out = False
        await pass_time(town, 12)

        assert actor_on(two, other).feed.ended is None
        one.responder.turns[1].end()
        await settle()
        tabs[1].read()
        assert tabs[1].statuses() == ["completed"]
