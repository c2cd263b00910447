"""What is sent or written twice while a store is out of reach, or comes late, and is there once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.sessions.conversation import limits_of, settle
from tests.sessions.town import (
    actor_on,
    answered,
    asked,
    begin_outage,
    distant,
    go,
    move,
    open_town,
    stored_text,
    tab_on,
    texts,
)
from unbroken.sessions.backends.base import Append
from unbroken.sessions.entries import Entry
from unbroken.sessions.errors import StoreError, Unseen

NAMED = {"type": "response.create", "unbroken": {"message_id": "once"}}

pytestmark = pytest.mark.parametrize("seed", [1, 2, 3, 4])


# What is sent again.


@pytest.mark.parametrize("came_elsewhere", [True, False])
async def test_what_an_owner_has_answered_it_does_not_answer_again_alone(
    seed: int, came_elsewhere: bool
) -> None:
    """The store took the request; the client, which wasn't told, sends it again when the owner is alone."""
    async with open_town(seed=seed) as town:
        one, two, client = await answered(town)
        tab = await tab_on(two, client)
        await (tab if came_elsewhere else client).send(NAMED)
        await settle()
        one.responder.last.end()
        await settle()
        await begin_outage(one)
        await client.send(NAMED)
        await settle()
        client.read()

        assert (len(one.responder.turns), client.errors()) == (2, [])
        assert client.statuses() == ["completed"] * 2
        await town.store_is_back()
        await client.send(NAMED)
        assert len(one.responder.turns) == 2


async def test_what_was_answered_before_the_store_lost_everything_is_not_answered_again(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await answered(town)
        await client.send(NAMED)
        one.responder.last.end()
        await settle()
        for _ in range(2):
            town.lose()
            for neighbour in list(town.neighbours.values()):
                neighbour.on_gap()
            await settle()
        client.disconnect()
        await go(client, two)
        await client.send(NAMED)
        await settle()

        assert len(one.responder.turns) + len(two.responder.turns) == 2


async def test_what_was_answered_alone_before_the_log_began_anew_is_not_answered_again(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await answered(town)
        await begin_outage(one)
        await client.send(NAMED)
        one.responder.last.end()
        await settle()
        town.lose()
        await town.store_is_back()
        client.disconnect()
        await go(client, two)
        await client.send(NAMED)
        await settle()

        assert len(one.responder.turns) + len(two.responder.turns) == 2


async def test_what_was_sent_to_two_sides_of_a_cut_is_answered_once(seed: int) -> None:
    """One node cut off from the store goes on alone, while another takes the same request for it."""
    async with open_town(seed=seed) as town:
        one, two, client = await answered(town)
        tab = await tab_on(two, client)
        await begin_outage(one)
        await tab.send(NAMED)
        await client.send(NAMED)
        await settle()
        one.responder.last.end()
        await settle()
        await town.store_is_back()
        tab.disconnect()
        await go(tab, two)
        await tab.send(NAMED)
        await settle()

        assert len(one.responder.turns) + len(two.responder.turns) == 2


# Writes that come late.


async def test_a_write_that_comes_when_it_was_repeated_is_there_once(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        distant(one).is_late = True
        one.responder.last.say("c")
        one.responder.last.end()
        await settle()
        distant(one).is_late = False
        one.clock.advance(2)  # it is read, and not there: it is said again
        await settle()
        late = await distant(one).deliver()

        client.read()
        assert [type(result) for result in late] == [Unseen] * len(late)
        assert late
        assert (client.text(), client.statuses()) == ("abc", ["completed"])
        assert stored_text(town, client) == "abc"


async def test_a_write_that_comes_before_it_is_repeated_is_there_once(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wasn't there when its owner looked."""
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        store = distant(one)
        store.is_late = True
        one.responder.last.say("c")
        await settle()
        store.is_late = False
        append = store.append

        async def deliver_first(appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
            monkeypatch.setattr(store, "append", append)
            await store.deliver()
            return await store.append(appends)

        monkeypatch.setattr(store, "append", deliver_first)
        one.clock.advance(2)
        await settle()
        assert store.append == append
        one.responder.last.say("d")
        one.responder.last.end()
        await settle()

        client.read()
        assert (client.text(), client.statuses()) == ("abcd", ["completed"])
        assert stored_text(town, client) == "abcd"


async def test_a_write_that_comes_when_its_owner_has_gone_on_alone_is_there_once(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await answered(town)
        distant(one).is_late = True
        await client.ask("again")
        await settle()
        await begin_outage(one)
        one.responder.last.say("c")
        await settle()
        distant(one).is_late = False
        await town.store_is_back()
        late = await distant(one).deliver()
        assert [type(result) for result in late] == [Unseen] * len(late)
        assert late
        one.responder.last.say("d")
        one.responder.last.end()
        await settle()

        assert len(one.responder.turns) == 2
        await move(client, two)
        assert (client.text(), client.statuses()) == ("abcd", ["completed", "completed"])


@pytest.mark.parametrize("comes", ["before the store is asked again", "after all"])
async def test_a_nameless_request_that_comes_late_is_answered_once(seed: int, comes: str) -> None:
    """Most clients give none. Its owner has taken it for lost, and answered it alone."""
    async with open_town(seed=seed, limits=limits_of(outage_patience=0.0)) as town:
        one, two, client = await asked(town)
        await client.say("again")
        one.responder.last.end()
        await settle()
        distant(one).are_inputs_late = True
        await client.send({"type": "response.create"})
        assert not actor_on(one, client).feed.is_durable
        one.responder.last.say("c")
        one.responder.last.end()
        await settle()
        distant(one).are_inputs_late = False
        if comes == "after all":
            await town.store_is_back()
            assert actor_on(one, client).feed.is_durable
        await distant(one).deliver()
        await town.store_is_back()
        for neighbour in list(town.neighbours.values()):
            neighbour.on_gap()
        await settle()

        assert len(one.responder.turns) == 2
        client.disconnect()
        await go(client, two)
        assert sorted(texts(two, client)) == ["ab", "again", "c", "hello"]
        assert len(one.responder.turns) + len(two.responder.turns) == 2
