"""Sessions in which nobody has said anything, on a node that doesn't know that somebody has: elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.sessions.conversation import Client, World, limits_of, settle
from tests.sessions.town import (
    Town,
    actor_on,
    begin_outage,
    come_back,
    distant,
    knock,
    open_town,
    polls,
    tab_on,
    texts,
)
from unbroken.sessions import unopened
from unbroken.sessions.backends.base import Fence, Opened, Page
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.errors import CursorLost, SessionNotFound, StoreUnavailable, UnknownFormat
from unbroken.sessions.ids import Incarnation, NodeId, PrincipalId, SessionId
from unbroken.sessions.items import SessionConfig

near_or_far = pytest.mark.parametrize("seed", [None, 1, 2])
far = pytest.mark.parametrize("seed", [1, 2, 3])


async def gone_on(town: Town) -> tuple[World, World, Client]:
    """Return two nodes, and a client that came from the one to the other before it said anything.

    There its answer has begun, with ``a``. The first still has the session, as empty as it was.
    """
    one, two = town.worlds[:2]
    client = await one.client()
    client.disconnect()
    await come_back(client, two)
    await client.ask("hello")
    two.responder.last.say("a")
    await settle()
    client.read()
    return one, two, client


async def never(*_: Any) -> Opened:
    raise AssertionError


async def without_such_a_session() -> None:
    raise SessionNotFound


async def without_end(*_: Any) -> None:
    await asyncio.Event().wait()


# Who comes back.


@near_or_far
async def test_who_comes_back_to_where_the_session_was_empty_resumes(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await gone_on(town)
        client.disconnect()
        await come_back(client, one)
        assert client.resumed
        two.responder.last.say("b")
        two.responder.last.end()
        await settle()
        client.read()
        assert client.text() == "ab"
        assert client.statuses() == ["completed"]
        assert texts(one, client) == ["hello", "ab"]


@near_or_far
async def test_who_comes_back_before_it_was_shown_anything_is_shown_everything(seed: int | None) -> None:
    """Its place is the beginning, which an empty log holds as well as any."""
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        client.disconnect()
        await come_back(client, two)
        await client.ask("hello")
        two.responder.last.say("a")
        await settle()
        client.disconnect()  # without having read a word
        await come_back(client, one)
        assert client.resumed
        assert client.text() == "a"


@near_or_far
async def test_an_answer_whose_node_dies_goes_on_where_the_session_was_empty(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await gone_on(town)
        town.kill(two)
        town.notice(two)
        await settle()
        client.disconnect()
        await come_back(client, one)
        assert client.resumed
        assert town.owner_of(client) is one.node
        assert client.statuses() == ["failed"]  # told, and not waited for in vain


@near_or_far
async def test_a_dead_node_s_session_is_taken_by_one_that_has_it_empty(seed: int | None) -> None:
    """Nobody comes back: somebody has to end the answer all the same."""
    async with open_town(seed=seed) as town:
        one, two, client = await gone_on(town)
        town.kill(two)
        town.notice(two)
        one.clock.advance(30)
        await settle()
        assert town.owner_of(client) is one.node
        assert actor_on(one, client).is_opened


@near_or_far
async def test_who_comes_back_without_a_place_is_shown_what_was_said(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await gone_on(town)
        tab = await tab_on(one, client)
        assert tab.text() == "a"


async def test_another_tab_that_waits_there_starts_over_when_one_comes_back() -> None:
    async with open_town() as town:
        one, two = town.worlds
        client = await one.client()
        tab = await tab_on(one, client)
        client.disconnect()
        await come_back(client, two)
        await client.ask("hello")
        client.read()
        client.disconnect()
        await come_back(client, one)
        with pytest.raises(CursorLost):
            tab.read()
        tab.disconnect()
        await come_back(tab, one)
        assert "response.created" in tab.types()


async def test_an_empty_session_goes_on_while_the_store_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_town(seed=1) as town:
        one = town.worlds[0]
        client = await one.client()
        client.disconnect()
        distant(one).is_out = True
        await come_back(client, one)
        assert client.resumed
        assert one.node.is_store_lost  # whoever notices says so
        client.disconnect()
        await begin_outage(one)
        with monkeypatch.context() as patch:
            patch.setattr(distant(one), "inspect", never)  # nobody waits for what is known to fail
            await come_back(client, one)
        assert client.resumed
        await town.store_is_back()
        await client.say("hi")
        assert texts(one, client) == ["hi"]


@near_or_far
async def test_who_comes_while_the_session_begins_waits_for_that(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one = town.worlds[0]
        client = await one.client()
        tab = Client(one, client.session_id)
        tab.last_id = client.last_id
        saying = asyncio.ensure_future(client.say("hi"))
        await asyncio.sleep(0)
        await knock(tab, one)
        await saying
        tab.read()
        client.read()
        assert "conversation.item.added" in client.types()
        assert "conversation.item.added" in tab.types()
        assert texts(one, client) == ["hi"]


@far
async def test_who_comes_while_a_beginning_is_lost_to_another_node_resumes(seed: int) -> None:
    """Another tab speaks where the session was empty, at the moment when its client comes back to there."""
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        tab = await tab_on(one, client)
        client.disconnect()
        await come_back(client, two)
        await client.say("hello")
        client.read()
        client.disconnect()
        saying = asyncio.ensure_future(tab.say("too late"))
        await asyncio.sleep(0)
        await knock(client, one)
        assert client.resumed
        with pytest.raises(CursorLost):
            await saying
        assert texts(one, client) == ["hello"]


# Who waits.


@near_or_far
async def test_a_tab_that_waits_elsewhere_learns_of_the_first_word(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        tab = Client(two, client.session_id)
        tab.last_id = client.last_id
        await come_back(tab, two)
        assert tab.resumed
        await client.ask("hello")
        one.responder.last.say("a")
        await polls(town, 1)
        with pytest.raises(CursorLost):
            tab.read()
        tab.disconnect()
        await come_back(tab, two)
        assert tab.resumed
        assert tab.text() == "a"


async def test_who_waits_is_left_alone_while_there_is_nothing_to_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node that begins the session has died between the two calls which that takes."""
    async with open_town(seed=1) as town:
        one, two = town.worlds
        client = await one.client()
        tab = Client(two, client.session_id)
        tab.last_id = client.last_id
        await come_back(tab, two)
        monkeypatch.setattr(distant(one), "append", without_end)
        saying = asyncio.ensure_future(client.say("hi"))
        await settle()
        town.kill(one)
        town.notice(one)
        saying.cancel()
        await asyncio.wait([saying])
        assert town.stored(client)
        await polls(town, 2)
        tab.read()
        await tab.say("hello")
        assert texts(two, tab) == ["hello"]


async def test_of_many_that_wait_some_are_asked_for_at_each_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SessionId] = []
    inspect = MemoryStore.inspect

    async def counted(self: MemoryStore, session_id: SessionId) -> Opened:
        asked.append(session_id)
        return await inspect(self, session_id)

    monkeypatch.setattr(MemoryStore, "inspect", counted)
    monkeypatch.setattr(unopened, "_ASKED_AT_ONCE", 2)
    async with open_town(1) as town:
        clients = [await town.worlds[0].client() for _ in range(5)]
        clients.append(await town.worlds[0].client())
        clients.pop().disconnect()  # nobody waits there
        found = []
        for _ in range(3):
            asked.clear()
            await polls(town, 1)
            found.append(list(asked))
        assert [len(each) for each in found] == [2, 2, 1]
        assert {each for some in found for each in some} == {client.session_id for client in clients}


async def test_nothing_is_asked_of_a_store_that_nobody_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_town(1) as town:
        monkeypatch.setattr(town.memory, "_tell", None)
        monkeypatch.setattr(MemoryStore, "inspect", never)
        client = await town.worlds[0].client()
        await polls(town, 1)
        await come_back(client, town.worlds[0])
        assert client.resumed


# Who begins.


@near_or_far
async def test_two_tabs_that_come_to_another_node_at_once_are_in_one_session(seed: int | None) -> None:
    """Neither finds it, and both begin it under the same id: the second must not displace the first."""
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        tabs = [Client(two, client.session_id) for _ in range(2)]
        for tab in tabs:
            tab.last_id = client.last_id
        await asyncio.gather(*(knock(tab, two) for tab in tabs))
        assert len(two.node.hub) == 1
        await tabs[0].say("one")
        await tabs[1].say("two")
        for tab in tabs:
            tab.read()
            assert len(tab.of_type("conversation.item.added")) == 2


async def test_who_begins_a_session_that_is_just_being_loaded_is_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two tabs that come to a node, one is told that there is no such session. Then somebody speaks
    elsewhere, and the other one finds it.
    """
    async with open_town(3, seed=1) as town:
        one, two, three = town.worlds
        client = await one.client()
        town.kill(one)
        town.notice(one)
        first, second, elsewhere = (Client(world, client.session_id) for world in (two, two, three))
        for tab in (first, second, elsewhere):
            tab.last_id = client.last_id
        with pytest.raises(SessionNotFound):
            await first.resume()
        await knock(elsewhere, three)
        await elsewhere.say("one")
        read, go_on = distant(two).read, asyncio.Event()

        async def held_up(*args: Any, **kwargs: Any) -> Page:
            page = await read(*args, **kwargs)
            await go_on.wait()
            return page

        monkeypatch.setattr(distant(two), "read", held_up)
        loading = asyncio.create_task(second.resume())
        await settle()
        monkeypatch.setattr(first, "resume", without_such_a_session)
        beginning = asyncio.create_task(knock(first, two))
        await settle()
        go_on.set()
        await asyncio.gather(loading, beginning)

        assert two.node.hub.connections == 2
        await elsewhere.say("two")
        for tab in (first, second):
            tab.read()
            assert len(tab.of_type("conversation.item.added")) == 2


async def test_who_begins_a_session_anew_that_is_another_s_finds_none() -> None:
    async with open_town() as town:
        one = town.worlds[0]
        client = await one.client()
        assert client.attachment is not None
        with pytest.raises(SessionNotFound):
            await one.node.create(
                PrincipalId("bob"),
                SessionConfig("m"),
                client.chain,
                session_id=client.attachment.session.id,
                incarnation=client.attachment.cursor.position().incarnation,
            )
        await client.say("hi")
        assert texts(one, client) == ["hi"]


async def test_making_room_for_a_session_anew_leaves_one_that_came_meanwhile() -> None:
    async with open_town(limits=limits_of(sessions=1)) as town:
        one, two = town.worlds
        client = await one.client()
        idle = await two.client()
        idle.disconnect()
        tabs = [Client(two, client.session_id) for _ in range(2)]
        for tab in tabs:
            tab.last_id = client.last_id
        await asyncio.gather(*(knock(tab, two) for tab in tabs))
        await tabs[0].say("one")
        tabs[1].read()
        assert len(tabs[1].of_type("conversation.item.added")) == 1


@far
async def test_who_is_fenced_while_it_begins_a_session_has_its_client_come_again(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node finds it begun and without an entry, and takes it: nobody is lost over that."""
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        other = Client(two, client.session_id)
        other.last_id = client.last_id
        await come_back(other, two)
        create = MemoryStore.create

        async def overtaken(
            self: MemoryStore, session_id: SessionId, node: NodeId, incarnation: Incarnation
        ) -> Fence:
            fence = await create(self, session_id, node, incarnation)
            if node == one.node.id:
                await other.say("two")
            return fence

        monkeypatch.setattr(MemoryStore, "create", overtaken)
        with pytest.raises(CursorLost):
            await client.say("one", id="item_1")
        client.disconnect()
        await come_back(client, one)
        assert client.resumed
        await client.say("one", id="item_1")
        client.read()
        assert texts(one, client) == ["two", "one"]


@far
async def test_who_began_alone_what_another_began_too_has_its_client_come_again(seed: int) -> None:
    """It went on without the store, which has the other's session when it is back."""
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        other = Client(two, client.session_id)
        other.last_id = client.last_id
        await come_back(other, two)
        await begin_outage(one)
        await client.say("one", id="item_1")
        client.read()
        assert texts(one, client) == ["one"]
        await other.say("two")
        await town.store_is_back()
        with pytest.raises(CursorLost):
            client.read()
        client.disconnect()
        await client.resume()
        await client.say("one", id="item_1")
        assert texts(one, client) == ["two", "one"]


async def test_who_begins_what_a_later_release_has_begun_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_town() as town:
        one, two = town.worlds
        client = await one.client()
        client.disconnect()
        await come_back(client, two)
        tab = await tab_on(one, client)
        await client.say("hello")

        async def unreadable(*_: Any, **__: Any) -> Page:
            raise UnknownFormat

        with monkeypatch.context() as patch:
            patch.setattr(MemoryStore, "read", unreadable)
            with pytest.raises(UnknownFormat):
                await tab.say("hi")
            with pytest.raises(UnknownFormat):
                tab.read()


@near_or_far
async def test_a_session_that_begins_is_not_forgotten_meanwhile(seed: int | None) -> None:
    """Its client may be cut off in that moment: what it said is answered all the same."""
    async with open_town(seed=seed) as town:
        one = town.worlds[0]
        client = await one.client()
        saying = asyncio.ensure_future(client.say("hi"))
        await asyncio.sleep(0)
        actor = actor_on(one, client)
        client.disconnect()
        assert not actor.is_idle
        await saying
        assert actor.is_idle
        assert one.node.hub.holds(actor)


async def test_a_session_whose_beginning_was_not_answered_is_seen_to_by_its_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the store it is that node's, which doesn't know it: somebody elsewhere has gone on with it."""
    async with open_town(seed=1) as town:
        one, two = town.worlds
        client = await one.client()
        append = distant(one).append

        async def unanswered(appends: Any) -> Any:
            await append(appends)
            raise StoreUnavailable

        with monkeypatch.context() as patch:
            patch.setattr(distant(one), "append", unanswered)
            await client.say("hi", id="item_1")
        await town.store_is_back()
        assert not actor_on(one, client).is_opened
        client.disconnect()
        client.world = two
        town.is_silent = True
        await client.connect()  # a reload of the page
        await settle()
        town.is_silent = False
        await client.send({"type": "response.create"})
        turns = [*one.responder.turns, *two.responder.turns]
        assert len(turns) == 1
