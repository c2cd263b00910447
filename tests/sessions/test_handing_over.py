"""Nodes that are told to end, and what becomes of what still runs on them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.sessions.conversation import Client, limits_of, settle
from tests.sessions.town import asked, distant, move, open_town, polls
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.responder import Handle
from unbroken.sessions.run import RunLimits

near_or_far = pytest.mark.parametrize("seed", [None, 1, 2])
far = pytest.mark.parametrize("seed", [1, 2, 3])

TWO_ATTEMPTS = limits_of(actor=ActorLimits(run=RunLimits(stop_timeout=0.01), attempts=2))


@pytest.mark.parametrize("said", ["handle", "item"])
async def test_a_session_that_is_left_at_the_deadline_asks_no_upstream_again(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write is on its way then, and the model hasn't said its first word."""
    async with open_town(seed=1, limits=TWO_ATTEMPTS) as town:
        one = town.worlds[0]
        client = await one.client()
        await client.ask()
        go_on, on_its_way = asyncio.Event(), asyncio.Event()
        append = distant(one).append

        async def slow(appends: Any) -> Any:
            results = await append(appends)
            on_its_way.set()
            await go_on.wait()
            return results

        monkeypatch.setattr(distant(one), "append", slow)
        if said == "handle":
            one.responder.last.say(Handle("upstream-1"))
        else:
            await client.say("by the way")
        await on_its_way.wait()
        client.disconnect()
        one.node.begin_drain()
        await one.node.drained(0)
        go_on.set()
        await settle()

        assert len(one.responder.turns) == 1


@near_or_far
async def test_a_turn_keeps_the_plan_that_it_was_asked_by_wherever_it_goes_on(seed: int | None) -> None:
    """Also one that still waits, and whoever comes back by another plan."""
    async with open_town(seed=seed, limits=TWO_ATTEMPTS) as town:
        one, two = town.worlds
        client = Client(one)
        client.plan = "strict"
        await client.connect()
        await client.send(
            {"type": "session.update", "session": {"type": "realtime", "unbroken": {"concurrency": "queue"}}}
        )
        await client.ask()
        await client.ask("And then?")
        client.read()
        client.plan = "lax"
        await move(client, two)
        town.kill(one)
        town.notice(one)
        await settle()
        two.responder.last.end()
        await settle()

        assert [each.turn.attempt for each in two.responder.turns] == [2, 1]
        assert [each.turn.request.plan for each in two.responder.turns] == ["strict", "strict"]
        client.read()
        await client.ask("And by this one?")
        two.responder.last.end()
        await settle()
        assert two.responder.last.turn.request.plan == "lax"


async def test_an_upstream_s_work_that_nobody_can_go_on_with_is_stopped_at_the_deadline() -> None:
    """The turn is attempted again elsewhere; what the upstream has of the first attempt is nobody's."""
    async with open_town(seed=1, limits=TWO_ATTEMPTS) as town:
        one, two, client = await asked(town, Handle("upstream-1"), "a", "b")
        await move(client, two)
        one.node.begin_drain()
        await one.node.drained(0)
        await settle()
        await polls(town, 3)

        assert two.responder.last.turn.attempt == 2
        assert not one.responder.turns[0].turn.custody.is_passed_on
        assert two.responder.abandoned == ["upstream-1"]


@near_or_far
async def test_a_node_that_drains_begins_no_response_that_waited(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        session = {"type": "realtime", "unbroken": {"concurrency": "queue"}}
        await client.send({"type": "session.update", "session": session})
        await client.ask()
        one.responder.last.say("a")
        await settle()
        await client.ask("second")
        client.read()
        assert client.errors() == []
        await move(client, two)
        one.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(60))
        await settle()
        one.responder.last.end()
        await settle()

        assert len(one.responder.turns) == 1
        assert town.owner_of(client) is two.node
        assert len(two.responder.turns) == 1
        assert draining.done()


@near_or_far
async def test_nodes_that_are_told_to_end_together_keep_their_connections_to_the_end(
    seed: int | None,
) -> None:
    async with open_town(seed=seed, limits=limits_of(handover_delay=1.0)) as town:
        one, two, client = await asked(town)
        one.node.begin_drain()
        await settle()
        assert one.node.has_successors, "as far as is known"
        two.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(60))
        await settle()
        for _ in range(3):
            one.clock.advance(0.6)
            await settle()
        assert not (one.node.is_handing_over or one.node.has_successors)
        assert client.attachment is not None
        assert not client.attachment.is_finished
        one.responder.last.say("c")
        one.responder.last.end()
        await settle()
        client.read()
        assert client.statuses() == ["completed"]
        assert client.attachment.is_finished
        client.disconnect()
        await settle()
        assert draining.done()


@near_or_far
async def test_a_node_that_comes_while_another_drains_is_handed_its_sessions(seed: int | None) -> None:
    async with open_town(1, seed=seed) as town:
        one = town.worlds[0]
        client = await one.client()
        await client.ask()
        one.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(60))
        await settle()
        assert not one.node.is_handing_over
        await town.node()
        for _ in range(3):
            one.clock.advance(0.6)
            await settle()
        assert one.node.is_handing_over
        draining.cancel()
        await asyncio.wait([draining])
