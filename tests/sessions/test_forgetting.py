"""What a client deleted leaves the log soon, without anybody who is connected losing anything."""

from __future__ import annotations

import pytest

from tests.sessions.conversation import Client, World, limits_of, settle
from tests.sessions.town import (
    Town,
    actor_on,
    answered,
    come_back,
    distant,
    open_town,
    stored_text,
    tab_on,
    texts,
)
from unbroken.sessions.entries import (
    CreateResponse,
    DeleteItem,
    Entry,
    ItemDeleted,
    Submitted,
)
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.event_log import EventLog
from unbroken.sessions.ids import ChainId, Incarnation, ItemId, Nonce, ResponseId
from unbroken.sessions.items import ResponseRequest


async def delete_answer(world: World, client: Client) -> None:
    """Have the client delete what was said last."""
    last = actor_on(world, client).session.items()[-1]
    await client.send({"type": "conversation.item.delete", "item_id": last.id})
    await settle()


async def wait(town: Town) -> None:
    """Let as long pass on all nodes as a deletion takes to leave the log."""
    for world in town.worlds:
        world.clock.advance(5)
    await settle()


async def test_it_leaves_the_store_and_who_is_connected_goes_on() -> None:
    async with open_town() as town:
        one, two, client = await answered(town)
        client.read()
        tab = await tab_on(two, client)
        assert stored_text(town, client) == "ab"
        await delete_answer(one, client)
        client.read()
        tab.read()
        await wait(town)

        assert stored_text(town, client) == ""
        for world in (one, two):
            log = actor_on(world, client).log
            assert 0 < log.deleted_at <= log.floor
        await client.ask("more")
        one.responder.last.say("c")
        await settle()
        for each in (client, tab):
            each.read()
            assert each.text().endswith("c")
            assert each.errors() == []


async def test_who_is_connected_is_shown_the_deletion_first() -> None:
    async with open_town() as town:
        one, _, client = await answered(town)
        await delete_answer(one, client)
        await wait(town)
        assert stored_text(town, client) == "ab"
        client.read()
        assert client.types()[-1] == "conversation.item.deleted"
        await wait(town)
        assert stored_text(town, client) == ""


async def test_it_waits_for_what_runs() -> None:
    async with open_town() as town:
        one, _, client = await answered(town)
        await client.ask("more")
        one.responder.last.say("c")
        await settle()
        first = actor_on(one, client).session.items()[1]
        await client.send({"type": "conversation.item.delete", "item_id": first.id})
        await settle()
        client.read()
        await wait(town)
        assert "c" in stored_text(town, client)
        one.responder.last.end()
        await settle()
        client.read()
        await wait(town)
        assert "a" not in stored_text(town, client)


async def test_whoever_loads_it_after_its_owner_was_lost_has_it_leave() -> None:
    async with open_town() as town:
        one, two, client = await answered(town)
        client.read()
        await delete_answer(one, client)
        client.read()
        client.disconnect()
        town.kill(one)
        town.notice(one)
        assert stored_text(town, client) == "ab"
        await come_back(client, two)

        assert stored_text(town, client) == ""
        assert texts(two, client) == ["hello"]


async def test_a_store_that_was_away_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_town(seed=1) as town:
        one, _, client = await answered(town)
        client.read()
        await delete_answer(one, client)
        client.read()

        async def away(*_: object) -> None:
            raise StoreUnavailable

        with monkeypatch.context() as patched:
            patched.setattr(distant(one), "compact", away)
            await wait(town)
            assert stored_text(town, client) == "ab"
        await wait(town)
        assert stored_text(town, client) == ""


async def test_a_session_that_is_let_go_takes_nothing_of_it_along() -> None:
    async with open_town(limits=limits_of()) as town:
        one, _, client = await answered(town)
        client.read()
        await delete_answer(one, client)
        client.read()
        client.disconnect()
        await settle()
        await one.node._ownership.forget(actor_on(one, client))
        assert stored_text(town, client) == ""


async def test_nor_does_one_whose_store_was_away_when_it_was_to_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_town(seed=1, limits=limits_of()) as town:
        one, _, client = await answered(town)
        client.read()
        await delete_answer(one, client)
        client.read()

        async def away(*_: object) -> None:
            raise StoreUnavailable

        with monkeypatch.context() as patched:
            patched.setattr(distant(one), "compact", away)
            await wait(town)
        client.disconnect()
        await settle()
        assert stored_text(town, client) == "ab"
        await one.node._ownership.forget(actor_on(one, client))
        assert stored_text(town, client) == ""


async def test_nor_does_one_that_a_leaving_node_gives_up() -> None:
    async with open_town(limits=limits_of()) as town:
        one, _, client = await answered(town)
        client.read()
        await delete_answer(one, client)
        client.read()
        client.disconnect()
        await settle()
        one.node._ownership.is_leaving = True
        await one.node._ownership.forget(actor_on(one, client))
        assert stored_text(town, client) == ""


@pytest.mark.parametrize("is_deletion", [True, False])
def test_an_answer_that_another_takes_the_place_of_is_no_deletion(is_deletion: bool) -> None:
    """Whoever asked for that is shown it from its request on."""
    old = ItemId("item_1")
    asked = CreateResponse(ResponseId("resp_1"), ResponseRequest(), (old,))
    log = EventLog(Incarnation("i"))
    command = DeleteItem(old) if is_deletion else asked
    log.append(Entry(1, Nonce(1), Submitted(command, ChainId("c"))))
    log.append(Entry(2, Nonce(2), ItemDeleted(old, 1)))
    assert log.deleted_at == (2 if is_deletion else 0)
