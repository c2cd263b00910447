"""What an owner makes of answers of the store that fail, or come when much has happened meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from tests.sessions.conversation import Client, settle
from tests.sessions.town import (
    Town,
    actor_on,
    asked,
    begin_outage,
    distant,
    go,
    open_town,
    polls,
    tab_on,
    texts,
)
from unbroken.sessions.backends.base import Append
from unbroken.sessions.errors import ResponderError, StoreUnavailable


class Held:
    """The answer to one call of a store: what was asked for is done, and nobody hears of it for long."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.is_asked = False

    def hold_append(self, town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
        store = distant(town.worlds[0])
        append = store.append

        async def slow(appends: Sequence[Append]) -> Any:
            results = await append(appends)
            if not self.is_asked:
                self.is_asked = True
                await self.let_go.wait()
            return results

        monkeypatch.setattr(store, "append", slow)

    def lose_submit(self, town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is done of it, and that is heard of late."""
        store = distant(town.worlds[0])
        submit = store.submit

        async def slow(*args: Any) -> Any:
            if not self.is_asked:
                self.is_asked = True
                await self.let_go.wait()
                raise StoreUnavailable
            return await submit(*args)

        monkeypatch.setattr(store, "submit", slow)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("ends", ["failed", "completed"])
async def test_an_answer_without_a_word_whose_end_is_not_written_at_once_is_not_asked_for_again(
    seed: int, ends: str
) -> None:
    """Its run is over, and the log doesn't say so yet: it isn't one that was never begun."""
    async with open_town(seed=seed) as town:
        world = town.worlds[0]
        client = await world.client()
        await client.ask()
        distant(world).fail_next_append(StoreUnavailable())
        turn = world.responder.last
        if ends == "failed":
            turn.fail(ResponderError("upstream_unavailable", "no"))
        else:
            turn.end()
        await settle()
        for _ in range(3):
            world.clock.advance(0.3)
            await settle()
        client.read()

        assert len(world.responder.turns) == 1
        assert client.statuses() == [ends]
        await client.ask("next")
        assert len(world.responder.turns) == 2


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("what", ["a piece", "the end"])
async def test_a_write_is_not_taken_for_done_when_the_log_is_another_by_then(
    what: str, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store took it; then the owner went on alone, and came back with a log that doesn't hold it."""
    async with open_town(seed=1) as town:
        world, other, client = await asked(town)
        held = Held()
        held.hold_append(town, monkeypatch)
        if what == "a piece":
            world.responder.last.say("c")
        else:
            world.responder.last.end()
        await settle()
        assert held.is_asked
        await begin_outage(world)
        await client.say("kept")
        if lost:
            town.lose()
        await town.store_is_back()
        await go(client, world)
        held.let_go.set()
        await settle()
        if what == "a piece":
            world.responder.last.say("d")
            world.responder.last.end()
        await settle()
        await polls(town, 3)
        client.read()
        tab = await tab_on(other, client)
        tab.read()

        said = "abcd" if what == "a piece" else "ab"
        assert sorted(texts(world, client)) == sorted(["hello", said, "kept"])
        assert texts(other, client) == texts(world, client)
        assert client.statuses() == ["completed"]
        assert len(world.responder.turns) == 1
        await client.ask("next")
        assert len(world.responder.open) == 1


@pytest.mark.parametrize("what", ["a piece", "the end"])
async def test_a_write_is_not_taken_for_done_when_the_store_has_lost_it_before_its_answer_comes(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input has its number by then."""
    async with open_town(seed=1) as town:
        world, other, client = await asked(town)
        before = town.copy()
        held = Held()
        held.hold_append(town, monkeypatch)
        if what == "a piece":
            world.responder.last.say("c")
        else:
            world.responder.last.end()
        await settle()
        assert held.is_asked
        town.lose(before)
        await client.say("kept")
        held.let_go.set()
        await settle()
        if what == "a piece":
            world.responder.last.end()
        await settle()
        await polls(town, 3)
        tab = await tab_on(other, client)
        tab.read()

        said = "abc" if what == "a piece" else "ab"
        assert sorted(texts(world, client)) == sorted(["hello", said, "kept"])
        assert texts(other, client) == texts(world, client)
        assert len(world.responder.turns) == 1


async def test_an_input_that_the_owner_takes_alone_is_not_taken_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log was begun anew while it was on its way: that says nothing of what is taken here."""
    async with open_town(seed=1) as town:
        world, _, client = await asked(town)
        actor = actor_on(world, client)
        held = Held()
        held.lose_submit(town, monkeypatch)
        say = asyncio.create_task(submitted(client, "kept"))
        await settle()
        assert held.is_asked
        town.lose()
        world.responder.last.say("c")
        await settle()
        for _ in range(3):
            world.clock.advance(1)
            await settle()
        await begin_outage(world)
        held.let_go.set()
        await settle()
        await say
        later = await tab_on(world, client)
        await later.say("later")

        assert texts(world, client)[-2:] == ["kept", "later"]
        assert actor.session.applied == actor.log.head
        await town.store_is_back()
        world.responder.last.end()
        await settle()
        await polls(town, 3)
        assert sorted(texts(world, client)) == sorted(["hello", "abc", "kept", "later"])


async def submitted(client: Client, text: str) -> None:
    """Say something, and return when it was taken."""
    assert client.connection is not None
    assert client.attachment is not None
    part = {"type": "input_text", "text": text}
    item = {"id": "item_kept", "type": "message", "role": "user", "content": [part]}
    event = client.connection.receive(
        orjson.dumps({"type": "conversation.item.create", "item": item}).decode()
    )
    await client.attachment.submit(event)  # type: ignore[arg-type]
