"""Drains that met their deadline, that were taken back, whose waiting a client of the store swallows,
and that the store is out of reach for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.sessions.conversation import ALICE, Client, World, limits_of, open_world, settle
from tests.sessions.town import (
    actor_on,
    answered,
    asked,
    begin_outage,
    distant,
    go,
    move,
    open_town,
    polls,
    tab_on,
    texts,
)
from unbroken.server.drain import Drain, Stopping
from unbroken.sessions.backends.base import NOBODY
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.entries import CancelResponse, DeleteItem, Submitted
from unbroken.sessions.errors import Fenced, NodeDraining, Refusal
from unbroken.sessions.ids import SessionId, new_chain_id
from unbroken.sessions.node import Attachment
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import RunLimits

QUICK = ActorLimits(run=RunLimits(stop_timeout=0.01))

seeded = pytest.mark.parametrize("seed", [1, 2, 3, 4])


async def test_a_session_that_was_interrupted_answers_again_when_the_drain_is_taken_back() -> None:
    async with open_world(limits_of(actor=QUICK)) as world:
        client = await world.client()
        await client.ask()
        world.responder.last.say("a")
        await settle()
        world.node.begin_drain()
        await world.node.drained(0)
        client.read()
        assert client.statuses() == ["failed"]
        world.node.end_drain()
        await client.ask("again")
        assert len(world.responder.turns) == 2
        world.responder.last.say("b")
        world.responder.last.end()
        await settle()
        client.read()

        assert client.statuses() == ["failed", "completed"]


async def test_what_is_left_at_the_deadline_and_nobody_follows_has_an_end() -> None:
    limits = limits_of(actor=ActorLimits(run=RunLimits(stop_timeout=0.01), attempts=2))
    async with open_town(limits=limits) as town:
        one, two, client = await asked(town)
        client.disconnect()
        one.node.begin_drain()
        await one.node.drained(0)
        await settle()
        await polls(town, 30)
        two.responder.last.end()  # the further attempt
        await settle()

        assert one.ended + two.ended == ["interrupted", "completed"]


async def test_an_answer_of_another_node_is_stopped_by_one_that_drains() -> None:
    async with open_town() as town:
        one, two, client = await asked(town)
        two.node.begin_drain()
        await two.node.drained(60)
        attachment = await for_a_moment(two, client)
        (running,) = attachment.session.responses
        receipt = await attachment.submit(Submitted(CancelResponse(running), new_chain_id()))
        await attachment.answered(receipt.seq)
        await settle()
        client.read()

        assert client.statuses() == ["cancelled"]
        assert attachment.session.endings.get(running) is not None
        assert town.owner_of(client) is one.node
        attachment.close()
        await settle()
        assert two.node.is_settled, "nothing of it stays"


async def test_what_is_nobodys_is_read_on_a_node_that_drains_and_changed_by_others() -> None:
    async with open_town() as town:
        one, two, client = await answered(town)
        client.disconnect()
        for world in (one, two):
            world.node.begin_drain()
            await world.node.drained(60)
        assert town.stored(client).owner == NOBODY
        attachment = await for_a_moment(two, client)
        last = attachment.session.items()[-1]
        with pytest.raises(Refusal) as caught:
            await attachment.submit(Submitted(DeleteItem(last.id), new_chain_id()))
        attachment.close()
        await settle()

        assert caught.value.code == "server_draining"
        assert two.node.is_settled
        assert town.stored(client).owner == NOBODY


async def test_what_a_node_that_drains_gives_up_in_this_moment_is_for_others() -> None:
    limits = limits_of(actor=ActorLimits(run=RunLimits(stop_timeout=0.01), attempts=2))
    async with open_town(seed=3, limits=limits) as town:
        one, _, client = await asked(town)
        client.disconnect()
        one.node.begin_drain()
        distant(one).is_out = True
        await one.node.drained(0)
        await settle()
        distant(one).is_out = False
        assert town.stored(client).owner == one.node.id
        with pytest.raises(NodeDraining):
            await for_a_moment(one, client)
        one.clock.advance(2)
        await settle()

        assert town.stored(client).owner == NOBODY
        assert one.node.is_settled


async def for_a_moment(world: World, client: Client) -> Attachment:
    session_id = SessionId(client.session_id or "")
    return await world.node.attach(session_id, ALICE, None, new_chain_id(), watches=False)


async def test_a_deadline_whose_cancellation_is_swallowed_is_met_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = limits_of(actor=QUICK)
    async with open_town(limits=limits) as town:
        one, _, client = await asked(town)
        client.disconnect()
        other = await one.client()
        await other.say("hi")
        other.disconnect()
        release = MemoryStore.release

        async def swallow(self: MemoryStore, *args: Any, **options: Any) -> None:
            monkeypatch.setattr(MemoryStore, "release", release)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await release(self, *args, **options)

        monkeypatch.setattr(MemoryStore, "release", swallow)
        one.node.begin_drain()
        async with asyncio.timeout(5):
            await one.node.drained(0.05)
        assert one.ended == ["interrupted"]


async def test_a_signal_that_comes_while_a_drain_is_taken_back_counts() -> None:
    async with open_world(limits_of(actor=QUICK)) as world:
        client = await world.client()
        await client.ask()
        drain = Drain(world.node, 3600)
        drain.begin()
        await settle()
        taking = asyncio.ensure_future(drain.take_back())
        await asyncio.sleep(0)
        drain.note_stopping()  # as the application does when a signal comes
        world.node.begin_drain()
        with pytest.raises(Stopping):
            await taking

        assert world.node.is_draining


async def test_what_was_left_while_the_store_was_out_is_taken_when_it_is_back() -> None:
    """The node that left it lives on, and has it no more: nobody finds it dead."""
    limits = limits_of(actor=ActorLimits(run=RunLimits(stop_timeout=0.01), attempts=2))
    async with open_town(seed=3, limits=limits) as town:
        one, two, client = await asked(town)
        await move(client, two)
        one.node.begin_drain()
        distant(one).is_out = True
        await one.node.drained(0)
        await settle()
        distant(one).is_out = False
        for _ in range(3):
            for world in town.worlds:
                world.clock.advance(2)
            await settle()
            town.poll()
            await settle()

        assert town.owner_of(client) is two.node
        assert len(two.responder.turns) == 1


# While the store is out of reach.


@seeded
async def test_who_leaves_gives_up_its_sessions_once_the_store_hears_of_it(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await answered(town)
        client.disconnect()
        distant(one).is_out = True
        one.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(60))
        await settle()
        assert not draining.done()

        distant(one).is_out = False
        one.clock.advance(1)
        await settle()
        assert draining.done()
        assert town.stored(client).owner == NOBODY


@seeded
async def test_who_leaves_waits_for_the_store_with_what_isn_t_saved(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        await begin_outage(one)
        one.responder.last.say("c")
        one.responder.last.end()
        await settle()
        client.disconnect()
        one.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(60))
        await settle()
        assert not draining.done()

        await town.store_is_back()
        assert draining.done()
        await go(client, two)
        assert client.statuses() == ["completed"]
        assert texts(two, client) == ["hello", "abc"]


@seeded
async def test_a_store_that_stays_away_holds_no_drain_up_beyond_its_deadline(seed: int) -> None:
    limits = limits_of(actor=ActorLimits(run=RunLimits(stop_timeout=0.01)))
    async with open_town(seed=seed, limits=limits) as town:
        one, _, client = await asked(town)
        await begin_outage(one)
        client.disconnect()
        one.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(0))
        await settle()
        one.responder.last.end()
        await asyncio.wait_for(draining, 10)


@seeded
async def test_what_a_node_had_to_give_up_holds_no_drain_up(seed: int) -> None:
    """Another one has the session: what was said alone is gone, and there is nothing to wait for."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        await begin_outage(one)
        one.responder.last.say("c")
        await settle()
        distant(one).is_out = False
        town.notice(one)
        await settle()
        tab.read()
        assert tab.statuses() == ["failed"]
        await town.store_is_back()
        assert actor_on(one, client).feed.ended is not None
        client.disconnect()
        one.node.begin_drain()
        await asyncio.wait_for(one.node.drained(3600), 5)

        assert one.node.is_settled


async def test_what_a_closing_node_would_go_on_with_is_no_failed_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_asked = asyncio.Event()

    async with open_town(seed=1) as town:
        one, _, client = await asked(town)

        async def stubborn(appends: Any) -> Any:
            has_asked.set()
            with contextlib.suppress(asyncio.CancelledError):  # as clients of stores do at times
                await asyncio.Event().wait()
            return [Fenced()] * len(appends)  # another node has taken the session meanwhile

        monkeypatch.setattr(distant(one), "append", stubborn)
        with capture_logs() as logs:
            one.responder.last.say("c")
            await has_asked.wait()
            client.disconnect()
            await one.node.__aexit__(None, None, None)

        assert [entry for entry in logs if entry["event"] == "task failed"] == []
