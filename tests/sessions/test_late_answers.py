"""What the store answers late: its owner went on alone meanwhile, or hasn't read yet what came before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.sessions.conversation import Client, World, limits_of, settle
from tests.sessions.test_moved_parts import OTHER, Parts
from tests.sessions.town import (
    Town,
    actor_on,
    asked,
    begin_outage,
    distant,
    go,
    knock,
    open_town,
    polls,
    tab_on,
    texts,
)
from unbroken.sessions.backends.base import Append
from unbroken.sessions.entries import CreateItem, Submitted
from unbroken.sessions.errors import CursorLost, StoreUnavailable
from unbroken.sessions.ids import ChainId, ItemId, SessionId
from unbroken.sessions.items import Message, Text

seeds = pytest.mark.parametrize("seed", [1, 2])
outputs = pytest.mark.parametrize("what", ["piece", "end"])


@seeds
@outputs
async def test_what_was_taken_as_its_owner_went_on_alone_is_said_again_there(
    seed: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        append, gate, results = distant(one).append, asyncio.Event(), list[Any]()

        async def append_slowly(appends: Sequence[Append]) -> Any:
            result = await append(appends)
            if not results:
                results.append(result)
                await gate.wait()
            return result

        monkeypatch.setattr(distant(one), "append", append_slowly)
        one.responder.last.say("c") if what == "piece" else one.responder.last.end()
        await settle()
        assert results
        await begin_outage(one)
        await client.say("kept")  # nobody takes it: the owner goes on alone
        assert not actor_on(one, client).feed.is_durable
        gate.set()
        await settle()
        await town.store_is_back()
        if what == "piece":
            one.responder.last.say("d")
            one.responder.last.end()
            await settle()
        await go(client, one)
        await polls(town, 3)

        assert not actor_on(one, client).session.is_running
        assert texts(one, client) == ["hello", "abcd" if what == "piece" else "ab", "kept"]


@seeds
@outputs
@pytest.mark.parametrize("how", ["lost", "outage", "outage, and something is said"])
async def test_what_was_written_behind_something_unread_is_not_forgotten(
    seed: int, what: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        said = CreateItem(Message(ItemId("item_9"), "user", (Text("in between"),)))
        append = distant(one).append
        copied: dict[SessionId, Any] = {}

        async def write_behind(appends: Sequence[Append]) -> Any:
            if copied:
                return await append(appends)
            copied.update(town.copy())
            log = town.stored(client).log
            late = Submitted(said, ChainId("elsewhere"))
            await town.memory.submit(SessionId(client.session_id or ""), late, log.position(log.head))
            result = await append(appends)
            if how == "lost":
                town.lose(copied)
            else:
                distant(one).is_out = True
            return result

        monkeypatch.setattr(distant(one), "append", write_behind)
        one.responder.last.say("c") if what == "piece" else one.responder.last.end()
        if how != "lost":
            await settle()
            await begin_outage(one)
        if how == "outage, and something is said":
            await client.say("kept")
        await settle()
        assert copied
        await town.store_is_back()
        if what == "piece":
            one.responder.last.say("d")
            one.responder.last.end()
            await settle()
        await go(client, one)
        await polls(town, 3)

        assert not actor_on(one, client).session.is_running
        assert texts(one, client)[:2] == ["hello", "abcd" if what == "piece" else "ab"]


@seeds
async def test_an_input_without_a_name_that_was_read_before_its_answer_came_is_not_written_twice(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        submit, gate = distant(one).submit, asyncio.Event()

        async def submit_slowly(*args: Any) -> Any:
            receipt = await submit(*args)
            await gate.wait()
            return receipt

        monkeypatch.setattr(distant(one), "submit", submit_slowly)
        actor = actor_on(one, client)
        saying = asyncio.create_task(client.say("kept"))
        await settle()
        actor.look()
        await settle()
        one.responder.last.say("c")
        await begin_outage(one)
        one.responder.last.say("d")
        await settle()
        assert not actor.feed.is_durable
        gate.set()
        await saying
        await town.store_is_back()
        one.responder.last.end()
        await settle()
        await go(client, one)
        client.read()

        assert "error" not in client.types()


@seeds
async def test_whoever_begins_a_session_as_another_writes_to_it_has_its_client_come_again(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        client.read()
        other = type(client)(two, client.session_id)
        other.last_id = client.last_id
        await knock(other, two)
        gate, is_written = asyncio.Event(), asyncio.Event()
        append, acquire = distant(one).append, distant(two).acquire

        async def append_then(appends: Sequence[Append]) -> Any:
            await gate.wait()
            result = await append(appends)
            is_written.set()
            return result

        async def acquire_behind(*args: Any, **options: Any) -> Any:
            gate.set()
            await is_written.wait()
            return await acquire(*args, **options)

        monkeypatch.setattr(distant(one), "append", append_then)
        monkeypatch.setattr(distant(two), "acquire", acquire_behind)
        first = asyncio.create_task(client.say("from one"))
        await settle()
        with pytest.raises(CursorLost):
            await other.say("from two")
        await asyncio.gather(first, return_exceptions=True)


async def test_an_empty_session_whose_part_fails_says_nothing_of_the_part_it_was_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = Parts(monkeypatch)
    async with open_town(seed=1) as town:
        one = town.worlds[0]
        await one.client()
        await settle()
        parts.move()

        async def fail(*_: Any) -> Any:
            raise StoreUnavailable

        monkeypatch.setattr(distant(one), "inspect", fail)
        await polls(town, 1)

        assert not one.node._outages.of(OTHER).is_on


@seeds
async def test_what_was_given_up_is_not_run_beside_its_successor(seed: int) -> None:
    """The store was out of reach: it didn't hear of it, and is about to be asked again."""
    async with open_town(seed=seed) as town:
        one, _ = town.worlds
        client = await one.client()
        await client.say("hi")
        client.disconnect()
        distant(one).is_out = True
        await polls(town, 1)
        await one.node._ownership.forget(actor_on(one, client))  # another one needs its room
        distant(one).is_out = False
        one.clock.advance(1)  # it is looked for again
        await settle()
        await client.resume()
        await client.ask()
        one.clock.advance(5)
        await settle()

        assert len(one.responder.turns) == 1


@seeds
async def test_an_input_that_arrives_late_does_not_wake_what_was_given_up(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender has left meanwhile, and the session has been loaded anew."""
    async with open_town(seed=seed, limits=limits_of(release_after=0.0)) as town:
        one, _ = town.worlds
        client = await one.client()
        await client.say("hi")
        attachment, connection = client.attachment, client.connection
        assert attachment is not None
        assert connection is not None
        submitted = connection.receive('{"type": "response.create"}')
        assert isinstance(submitted, Submitted)
        submit, gate = distant(one).submit, asyncio.Event()

        async def submit_slowly(*args: Any) -> Any:
            receipt = await submit(*args)
            await gate.wait()
            return receipt

        monkeypatch.setattr(distant(one), "submit", submit_slowly)
        town.is_silent = True
        asking = asyncio.create_task(attachment.submit(submitted))
        await settle()
        client.disconnect()
        distant(one).is_out = True
        await one.node.sweep()
        assert len(one.node.hub) == 0
        distant(one).is_out = False
        one.clock.advance(1)  # it is looked for again
        await settle()
        await client.resume()
        await settle()
        gate.set()
        await asking
        await settle()

        assert len(one.responder.turns) == 1


# Who has seen on another node what its owner hasn't heard of yet.


async def ahead(town: Town, monkeypatch: pytest.MonkeyPatch) -> tuple[World, Client, asyncio.Event]:
    """Return an owner that waits for the answer to a write, until the event is set, and a client that was
    shown by a follower what was written, and comes to the owner.
    """
    one, two, client = await asked(town)
    tab = await tab_on(two, client)
    append, gate = distant(one).append, asyncio.Event()

    async def append_slowly(appends: Sequence[Append]) -> Any:
        result = await append(appends)
        await gate.wait()
        return result

    monkeypatch.setattr(distant(one), "append", append_slowly)
    one.responder.last.say("c")
    await settle()
    tab.read()
    assert tab.text() == "abc"
    tab.disconnect()
    tab.world = one
    return one, tab, gate


@seeds
async def test_who_comes_to_an_owner_that_waits_for_an_answer_resumes_behind_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, tab, gate = await ahead(town, monkeypatch)
        coming = asyncio.create_task(tab.resume())
        await settle()
        assert not coming.done()
        gate.set()
        await coming
        assert tab.resumed
        one.responder.last.end()
        await settle()
        tab.read()
        assert (tab.text(), tab.statuses()) == ("abc", ["completed"])


@seeds
async def test_who_comes_to_an_owner_whose_answer_was_lost_resumes_when_it_has_read(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, tab, gate = await ahead(town, monkeypatch)
        distant(one).loses_answers = True
        coming = asyncio.create_task(tab.resume())
        gate.set()
        await settle()
        distant(one).loses_answers = False
        one.clock.advance(0.1)  # it asks again
        await coming
        assert tab.resumed


@seeds
@pytest.mark.parametrize("how", ["no answer", "alone", "given up"])
async def test_who_comes_to_an_owner_that_is_not_answered_does_not_wait_for_long(
    seed: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, tab, _ = await ahead(town, monkeypatch)
        coming = asyncio.create_task(tab.resume())
        await settle()
        assert not coming.done()
        match how:
            case "no answer":
                one.clock.advance(3)
            case "alone":
                actor_on(one, tab)._go_on_alone()
            case _:
                actor_on(one, tab).let_go(CursorLost())
        await settle()
        assert coming.done()
        await coming
