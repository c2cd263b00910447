"""Inputs that are sent twice, and who waits for their answers."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.store import DistantStore
from tests.sessions.acting import (
    SEEDS,
    actor_of,
    lose,
    named,
    post,
    said,
)
from tests.sessions.conversation import open_world, settle
from unbroken.sessions.backends.base import Receipt
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.entries import (
    Submitted,
)
from unbroken.sessions.errors import (
    LostTail,
    MessageIdReused,
    Refusal,
)
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import SessionId

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

        async def submit(self, session_id: SessionId, submitted: Submitted, seen: Position) -> Receipt:
            receipt = await super().submit(session_id, submitted, seen)
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
