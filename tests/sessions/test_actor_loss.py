"""An actor that loses its session."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.store import DistantStore
from tests.sessions.acting import (
    actor_of,
    lose,
    said,
)
from tests.sessions.conversation import open_world, settle
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.errors import (
    Fenced,
    LostTail,
    SessionError,
    StoreError,
)
from unbroken.sessions.ids import NodeId


@pytest.mark.parametrize("failure", [LostTail("planted"), Fenced("planted")])
async def test_a_lost_owner_stops_its_work_and_tells_its_connections(failure: StoreError) -> None:
    store = DistantStore(MemoryStore())
    async with open_world(store=store) as world:
        client = await world.client()
        await client.ask()
        actor = actor_of(world, client)
        world.responder.last.say("a")
        await settle()
        store.fail_next_append(failure)
        world.responder.last.say("b")
        await settle()

        with pytest.raises(type(failure)):
            client.read()
        assert client.text() == "a"
        assert world.responder.open == []
        with pytest.raises(type(failure)):
            await actor.submit(said("late"))


async def test_a_session_is_found_again_in_the_store_after_its_owner_was_lost() -> None:
    store = DistantStore(MemoryStore())
    async with open_world(store=store) as world:
        client = await world.client()
        await client.ask()
        world.responder.last.say("half")
        await settle()
        client.read()
        await lose(world, client, store)

        await client.resume()
        await settle()
        client.read()

        assert client.resumed is True
        assert client.statuses() == ["failed"], "what ran under the lost owner is interrupted"
        (done,) = client.of_type("response.done")
        assert done["response"]["unbroken"]["status"] == "interrupted"
        updated = client.of_type("session.updated")
        assert updated[-1]["session"]["instructions"] == "again", "the input it had taken is answered"
        assert client.text() == "half"
        await client.ask("again")
        assert len(world.responder.turns) == 2


async def test_what_waited_under_a_lost_owner_runs_under_the_next() -> None:
    store = DistantStore(MemoryStore())
    async with open_world(store=store) as world:
        client = await world.client()
        await client.send({"type": "session.update", "session": {"unbroken": {"concurrency": "queue"}}})
        await client.ask()
        await client.ask()
        client.read()
        await lose(world, client, store)
        await client.resume()
        await settle()

        assert len(world.responder.turns) == 2
        world.responder.last.end()
        await settle()
        client.read()
        assert client.statuses() == ["failed", "completed"]


async def test_an_input_that_was_answered_by_nothing_is_not_answered_again_by_the_next_owner() -> None:
    """A second cancel calls for no output; taken up later, it could stop a response it never meant."""
    async with open_world() as world:
        client = await world.client()
        await client.ask()
        world.responder.last.hangs_on_close = held = asyncio.Event()
        for _ in range(2):
            await client.send({"type": "response.cancel"})
        held.set()
        await settle()
        client.read()
        assert client.statuses() == ["cancelled"]
        actor_of(world, client).feed.end(LostTail("planted"))
        client.disconnect()

        await client.resume()
        await settle()
        client.read()
        assert client.resumed
        assert client.errors() == []


async def test_a_bug_in_one_session_ends_that_one_alone() -> None:
    async with open_world() as world:
        broken, whole = await world.client(), await world.client()
        await broken.say("hi")
        actor = actor_of(world, broken)
        actor.session.decide = None  # type: ignore[method-assign, assignment]
        await broken.say("again")
        with pytest.raises(SessionError, match="TypeError in the session's owner"):
            broken.read()
        broken.disconnect()

        await whole.ask()
        assert len(world.responder.turns) == 1
        await broken.resume()
        await settle()
        broken.read()
        assert len(broken.of_type("conversation.item.done")) == 2


async def test_another_node_that_took_the_session_fences_this_one() -> None:
    store = MemoryStore()
    async with open_world(store=store) as world:
        client = await world.client()
        await client.ask()
        actor = actor_of(world, client)
        await store.acquire(actor.session.id, NodeId("node_b"), seen=actor.fence)
        head = actor.log.head
        world.responder.last.say("not mine any more")
        await settle()

        with pytest.raises(Fenced):
            client.read()
        assert actor.log.head == head
        assert world.responder.open == []
