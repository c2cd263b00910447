from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest
import structlog

from tests.fakes.store import DistantStore
from tests.sessions.conversation import ALICE, Client, World, limits_of, open_world, settle
from unbroken.server.protocols.cursor import parse_cursor
from unbroken.sessions.backends.cluster import Alone
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.entries import CancelResponse, CreateItem, Submitted
from unbroken.sessions.errors import (
    CursorLost,
    Displaced,
    LostTail,
    NodeDraining,
    NodeFull,
    Refusal,
    SessionNotFound,
    TooManyConnections,
)
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import (
    ChainId,
    Incarnation,
    ItemId,
    NodeId,
    Nonce,
    PrincipalId,
    SessionId,
    new_session_id,
)
from unbroken.sessions.items import Message, SessionConfig, Text
from unbroken.sessions.node import Attachment
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import RunLimits

BOB: Final = PrincipalId("bob")
CHAIN: Final = ChainId("c1")


async def attach(
    world: World, client: Client, position: Position | None = None, **options: Any
) -> Attachment:
    assert client.session_id is not None
    principal = options.pop("principal", ALICE)
    chain = options.pop("chain", CHAIN)
    return await world.node.attach(SessionId(client.session_id), principal, position, chain, **options)


def place_of(client: Client) -> Position:
    parsed = parse_cursor(client.last_id or "")
    assert parsed is not None
    return parsed[0]


# Who may attach.


async def test_a_stranger_learns_nothing() -> None:
    """Whether a session is another's, is gone or never was: one answer."""
    store = MemoryStore()
    async with open_world(store=store) as world:
        client = await world.client()
        await client.say("secret")
        answers: list[tuple[type, str]] = []
        for session_id in (SessionId(client.session_id or ""), new_session_id()):
            with pytest.raises(SessionNotFound) as caught:
                await world.node.attach(session_id, BOB, place_of(client), CHAIN)
            answers.append((type(caught.value), str(caught.value)))
        await store.acquire(
            SessionId(client.session_id or ""), NodeId("n"), seen=next(iter(world.node.hub)).fence
        )
        next(iter(world.node.hub)).feed.end(LostTail("planted"))
        with pytest.raises(SessionNotFound) as caught:
            await attach(world, client)
        answers.append((type(caught.value), str(caught.value)))

        assert len(set(answers)) == 1


async def test_a_session_loaded_from_the_store_is_still_its_principal_s() -> None:
    store = MemoryStore()
    async with open_world(store=store) as world:
        client = await world.client()
        await client.say("secret")
        next(iter(world.node.hub)).feed.end(LostTail("planted"))

        with pytest.raises(SessionNotFound):
            await attach(world, client, principal=BOB)
        attachment = await attach(world, client)
        assert [item.text for item in attachment.session.items()] == ["secret"]


async def test_two_that_come_at_once_find_one_session() -> None:
    for seed in range(10):
        store = DistantStore(MemoryStore(), seed)
        async with open_world(store=store) as world:
            client = await world.client()
            await client.say("hi")
            next(iter(world.node.hub)).feed.end(LostTail("planted"))

            found = await asyncio.gather(*[attach(world, client) for _ in range(5)])

            assert len({id(each.session) for each in found}) == 1
            assert len(world.node.hub) == 1


# Where a client goes on.


async def test_without_a_cursor_everything_is_shown_from_the_beginning() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.say("hi")

        attachment = await attach(world, client)

        assert attachment.resumed
        assert attachment.preamble == []
        assert attachment.cursor.seq == 0


async def test_every_place_in_the_log_is_gone_on_from_exactly() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.ask()
        world.responder.last.say(*"abc")
        world.responder.last.end()
        await settle()
        log = next(iter(world.node.hub)).log

        for seq in range(log.head + 1):
            attachment = await attach(world, client, log.position(seq))
            assert (attachment.resumed, attachment.cursor.seq) == (True, seq)
            attachment.close()
            if seq:
                again = await attach(world, client, log.position(seq), repeat=True)
                assert (again.resumed, again.cursor.seq) == (True, seq - 1)
                again.close()


@pytest.mark.parametrize("why", ["future", "nonce", "incarnation", "floor", "repeat at the floor"])
async def test_a_place_that_can_not_be_gone_on_from_means_starting_over(why: str) -> None:
    async with open_world() as world:
        client = await world.client()
        for n in range(5):
            await client.say(f"m{n}")
        log = next(iter(world.node.hub)).log
        middle = log.position(4)
        position = {
            "future": middle._replace(seq=log.head + 1),
            "nonce": middle._replace(nonce=Nonce(middle.nonce ^ 1)),
            "incarnation": middle._replace(incarnation=Incarnation("ffffffff")),
            "floor": log.position(3),
            "repeat at the floor": middle,
        }[why]
        if "floor" in why:
            log.forget(4)

        attachment = await attach(world, client, position, repeat="repeat" in why)

        assert not attachment.resumed
        assert len(attachment.preamble) == 5
        assert attachment.cursor.is_at_head


async def test_the_floor_itself_is_gone_on_from() -> None:
    async with open_world() as world:
        client = await world.client()
        for n in range(5):
            await client.say(f"m{n}")
        log = next(iter(world.node.hub)).log
        log.forget(4)

        attachment = await attach(world, client, log.position(4))

        assert (attachment.resumed, attachment.cursor.seq) == (True, 4)


async def test_without_a_cursor_and_with_a_floor_the_state_is_shown() -> None:
    """It asked for all there is, and gets that: nothing was lost on its side."""
    async with open_world() as world:
        client = await world.client()
        await client.say("hi")
        next(iter(world.node.hub)).log.forget(1)

        attachment = await attach(world, client)

        assert attachment.resumed
        assert len(attachment.preamble) == 1


# Slow connections.


async def test_an_attached_cursor_holds_the_floor_until_the_maximum() -> None:
    limits = limits_of(actor=ActorLimits(run=RunLimits(), retain_bytes=2_000, log_bytes=40_000))
    async with open_world(limits) as world:
        client = await world.client()
        slow = Client(world, client.session_id)
        await slow.connect()
        log = next(iter(world.node.hub)).log
        for _ in range(20):
            await client.say("x" * 200)
            client.read()
        assert log.size > 2_000
        assert log.floor == 0
        slow.read()
        assert len(slow.of_type("conversation.item.done")) == 20

        for _ in range(100):
            await client.say("x" * 200)
            client.read()
        assert log.size <= 40_000
        with pytest.raises(CursorLost):
            slow.read()
        slow.disconnect()
        await slow.resume()
        slow.read()
        assert slow.resumed is False
        assert len(slow.of_type("conversation.item.done")) == 120


# Caps.


async def test_a_node_holds_only_so_many_sessions() -> None:
    async with open_world(limits_of(sessions=2)) as world:
        first, _ = await world.client(), await world.client()
        with pytest.raises(NodeFull):
            await world.client()
        first.disconnect()
        world.clock.advance(100)
        await settle()
        await world.client()


async def test_a_node_holds_only_so_many_bytes() -> None:
    async with open_world(limits_of(bytes=8_000)) as world:
        client = await world.client()
        await client.ask("hi")
        await client.say("x" * 5_000)
        with pytest.raises(NodeFull):
            await client.say("more")
        with pytest.raises(NodeFull):
            await client.send({"type": "response.create"})
        with pytest.raises(NodeFull):
            await world.client()

        # What makes room, and Stop, always work.
        await client.send({"type": "response.cancel"})
        client.read()
        assert client.statuses() == ["cancelled"]
        (added, _) = client.of_type("conversation.item.done")
        await client.send({"type": "conversation.item.delete", "item_id": added["item"]["id"]})
        client.read()
        assert client.of_type("conversation.item.deleted")


async def test_a_session_has_only_so_many_connections() -> None:
    async with open_world(limits_of(connections_per_session=2)) as world:
        client = await world.client()
        second = await attach(world, client)
        with pytest.raises(TooManyConnections):
            await attach(world, client, chain=ChainId("third"))
        second.close()
        second.close()
        await attach(world, client)


async def test_whoever_acts_for_a_moment_is_had_in_a_full_session_and_counts_for_nothing() -> None:
    async with open_world(limits_of(connections_per_session=2)) as world:
        client = await world.client()
        acting = [await attach(world, client, watches=False) for _ in range(3)]
        second = await attach(world, client)
        acting.append(await attach(world, client, watches=False))
        with pytest.raises(TooManyConnections):
            await attach(world, client, chain=ChainId("third"))
        third = await attach(world, client)  # the oldest of its chain that watches makes room

        with pytest.raises(Displaced):
            second.cursor.take(1)
        assert [each.cursor.take(1) for each in (*acting, third)] == [[]] * 5


async def test_whoever_acts_for_a_moment_is_had_on_a_node_that_drains() -> None:
    async with open_world() as world:
        client, other = await world.client(), await world.client()
        await client.ask()
        world.node.begin_drain()
        (running,) = (await attach(world, client, watches=False)).session.responses
        attachment = await attach(world, client, watches=False)
        await attachment.submit(Submitted(CancelResponse(running), CHAIN))
        await settle()
        client.read()

        assert client.statuses() == ["cancelled"]
        with pytest.raises(NodeDraining):
            await attach(world, client)
        with pytest.raises(NodeDraining):
            await attach(world, other, watches=False)  # in which nothing has been said


async def test_a_client_whose_old_connections_nobody_missed_yet_is_not_locked_out() -> None:
    """They may be half open: the oldest of its own makes room, and no other client's."""
    async with open_world(limits_of(connections_per_session=2)) as world:
        client = await world.client()
        assert client.attachment is not None
        first = client.attachment
        stranger = await attach(world, client)
        client.attachment = None
        await client.resume()

        with pytest.raises(Displaced):
            first.cursor.take(1)
        first.close()
        assert stranger.cursor.take(1) == []
        await client.ask()
        client.read()
        assert "response.created" in client.types()


# Forgetting.


async def test_an_empty_session_goes_soon_after_its_connection() -> None:
    limits = limits_of(empty_grace=60, idle_timeout=1_000, sweep_interval=10)
    async with open_world(limits) as world:
        client = await world.client()
        world.clock.advance(500)
        await settle()
        assert len(world.node.hub) == 1, "not while it is connected"
        client.disconnect()
        world.clock.advance(55)
        await settle()
        assert len(world.node.hub) == 1
        world.clock.advance(20)
        await settle()

        assert len(world.node.hub) == 0
        with pytest.raises(SessionNotFound):
            await attach(world, client)


async def test_an_idle_session_goes_when_its_time_is_over_and_the_store_forgets_it() -> None:
    store = MemoryStore()
    limits = limits_of(empty_grace=60, idle_timeout=1_000, sweep_interval=10)
    async with open_world(limits, store) as world:
        client = await world.client()
        await client.say("hi")
        client.disconnect()
        world.clock.advance(990)
        await settle()
        assert len(world.node.hub) == 1
        world.clock.advance(20)
        await settle()

        assert (len(world.node.hub), len(store), world.node.hub.size) == (0, 0, 0)
        with pytest.raises(SessionNotFound):
            await attach(world, client)


async def test_a_session_at_work_is_not_idle() -> None:
    limits = limits_of(
        actor=ActorLimits(run=RunLimits(stall_timeout=1e6, turn_timeout=1e6)),
        idle_timeout=50,
        sweep_interval=10,
    )
    async with open_world(limits) as world:
        client = await world.client()
        await client.ask()
        client.disconnect()
        world.clock.advance(500)
        await settle()
        assert len(world.node.hub) == 1
        world.responder.last.end()
        await settle()
        world.clock.advance(45)
        await settle()
        assert len(world.node.hub) == 1, "it counts from its last work"
        world.clock.advance(20)
        await settle()
        assert len(world.node.hub) == 0


async def test_coming_back_puts_the_end_off() -> None:
    limits = limits_of(idle_timeout=100, sweep_interval=10)
    async with open_world(limits) as world:
        client = await world.client()
        await client.say("hi")
        client.disconnect()
        for _ in range(5):
            world.clock.advance(90)
            await settle()
            await client.resume()
            client.disconnect()
        assert len(world.node.hub) == 1


async def test_a_session_that_was_given_up_is_swept_once_nobody_looks_at_it() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.say("hi")
        next(iter(world.node.hub)).feed.end(LostTail("planted"))
        world.clock.advance(16)
        await settle()
        assert len(world.node.hub) == 1
        client.disconnect()
        world.clock.advance(16)
        await settle()
        assert len(world.node.hub) == 0
        await client.resume()
        assert client.resumed


# Shutting down.


async def test_a_draining_node_takes_no_new_work_and_lets_the_old_end() -> None:
    async with open_world() as world:
        client, idle = await world.client(), await world.client()
        await client.ask()
        world.node.begin_drain()
        with pytest.raises(NodeDraining):
            await world.node.create(ALICE, SessionConfig("m"), CHAIN)
        with pytest.raises(NodeDraining):
            await attach(world, client)
        assert client.attachment is not None
        assert idle.attachment is not None
        with pytest.raises(Refusal) as caught:
            await idle.send({"type": "response.create"})
            idle.read()
            raise Refusal(idle.errors()[-1], "")
        assert caught.value.code == "server_draining"
        assert idle.attachment.is_finished
        assert not client.attachment.is_finished

        draining = asyncio.create_task(world.node.drained(60))
        world.responder.last.say("the end")
        await settle()
        assert not draining.done()
        world.responder.last.end()
        await settle()
        client.read()
        assert client.statuses() == ["completed"]
        assert client.attachment.is_finished
        client.disconnect()
        idle.disconnect()
        await draining


async def test_a_drain_wakes_connections_to_see_that_they_are_done() -> None:
    async with open_world() as world:
        client = await world.client()
        assert client.attachment is not None
        cursor = client.attachment.cursor
        assert cursor.take(1) == []
        woken = asyncio.Event()
        cursor.listen(woken.set)
        world.node.begin_drain()
        assert woken.is_set()
        assert client.attachment.is_finished


async def test_a_drain_s_deadline_interrupts_what_still_runs() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.ask()
        world.responder.last.say("half")
        await settle()
        world.node.begin_drain()
        draining = asyncio.create_task(world.node.drained(0))
        await settle()
        client.read()
        client.disconnect()
        await draining

        assert world.ended == ["interrupted"]
        (done,) = client.of_type("response.done")
        assert done["response"]["unbroken"]["status"] == "interrupted"
        assert client.text() == "half"
        assert world.responder.open == []


async def test_a_drain_s_deadline_interrupts_what_waits_and_what_stops_too() -> None:
    """A response that never began has nothing to stop: it must be ended all the same, or the drain hangs."""
    async with open_world() as world:
        client = await world.client()
        await client.send({"type": "session.update", "session": {"unbroken": {"concurrency": "queue"}}})
        for _ in range(3):
            await client.ask()
        world.node.begin_drain()
        draining = asyncio.create_task(world.node.drained(0))
        await settle()
        client.read()
        client.disconnect()
        await settle()

        assert draining.done()
        assert world.ended == ["interrupted"] * 3
        assert len(client.statuses()) == 3
        assert len(world.responder.turns) == 1


async def test_a_drain_does_not_wait_for_a_session_that_was_given_up() -> None:
    store = DistantStore(MemoryStore())
    async with open_world(store=store) as world:
        client = await world.client()
        await client.ask()
        store.fail_next_append(LostTail("planted"))
        world.responder.last.say("a")
        await settle()
        client.disconnect()
        world.node.begin_drain()
        draining = asyncio.create_task(world.node.drained(60))
        await settle()

        assert draining.done()


async def test_a_cancel_is_taken_while_draining() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.ask()
        world.node.begin_drain()
        assert client.attachment is not None
        await client.attachment.submit(Submitted(CancelResponse(), CHAIN))
        await settle()

        assert world.ended == ["cancelled"]


async def test_leaving_a_node_ends_every_task_and_timer() -> None:
    before = asyncio.all_tasks()
    async with open_world() as world:
        clients = [await world.client() for _ in range(5)]
        for client in clients:
            await client.ask()
            world.responder.last.say("a")
        await settle()
        assert len(asyncio.all_tasks()) > len(before)

    assert asyncio.all_tasks() == before
    assert world.responder.open == []
    assert world.clock.pending == 0


async def test_a_node_that_was_left_takes_nothing_more() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.say("hi")
    with pytest.raises(NodeDraining):
        await client.say("late")


async def test_nodes_have_names_of_their_own() -> None:
    async with open_world() as one, open_world() as two:
        assert one.node.id != two.node.id
        assert "secret" not in repr(one.node)


async def test_a_full_node_makes_room_by_forgetting_what_has_been_idle_for_long() -> None:
    """Else a day's conversations would keep everybody out until they expire."""
    async with open_world(limits_of(sessions=2, room_timeout=600)) as world:
        old, young = await world.client(), await world.client()
        await old.say("long ago")
        await young.say("just now")
        old.disconnect()
        world.clock.advance(601)
        young.disconnect()

        newcomer = await world.client()

        assert len(world.node.hub) == 2
        with pytest.raises(SessionNotFound):
            await old.connect()
        with pytest.raises(NodeFull):
            await world.client()
        newcomer.disconnect()
        await young.connect()


async def test_a_connection_whose_input_is_undecided_is_not_finished() -> None:
    """It was taken; its answer is still to be shown before the node lets go."""
    async with open_world(store=DistantStore(MemoryStore(), seed=3)) as world:
        client = await world.client()
        await client.say("hello")
        client.read()
        attachment = client.attachment
        assert attachment is not None
        world.node.begin_drain()
        assert attachment.is_finished
        command = CreateItem(Message(ItemId("late"), "user", (Text("x"),)))
        await attachment.submit(Submitted(command, client.chain))

        assert not attachment.is_finished
        assert world.node.hub.is_busy
        await settle()
        client.read()
        assert attachment.is_finished
        assert not world.node.hub.is_busy


async def test_a_session_that_has_something_to_read_when_the_node_is_left_is_no_crash() -> None:
    class LeftSlowly(Alone):
        async def leave(self) -> None:
            for actor in world.node.hub:
                actor.look()
            await settle()

    world = World(MemoryStore(), limits_of(), cluster=LeftSlowly())
    with structlog.testing.capture_logs() as logs:
        async with world.node:
            client = await world.client()
            await client.say("hello")

    assert logs == []
