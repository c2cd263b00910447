"""Responses that an actor runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.fakes.store import DistantStore
from tests.sessions.acting import (
    ELSEWHERE,
    SEEDS,
    actor_of,
    asked,
    bodies_in,
    post,
)
from tests.sessions.conversation import limits_of, open_world, settle
from unbroken.sessions.backends.base import Append
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.entries import (
    CancelResponse,
    Deltas,
    Entry,
    ResponseDone,
    Submitted,
)
from unbroken.sessions.errors import (
    ResponderError,
    StoreError,
)
from unbroken.sessions.items import Concurrency
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.responder import Handle
from unbroken.sessions.run import RunLimits

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
