from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import orjson
import pytest
from msgspec.structs import replace

from tests.fakes.store import DistantStore
from tests.sessions.conversation import Client, World, limits_of, open_world, settle
from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.base import Append, Page, Receipt, SessionStore
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.entries import (
    Body,
    CancelResponse,
    CreateItem,
    CreateResponse,
    Deltas,
    Entry,
    InputKey,
    ResponseDone,
    SessionOpened,
    Submitted,
)
from unbroken.sessions.errors import (
    Fenced,
    LostTail,
    MessageIdReused,
    Refusal,
    ResponderError,
    SessionError,
    SessionNotFound,
    StoreError,
)
from unbroken.sessions.event_log import Position, Slice
from unbroken.sessions.ids import ChainId, Incarnation, ItemId, NodeId, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import Concurrency, Message, ResponseRequest, Text
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.responder import FunctionCallPiece, Handle
from unbroken.sessions.run import RunLimits
from unbroken.sessions.session import Session, SessionLimits

ELSEWHERE: Final = ChainId("elsewhere")
SEEDS: Final = range(16)


def said(name: str, text: str = "hello") -> Submitted:
    return Submitted(CreateItem(Message(ItemId(name), "user", (Text(text),))), ELSEWHERE)


def named(submitted: Submitted, digest: bytes) -> Submitted:
    return replace(submitted, key=InputKey("i:u1", digest))


def asked(name: str) -> Submitted:
    return Submitted(CreateResponse(ResponseId(name), ResponseRequest()), ELSEWHERE)


def actor_of(world: World, client: Client) -> Actor:
    assert client.session_id is not None
    actor = world.node.hub.get(SessionId(client.session_id))
    assert actor is not None
    return actor


async def stored(store: SessionStore, actor: Actor) -> list[Entry]:
    return (await store.read(actor.session.id, actor.log.position(actor.log.floor), 10**6)).entries


async def bodies_in(store: SessionStore, actor: Actor) -> list[Body]:
    return [entry.body for entry in await stored(store, actor)]


async def post(client: Client, event: dict[str, object]) -> None:
    """Send an event without waiting for what comes of it."""
    assert client.attachment is not None
    await client.attachment.submit(submitted_by(client, event))


def submitted_by(client: Client, event: dict[str, object]) -> Submitted:
    assert client.connection is not None
    submitted = client.connection.receive(orjson.dumps(event).decode())
    assert isinstance(submitted, Submitted)
    return submitted


def item_event(name: str, text: str = "hello") -> dict[str, object]:
    item = {"id": name, "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return {"type": "conversation.item.create", "item": item}


async def write_elsewhere(world: World, actor: Actor, submitted: Submitted) -> None:
    """Submit an input through another node, which tells this one."""
    await world.store.submit(actor.session.id, actor.log.incarnation, submitted)
    actor.look()


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

        async def read(self, session_id: SessionId, after: Position, limit: int) -> Page:
            page = await super().read(session_id, after, limit)
            if not page.entries and self.between is not None:
                submitted, self.between = self.between, None
                await self.submit(session_id, after.incarnation, submitted)
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
        with pytest.raises(LostTail):
            await client.say("hi")
        with pytest.raises(LostTail):
            client.read()
        client.disconnect()

        with pytest.raises(SessionNotFound):
            await client.resume()


# Being sent things twice.


async def test_an_input_sent_twice_runs_once() -> None:
    async with open_world() as world:
        client = await world.client()
        for _ in range(2):
            await client.say("hello", id="u1")
            await client.send({"type": "response.create", "unbroken": {"message_id": "q1"}})

        client.read()
        assert len(client.of_type("conversation.item.added")) == 1
        assert len(world.responder.turns) == 1
        assert client.errors() == []


async def test_the_same_name_for_something_else_is_refused() -> None:
    async with open_world() as world:
        client = await world.client()
        actor = actor_of(world, client)
        await actor.submit(named(said("u1"), b"1"))
        with pytest.raises(MessageIdReused):
            await actor.submit(named(said("u1", "other"), b"2"))
        await settle()

        assert [item.text for item in actor.session.items()] == ["hello"]


async def test_an_input_whose_sender_was_cut_off_is_answered_all_the_same() -> None:
    """It may be in the log although nobody was told so; a resend is then a duplicate, and nobody's task."""
    answered = 0
    for seed in SEEDS:
        for steps in range(8):
            async with open_world(store=DistantStore(MemoryStore(), seed)) as world:
                client = await world.client()
                await client.say("first")
                ask: dict[str, object] = {"type": "response.create", "unbroken": {"message_id": "q1"}}
                sending = asyncio.create_task(post(client, ask))
                for _ in range(steps):
                    await asyncio.sleep(0)
                sending.cancel()
                await asyncio.wait([sending])
                client.disconnect()
                await settle()
                answered += len(world.responder.turns)

                await client.resume()
                await client.send(ask)
                assert len(world.responder.turns) == 1
    assert 0 < answered < 8 * len(SEEDS), "the cut must fall on either side of the write"


async def test_what_was_written_for_a_sender_that_is_gone_is_answered_without_anybody_s_doing() -> None:
    class Written(MemoryStore):
        """A store that has written, and whose answer never comes."""

        is_silent = False

        async def submit(
            self, session_id: SessionId, incarnation: Incarnation, submitted: Submitted
        ) -> Receipt:
            receipt = await super().submit(session_id, incarnation, submitted)
            if self.is_silent:
                await asyncio.Event().wait()
            return receipt

    store = Written()
    async with open_world(store=store) as world:
        client = await world.client()
        await client.say("first")
        store.is_silent = True
        sending = asyncio.create_task(post(client, {"type": "response.create"}))
        await settle()
        sending.cancel()
        await asyncio.wait([sending])
        await settle()

        assert len(world.responder.turns) == 1


async def test_a_refusal_is_told_again_to_who_sends_again() -> None:
    async with open_world() as world:
        client = await world.client()
        delete: dict[str, object] = {
            "type": "conversation.item.delete",
            "item_id": "gone",
            "unbroken": {"message_id": "d1"},
        }
        await client.send(delete)
        client.read()
        assert client.errors() == ["item_not_found"]

        await client.send(delete)
        client.read()
        assert client.errors() == ["item_not_found"] * 2


async def test_a_refusal_is_told_again_after_the_owner_was_lost() -> None:
    store = DistantStore(MemoryStore())
    async with open_world(store=store) as world:
        client = await world.client()
        delete: dict[str, object] = {
            "type": "conversation.item.delete",
            "item_id": "gone",
            "unbroken": {"message_id": "d1"},
        }
        await client.send(delete)
        await lose(world, client, store)
        await client.resume()

        with pytest.raises(Refusal, match="no item"):
            await post(client, delete)


# Waiting for an answer.


async def test_an_input_is_waited_for_until_it_is_answered() -> None:
    async with open_world(store=DistantStore(MemoryStore(), 3)) as world:
        client = await world.client()
        await client.say("first")
        actor = actor_of(world, client)
        receipt = await actor.submit(said("u2"))
        waiting = [asyncio.create_task(actor.answered(receipt.seq)) for _ in range(2)]
        late = asyncio.create_task(actor.answered(receipt.seq + 100))
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert actor.session.item("u2") is None
        assert not waiting[1].done()
        await settle()

        assert waiting[1].done()
        assert actor.session.item("u2") is not None
        await actor.answered(receipt.seq)
        assert not late.done()
        actor.feed.ended = LostTail("planted")
        actor._tell_waiters()
        await late


async def test_nobody_waits_for_an_answer_that_a_lost_session_can_not_give() -> None:
    store = DistantStore(MemoryStore())
    async with open_world(store=store) as world:
        client = await world.client()
        await client.say("first")
        actor = actor_of(world, client)
        store.fail_next_append(LostTail("planted"))
        receipt = await actor.submit(said("u2"))
        waiting = asyncio.create_task(actor.answered(receipt.seq))
        await settle()

        assert waiting.done()
        await actor.answered(receipt.seq + 1)


# Running responses.


async def test_a_request_and_its_cancel_in_one_go_end_at_once() -> None:
    """Both are in the log before the responder was even called."""
    async with open_world() as world:
        client = await world.client()
        await client.say("hi")
        actor = actor_of(world, client)
        await actor.submit(asked("r1"))
        await actor.submit(Submitted(CancelResponse(), ELSEWHERE))
        await settle()

        client.read()
        assert client.statuses() == ["cancelled"]
        assert world.responder.open == []


@pytest.mark.parametrize("how", ["fail", "crash", "stall", "nothing"])
async def test_every_attempt_ends_also_without_a_connection(how: str) -> None:
    limits = limits_of(actor=ActorLimits(run=RunLimits(stall_timeout=5)))
    async with open_world(limits) as world:
        client = await world.client()
        await client.ask()
        client.disconnect()
        turn = world.responder.last
        match how:
            case "fail":
                turn.fail(ResponderError("agent_error", "It failed."))
            case "crash":
                turn.fail(RuntimeError("boom"))
            case "stall":
                world.clock.advance(6)
            case _:
                turn.end()
        await settle()

        assert world.ended == ["completed" if how == "nothing" else "failed"]
        assert not actor_of(world, client).session.is_running


async def test_a_response_that_does_not_stop_ends_when_the_time_is_up() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.ask()
        world.responder.last.ignores_cancel = True
        world.responder.last.say("a")
        await settle()
        await client.send({"type": "response.cancel"})
        assert world.ended == []
        world.clock.advance(2.1)
        await settle()

        client.read()
        assert client.statuses() == ["cancelled"]
        assert world.ended == ["cancelled"]
        await client.send({"type": "response.create"})
        assert len(world.responder.turns) == 2
        world.responder.turns[0].ignores_cancel = False
        world.responder.turns[0].end()
        await settle()
        assert world.ended == ["cancelled"], "the straggler's end is nobody's"


async def test_no_piece_follows_a_cancel() -> None:
    for seed in SEEDS:
        inner = MemoryStore()
        async with open_world(store=DistantStore(inner, seed)) as world:
            client = await world.client()
            await client.ask()
            turn = world.responder.last
            turn.ignores_cancel = True
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(post(client, {"type": "response.cancel"}))
                for n in range(20):
                    turn.say(f"{n} ")
                    await asyncio.sleep(0)
            await settle()
            turn.ignores_cancel = False
            turn.end()
            await settle()

            bodies = await bodies_in(inner, actor_of(world, client))
            kinds = [type(body).__name__ for body in bodies]
            assert kinds.count("ResponseDone") == 1
            assert "Deltas" not in kinds[kinds.index("CancelAccepted") :]
            (done,) = (body for body in bodies if isinstance(body, ResponseDone))
            shown = "".join("".join(body.parts) for body in bodies if isinstance(body, Deltas))
            assert "".join(item.text for item in done.output) == shown


async def test_a_cancel_is_taken_although_pieces_never_end() -> None:
    """With a store slower than the responder there is always something to write."""

    class Slow(DistantStore):
        async def append(self, appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
            for _ in range(5):
                await asyncio.sleep(0)
            return await super().append(appends)

    async with open_world(store=Slow(MemoryStore())) as world:
        client = await world.client()
        await client.ask()
        turn = world.responder.last
        turn.say("first")
        await settle()
        sending = asyncio.create_task(post(client, {"type": "response.cancel"}))
        for n in range(100):
            turn.say(f"{n} ")
            await asyncio.sleep(0)
        await sending

        assert turn.is_closed
        await settle()
        client.read()
        assert client.statuses() == ["cancelled"]


async def test_the_upstream_s_name_is_in_the_log() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.ask()
        world.responder.last.say(Handle("upstream_1"), "a")
        await settle()
        actor = actor_of(world, client)

        (response,) = actor.session.responses.values()
        assert response.handle == "upstream_1"
        world.responder.last.end()
        await settle()
        ordinals = [getattr(body, "ordinal", None) for body in await bodies_in(world.store, actor)]
        assert [each for each in ordinals if each is not None] == [0, 1, 2, 3, 4, 5]


async def test_a_responder_is_given_the_turn() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.send({"type": "session.update", "session": {"instructions": "be brief"}})
        await client.say("one")
        await client.send({"type": "response.create", "response": {"metadata": {"k": "v"}}})

        turn = world.responder.last.turn
        assert (turn.session_id, turn.principal, turn.attempt) == (client.session_id, "alice", 1)
        assert turn.config.instructions == "be brief"
        assert turn.request.metadata == {"k": "v"}
        assert [message.text for message in turn.items] == ["one"]


async def test_a_queued_response_runs_when_the_first_has_ended() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.send({"type": "session.update", "session": {"unbroken": {"concurrency": "queue"}}})
        await client.ask("one")
        await client.ask("two")
        assert len(world.responder.turns) == 1
        world.responder.last.say("answer")
        world.responder.last.end()
        await settle()

        texts = [message.text for message in world.responder.last.turn.items]
        assert texts == ["one", "answer", "two"]
        assert actor_of(world, client).session.config.concurrency is Concurrency.QUEUE


async def test_an_interrupting_request_stops_the_other_first() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.send({"type": "session.update", "session": {"unbroken": {"concurrency": "interrupt"}}})
        await client.ask("one")
        first = world.responder.last
        first.say("half")
        await settle()
        await client.ask("two")

        assert first.is_closed
        assert [message.text for message in world.responder.last.turn.items] == ["one", "half", "two"]
        client.read()
        (done,) = client.of_type("response.done")
        assert done["response"]["unbroken"] == {"reason": "superseded"}


# Losing the session.


async def lose(world: World, client: Client, store: DistantStore, failure: StoreError | None = None) -> None:
    """Let the store turn against the owner in its next write."""
    store.fail_next_append(failure or LostTail("planted"))
    await client.send({"type": "session.update", "session": {"instructions": "again"}})
    with pytest.raises(SessionError):
        client.read()
    client.disconnect()


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
