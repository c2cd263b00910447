from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.fakes.store import DistantStore
from tests.sessions.acting import (
    SEEDS,
    actor_of,
    asked,
    bodies_in,
    item_event,
    post,
    said,
    stored,
    write_elsewhere,
)
from tests.sessions.conversation import Client, limits_of, open_world, settle
from unbroken.sessions.backends.base import NOBODY, Append, Page
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.entries import (
    Body,
    Deltas,
    Entry,
    SessionOpened,
    Submitted,
)
from unbroken.sessions.errors import (
    CursorLost,
    LostTail,
    ResponderError,
    SessionNotFound,
    StoreError,
)
from unbroken.sessions.event_log import Position, Slice
from unbroken.sessions.ids import NodeId, PrincipalId, SessionId
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.responder import FunctionCallPiece
from unbroken.sessions.run import RunLimits
from unbroken.sessions.session import Session, SessionLimits

# What an actor costs.


async def test_an_empty_session_costs_the_store_nothing() -> None:
    store = MemoryStore()
    async with open_world(store=store) as world:
        client = await world.client()

        assert len(store) == 0
        assert client.frames[0]["type"] == "session.created"
        await client.say("hello")
        assert len(store) == 1


async def test_an_idle_session_has_no_task() -> None:
    async with open_world() as world:
        before = asyncio.all_tasks()
        clients = [await world.client() for _ in range(10)]
        await clients[0].ask()
        assert len(asyncio.all_tasks()) > len(before)
        world.responder.last.say("hi")
        world.responder.last.end()
        await settle()

        assert asyncio.all_tasks() == before


async def test_no_write_is_made_without_need() -> None:
    """Each is a round trip in a cluster."""

    class Counting(DistantStore):
        def __init__(self) -> None:
            super().__init__(MemoryStore())
            self.appends: list[Sequence[Body]] = []

        async def append(self, appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
            self.appends += [each.bodies for each in appends]
            return await super().append(appends)

    store = Counting()
    async with open_world(store=store) as world:
        client = await world.client()
        await client.ask()
        world.responder.last.say(*"abc")
        await settle()
        world.responder.last.end()
        await settle()

    kinds = [[type(body).__name__ for body in bodies] for bodies in store.appends]
    assert kinds == [
        ["SessionOpened"],
        ["ItemAdded"],
        ["ResponseStarted"],
        ["OutputStarted", "Deltas"],
        ["OutputDone", "ResponseDone"],
    ]


# Committing.


async def test_a_cursor_never_yields_what_the_store_does_not_hold() -> None:
    for seed in SEEDS:
        inner = MemoryStore()
        async with open_world(store=DistantStore(inner, seed)) as world:
            client = await world.client()
            actor = actor_of(world, client)
            await client.ask()
            assert client.attachment is not None
            cursor = client.attachment.cursor
            seen = head = 0
            world.responder.last.say(*"abcdefgh")
            world.responder.last.end()
            for _ in range(200):
                await asyncio.sleep(0)
                head = (await inner.acquire(actor.session.id, world.node.id)).head
                for record in cursor.take(3):
                    seen = record.seq + (len(record.parts) if isinstance(record, Slice) else 1) - 1
                    assert seen <= head
            assert seen == actor.log.head == head


async def test_writers_everywhere_at_once_end_in_the_same_state() -> None:
    """Inputs of other nodes land between any two of the owner's own steps."""
    for seed in SEEDS:
        inner = MemoryStore()
        async with open_world(store=DistantStore(inner, seed)) as world:
            client = await world.client()
            await client.send({"type": "session.update", "session": {"unbroken": {"concurrency": "queue"}}})
            actor = actor_of(world, client)
            await client.ask()
            first = world.responder.last
            async with asyncio.TaskGroup() as tasks:
                for n in range(4):
                    first.say(f"a{n}")
                    tasks.create_task(write_elsewhere(world, actor, said(f"e{n}")))
                    tasks.create_task(post(client, item_event(f"o{n}")))
                first.end()
                tasks.create_task(write_elsewhere(world, actor, asked("r_elsewhere")))
            await settle()
            world.responder.last.say("second")
            world.responder.last.end()
            await settle()

            client.read()
            assert client.statuses() == ["completed", "completed"]
            assert client.text() == "a0a1a2a3second"
            assert len(world.responder.turns) == 2, "each was asked once"
            items = {item.id for item in actor.session.items()}
            assert {f"e{n}" for n in range(4)} | {f"o{n}" for n in range(4)} <= items
            rebuilt = Session(actor.session.id, SessionLimits())
            for entry in await stored(inner, actor):
                rebuilt.apply(entry)
            rebuilt.consume(actor.session.consumed)
            assert rebuilt.snapshot() == actor.session.snapshot()
            assert rebuilt.has_inputs is False


async def test_an_attempt_that_ended_is_not_begun_again_when_its_end_comes_back_late() -> None:
    """Between the write of an end and the moment it is applied, others' inputs may stand before it."""
    for seed in SEEDS:
        async with open_world(store=DistantStore(MemoryStore(), seed)) as world:
            client = await world.client()
            actor = actor_of(world, client)
            await client.ask()
            world.responder.last.fail(ResponderError("agent_error", "It failed."))
            async with asyncio.TaskGroup() as tasks:
                for n in range(6):
                    tasks.create_task(write_elsewhere(world, actor, said(f"e{n}")))
            await settle()

            assert len(world.responder.turns) == 1
            assert actor.feed.ended is None
            client.read()
            assert client.statuses() == ["failed"]


async def test_a_wake_up_during_the_last_look_is_not_missed() -> None:
    """It comes after the store has said that there is nothing, and before this node has heard so."""

    class Slow(MemoryStore):
        between: Submitted | None = None

        async def read(
            self, session_id: SessionId, after: Position, limit: int, *, node: NodeId = NOBODY
        ) -> Page:
            page = await super().read(session_id, after, limit, node=node)
            if not page.entries and self.between is not None:
                submitted, self.between = self.between, None
                await self.submit(session_id, submitted, after)
                actor.look()
            return page

    store = Slow()
    async with open_world(store=store) as world:
        client = await world.client()
        await client.say("first")
        actor = actor_of(world, client)
        store.between = said("e1")
        actor.look()
        await settle()

        assert actor.session.item("e1") is not None


async def test_the_first_entry_of_a_log_opens_it_whoever_comes_first() -> None:
    for seed in SEEDS:
        inner = MemoryStore()
        async with open_world(store=DistantStore(inner, seed)) as world:
            first = await world.client()
            other = Client(world, first.session_id)
            await other.connect()
            async with asyncio.TaskGroup() as tasks:
                update: dict[str, object] = {"type": "session.update", "session": {"instructions": "x"}}
                tasks.create_task(post(first, update))
                tasks.create_task(post(other, item_event("u1")))
            await settle()

            actor = actor_of(world, first)
            bodies = await bodies_in(inner, actor)
            assert isinstance(bodies[0], SessionOpened)
            assert [type(body) for body in bodies].count(SessionOpened) == 1
            assert actor.session.config.instructions == "x"


async def test_a_connection_that_is_lost_while_it_opens_the_session_leaves_it_usable() -> None:
    for seed in SEEDS:
        for steps in range(8):
            async with open_world(store=DistantStore(MemoryStore(), seed)) as world:
                client = await world.client()
                sending = asyncio.create_task(post(client, item_event("u1")))
                for _ in range(steps):
                    await asyncio.sleep(0)
                sending.cancel()
                await asyncio.wait([sending])
                client.disconnect()
                await settle()

                await client.resume()
                await client.send(item_event("u1"))
                client.read()
                assert [frame["item"]["id"] for frame in client.of_type("conversation.item.done")] == ["u1"]


async def test_a_session_that_can_not_be_opened_is_given_up() -> None:
    """Nothing was accepted yet, so nothing is lost; a log without its first entry would be no session."""
    store = DistantStore(MemoryStore())
    async with open_world(store=store) as world:
        client = await world.client()
        store.fail_next_append(LostTail("planted"))
        with pytest.raises(CursorLost):
            await client.say("hi")
        with pytest.raises(CursorLost):
            client.read()
        client.disconnect()

        with pytest.raises(SessionNotFound):
            await client.resume()


# Forgetting.


async def test_a_long_conversation_takes_no_more_than_its_bounds() -> None:
    store = MemoryStore()
    limits = limits_of(actor=ActorLimits(run=RunLimits(), retain_bytes=4_000, log_bytes=8_000))
    async with open_world(limits, store) as world:
        client = await world.client()
        actor = actor_of(world, client)
        for n in range(30):
            await client.ask(f"question {n}")
            world.responder.last.say(*["word "] * 20)
            world.responder.last.end()
            await settle()
            client.read()

        assert actor.log.size <= 4_000 * 5 // 4
        assert actor.log.floor > 0
        opened = await store.acquire(actor.session.id, world.node.id)
        assert opened.floor == actor.log.floor, "the store forgets what the node has forgotten"
        assert opened.snapshot is not None
        assert opened.snapshot.seq >= opened.floor
        restored = Session.restore(actor.session.id, SessionLimits(), opened.snapshot.data)
        for entry in await stored(store, actor):
            if entry.seq > restored.applied:
                restored.apply(entry)
        assert restored.items() == actor.session.items()
        assert len(restored.items()) == 60


async def test_what_the_store_holds_after_compaction_reads_as_what_was_shown() -> None:
    """Packed answers, read from the middle, have the numbers and nonces that they had live."""
    store = MemoryStore()
    async with open_world(store=store) as world:
        client = await world.client()
        actor = actor_of(world, client)
        await client.ask()
        live: list[tuple[int, int, str]] = []
        assert client.attachment is not None
        cursor = client.attachment.cursor

        def watch() -> None:
            while records := cursor.take(3):
                for record in records:
                    if isinstance(record, Slice):
                        numbers = range(record.seq, record.last + 1)
                        live.extend(zip(numbers, record.nonces, record.parts, strict=True))

        for piece in ("a", "bc", "d", "é", "fgh"):
            world.responder.last.say(piece)
            await settle()
            watch()
        world.responder.last.end()
        await settle()

        assert "".join(part for _, _, part in live) == "abcdéfgh"
        for seq, nonce, part in live:
            (entry, *_) = (await store.read(actor.session.id, actor.log.position(seq - 1), 1)).entries
            assert isinstance(entry.body, Deltas)
            assert (entry.seq, entry.nonce, entry.body.parts[0]) == (seq, nonce, part)


async def test_a_long_answer_is_shown_whole_while_it_is_said() -> None:
    """However little of the log is left: who starts over is shown how things stand, not a replay."""
    limits = limits_of(actor=ActorLimits(run=RunLimits(), retain_bytes=1_000, log_bytes=2_000))
    async with open_world(limits) as world:
        client = await world.client()
        await client.ask()
        actor = actor_of(world, client)
        for _ in range(50):
            world.responder.last.say("x" * 100)
            await settle()
            await client.say("y" * 100)

        assert actor.log.floor > 0
        late = Client(world, client.session_id)
        await late.connect()
        late.read()
        assert late.text() == "x" * 5_000
        world.responder.last.end()
        await settle()
        late.read()
        assert late.of_type("response.output_text.done")[0]["text"] == "x" * 5_000


async def test_what_a_client_sends_meanwhile_does_not_grow_the_log_beyond_its_bound() -> None:
    """A response that takes long is no licence: refused inputs are in the log, too."""
    limits = limits_of(
        actor=ActorLimits(run=RunLimits(), retain_bytes=10_000, log_bytes=50_000),
        session=SessionLimits(conversation_bytes=20_000),
    )
    async with open_world(limits) as world:
        client = await world.client()
        await client.ask()
        actor = actor_of(world, client)
        for _ in range(100):
            await client.say("z" * 5_000)
            client.read()

        assert "conversation_full" in client.errors()
        assert actor.log.size < 100_000


async def test_size_counts_the_log_and_the_items() -> None:
    async with open_world() as world:
        client = await world.client()
        actor = actor_of(world, client)
        await client.say("x" * 10_000)

        assert 10_000 <= actor.size < 20_000, "the text is one, whoever holds it"
        assert world.node.hub.size == actor.size


async def test_an_actor_knows_whose_session_it_is() -> None:
    async with open_world() as world:
        client = Client(world)
        await client.connect(principal=PrincipalId("bob"))
        await client.say("hi")
        actor = actor_of(world, client)

        assert actor.principal == actor.session.principal == "bob"


async def test_a_call_gets_another_id_if_a_client_took_its_own_meanwhile() -> None:
    """Outputs belong to calls by their ids, so no two calls of a conversation may have the same."""
    async with open_world() as world:
        client = await world.client()
        await client.ask()
        item = {"type": "function_call", "call_id": "call_1", "name": "mine", "arguments": "[]"}
        await client.send({"type": "conversation.item.create", "item": item})
        world.responder.last.say(FunctionCallPiece(0, '{"a"', "call_1", "f"))
        await settle()
        world.responder.last.say(FunctionCallPiece(0, ": 1}"))
        world.responder.last.end()
        await settle()
        client.read()

        (call,) = client.of_type("response.done")[0]["response"]["output"]
        deltas = client.of_type("response.function_call_arguments.delta")
        assert (call["name"], call["arguments"]) == ("f", '{"a": 1}')
        assert call["call_id"] != "call_1"
        assert {delta["call_id"] for delta in deltas} == {call["call_id"]}
        for call_id in ("call_1", call["call_id"]):
            output = {"type": "function_call_output", "call_id": call_id, "output": "1"}
            await client.send({"type": "conversation.item.create", "item": output})
        client.read()
        assert client.errors() == []
