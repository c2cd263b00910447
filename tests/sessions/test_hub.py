from __future__ import annotations

from tests.sessions.conversation import open_world, settle
from unbroken.sessions.errors import LostTail
from unbroken.sessions.hub import Hub
from unbroken.sessions.ids import SessionId

QUEUE = {"type": "realtime", "unbroken": {"concurrency": "queue"}}


async def test_sessions_are_found_counted_and_forgotten() -> None:
    async with open_world() as world:
        hub = Hub()
        clients = [await world.client() for _ in range(3)]
        actors = list(world.node.hub)
        for actor in actors:
            hub.add(actor)

        assert len(hub) == 3
        assert hub.get(SessionId(clients[1].session_id or "")) is actors[1]
        assert hub.get(SessionId("sess_none")) is None
        for actor in hub:  # may change underfoot
            hub.remove(actor)
            hub.remove(actor)
        assert (len(hub), hub.size) == (0, 0)
        hub.add(actors[0])
        for _ in range(2):
            hub.clear(actors[0].session.id)
        assert (len(hub), hub.size) == (0, 0)


async def test_the_account_follows_each_session() -> None:
    async with open_world() as world:
        client, other = await world.client(), await world.client()
        await client.say("x" * 5_000)
        await other.say("y")
        hub = world.node.hub

        assert hub.size == sum(actor.size for actor in hub)
        grown = hub.size
        for actor in hub:
            hub.account(actor)
            hub.account(actor)
        assert hub.size == grown
        for actor in hub:
            hub.remove(actor)
            hub.account(actor)
        assert hub.size == 0, "what is not here any more doesn't count"


async def test_running_sessions_and_connections_are_counted() -> None:
    async with open_world() as world:
        client, _ = await world.client(), await world.client()
        hub = world.node.hub
        assert (hub.running, hub.connections) == (0, 2)
        await client.ask()
        assert hub.running == 1
        client.disconnect()
        assert (hub.running, hub.connections) == (1, 1)
        world.responder.last.end()
        await settle()
        assert hub.running == 0


async def test_responses_that_wait_are_counted() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.send({"type": "session.update", "session": QUEUE})
        hub = world.node.hub
        for _ in range(3):
            await client.ask()
        assert (hub.running, hub.waiting) == (1, 2)
        world.responder.last.end()
        await settle()
        assert (hub.running, hub.waiting) == (1, 1)
        for actor in hub:
            hub.remove(actor)
        assert (hub.running, hub.waiting) == (0, 0)


async def test_a_session_that_was_given_up_does_not_run_here() -> None:
    """A drain would wait for its end until the deadline."""
    async with open_world() as world:
        client = await world.client()
        await client.ask()
        (actor,) = world.node.hub
        actor.feed.end(LostTail("planted"))
        world.node.hub.account(actor)

        assert actor.session.is_running
        assert world.node.hub.running == 0


async def test_it_says_which_responses_of_a_session_wait_behind_another() -> None:
    async with open_world() as world:
        client = await world.client()
        hub = world.node.hub
        session_id = SessionId(client.session_id or "")
        await client.send({"type": "session.update", "session": QUEUE})
        await client.ask()
        assert hub.waiting_in(session_id) == []
        for _ in range(2):
            await client.ask()
        waiting = hub.waiting_in(session_id)
        assert len(waiting) == 2
        world.responder.last.end()
        await settle()
        assert hub.waiting_in(session_id) == waiting[1:]
        assert hub.waiting_in(SessionId("sess_none")) == []
