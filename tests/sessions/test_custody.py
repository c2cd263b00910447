"""When an upstream that keeps its responses is told to stop one: not while another node may go on with it."""

from __future__ import annotations

import pytest

from tests.sessions.conversation import Client, World, limits_of, open_world, settle
from tests.sessions.town import (
    Town,
    actor_on,
    asked,
    begin_outage,
    distant,
    move,
    open_town,
    polls,
)
from unbroken.sessions.custody import Custody
from unbroken.sessions.errors import ResponderError, StoreUnavailable
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.responder import Handle
from unbroken.sessions.run import RunLimits

near_or_far = pytest.mark.parametrize("seed", [None, 1, 2])
far = pytest.mark.parametrize("seed", [1, 2])

CUT = ResponderError("upstream_cut", "The line broke.")


async def frozen(town: Town) -> tuple[World, World, Client]:
    """Return a node that stands still, the one that goes on with its answer, and that one's client."""
    for world in town.worlds:
        world.responder.can_resume = True
    one, two, client = await asked(town, Handle("resp_1"), "a", "b")
    await move(client, two)
    neighbour = town.neighbours.pop(one.node.id)
    town.notice(one)
    await settle()
    assert two.responder.last.turn.resumption is not None
    town.neighbours[one.node.id] = neighbour
    return one, two, client


async def finished(two: World, client: Client) -> str:
    """Return what a client was shown of an answer that *two* has gone on with to its end."""
    two.responder.last.say("c")
    two.responder.last.end()
    await settle()
    client.read()
    assert client.statuses() == ["completed"]
    return client.text()


@near_or_far
async def test_a_node_that_wakes_after_its_replacement_stops_nothing(seed: int | None) -> None:
    """Its timers are due before it has heard of anything."""
    async with open_town(seed=seed) as town:
        one, two, client = await frozen(town)
        one.clock.block(100)
        await settle()
        one.clock.advance(100)  # and if it still hears of nothing, it is late
        await settle()

        assert one.responder.turns[0].is_closed
        assert await finished(two, client) == "abc"
        await polls(town, 2)
        assert one.responder.cancelled == two.responder.cancelled == []


@near_or_far
@pytest.mark.parametrize("how", ["fails", "drains"])
async def test_who_has_been_replaced_ends_nothing_upstream(seed: int | None, how: str) -> None:
    """Also if its own connection to the upstream has timed out, or it was told to end."""
    async with open_town(seed=seed) as town:
        one, two, client = await frozen(town)
        if how == "fails":
            one.responder.turns[0].fail(CUT)
        else:
            actor_on(one, client).interrupt()
        await settle()

        assert one.responder.turns[0].turn.custody.is_passed_on
        assert await finished(two, client) == "abc"
        assert one.responder.cancelled == two.responder.cancelled == []


@near_or_far
async def test_a_cancel_reaches_the_upstream_once_its_end_is_in_the_log(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town, Handle("resp_1"), "a", "b")
        await client.send({"type": "response.cancel"})
        client.read()

        assert client.statuses() == ["cancelled"]
        assert one.responder.cancelled == ["resp_1"]


@near_or_far
async def test_an_answer_that_fails_is_stopped_upstream(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town, Handle("resp_1"), "a", "b")
        one.responder.last.fail(CUT)
        await settle()
        client.read()

        assert client.statuses() == ["failed"]
        assert one.responder.cancelled == ["resp_1"]


@far
async def test_an_end_whose_confirmation_was_lost_is_told_when_it_is_found(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town, Handle("resp_1"), "a", "b")
        distant(one).loses_answers = True
        one.responder.last.fail(CUT)
        await settle()
        assert one.responder.cancelled == []
        await town.store_is_back()
        client.read()

        assert client.statuses() == ["failed"]
        assert one.responder.cancelled == ["resp_1"]


@far
async def test_without_its_store_a_node_stops_nothing_until_that_is_back(seed: int) -> None:
    """Others may reach the store, and have gone on with it."""
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town, Handle("resp_1"), "a", "b")
        await begin_outage(one)
        await client.send({"type": "response.cancel"})
        client.read()
        assert client.statuses() == ["cancelled"]
        assert one.responder.last.is_closed
        assert one.responder.cancelled == []
        await town.store_is_back()

        assert one.responder.cancelled == ["resp_1"]


@far
async def test_who_was_cut_off_and_replaced_meanwhile_stops_nothing(seed: int) -> None:
    async with open_town(seed=seed) as town:
        for world in town.worlds:
            world.responder.can_resume = True
        one, two, client = await asked(town, Handle("resp_1"), "a", "b")
        await move(client, two)
        await begin_outage(one)
        town.notice(one)
        await settle()
        actor_on(one, client).interrupt()
        await settle()
        assert one.responder.last.is_closed
        await town.store_is_back()

        assert await finished(two, client) == "abc"
        assert one.responder.cancelled == two.responder.cancelled == []


@far
async def test_what_a_dead_node_left_is_not_stopped_before_its_end_is_in_the_log(seed: int) -> None:
    """Whoever would end it may have been replaced in its turn, by one that can go on with it."""
    limits = limits_of(actor=ActorLimits(run=RunLimits()))
    async with open_town(seed=seed, limits=limits) as town:
        one, two, client = await asked(town, Handle("resp_1"), "a", "b")
        await move(client, two)
        town.kill(one)
        distant(two).fail_next_append(StoreUnavailable())
        town.notice(one)
        await settle()
        assert two.responder.cancelled == []
        two.clock.advance(1)
        await settle()
        client.read()

        assert client.statuses() == ["failed"]
        assert two.responder.cancelled == ["resp_1"]


async def test_a_node_that_has_its_sessions_alone_waits_for_nothing() -> None:
    """Nobody else will ever stop what it leaves."""
    async with open_world() as world:
        client = await world.client()
        await client.ask()
        world.responder.last.say(Handle("resp_1"), "a")
        await settle()

    assert world.responder.cancelled == ["resp_1"]


# One of several upstreams that is gone on without.


@near_or_far
async def test_an_upstream_that_is_gone_on_without_is_stopped_while_the_response_runs(
    seed: int | None,
) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town, Handle("resp_1"))
        assert one.responder.cancelled == []
        one.responder.last.say(Handle(""))
        await settle()
        assert one.responder.cancelled == ["resp_1"]

        one.responder.last.say(Handle("resp_2"), "a")
        one.responder.last.end()
        await settle()
        client.read()
        assert (client.text(), client.statuses()) == ("a", ["completed"])
        assert one.responder.cancelled == ["resp_1"]


@near_or_far
async def test_it_is_also_if_the_next_one_has_a_name_at_once(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town, Handle("resp_1"))
        one.responder.last.say(Handle(""), Handle("resp_2"), "a")
        await settle()
        client.read()

        assert client.text() == "a"
        assert one.responder.cancelled == ["resp_1"]


@near_or_far
async def test_who_has_been_replaced_stops_nothing_that_it_would_go_on_without(seed: int | None) -> None:
    """It stood still, and takes an upstream for silent with which the new owner goes on."""
    async with open_town(seed=seed) as town:
        one, two, client = await frozen(town)
        one.responder.turns[0].say(Handle(""), "from another")
        await settle()

        assert await finished(two, client) == "abc"
        assert one.responder.cancelled == two.responder.cancelled == []


@far
async def test_what_is_gone_on_without_while_the_store_is_away_waits_for_it(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town, Handle("resp_1"))
        await begin_outage(one)
        one.responder.last.say(Handle(""), "a")
        await settle()
        client.read()
        assert client.text() == "a"
        assert one.responder.cancelled == []
        await town.store_is_back()

        assert one.responder.cancelled == ["resp_1"]


@near_or_far
async def test_no_owner_goes_on_with_what_one_before_went_on_without(seed: int | None) -> None:
    """Its rest would be another answer's than the beginning."""
    async with open_town(seed=seed) as town:
        for world in town.worlds:
            world.responder.can_resume = True
        one, two, client = await asked(town, Handle("resp_1"), Handle(""), "a")
        await move(client, two)
        town.kill(one)
        town.notice(one)
        await settle()
        client.read()

        assert two.responder.turns == []
        assert client.statuses() == ["failed"]


# By itself.


def told(custody: Custody) -> list[int]:
    said: list[int] = []
    custody.stop(lambda: said.append(1))
    return said


def test_what_is_left_waits_until_the_end_is_in_the_store() -> None:
    custody = Custody(is_sole=False)
    said = told(custody)
    assert said == []
    custody.settle()
    custody.settle()

    assert said == [1]
    assert told(custody) == [1], "what comes later needn't wait"


def test_what_is_given_up_is_settled_by_itself() -> None:
    custody = Custody(is_sole=False)
    before = told(custody)
    given_up = custody.give_up()
    after = told(custody)
    given_up.settle()
    assert (before, after) == ([1], [])
    custody.settle()
    assert (before, after) == ([1], [1])


def test_what_is_passed_on_is_never_stopped() -> None:
    custody = Custody(is_sole=False)
    said = told(custody)
    custody.pass_on()
    custody.settle()

    assert said == told(custody) == []
