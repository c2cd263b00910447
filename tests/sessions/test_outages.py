"""A store that is out of reach, slow to answer, restarted empty, or failed over without its tail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.sessions.conversation import Client, limits_of, settle
from tests.sessions.town import (
    Town,
    actor_on,
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
from unbroken.sessions.backends.base import Fence, Opened
from unbroken.sessions.entries import CreateItem, Submitted
from unbroken.sessions.errors import CursorLost, SessionNotFound, StoreUnavailable
from unbroken.sessions.ids import ChainId, NodeId, SessionId, new_item_id
from unbroken.sessions.items import Message, Text

pytestmark = pytest.mark.parametrize("seed", [1, 2, 3, 4])


# A short while.


async def test_a_write_whose_answer_is_lost_is_not_written_twice(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        distant(one).loses_answers = True
        one.responder.last.say("c")
        await settle()
        await town.store_is_back()
        one.responder.last.say("d")
        one.responder.last.end()
        await settle()
        client.read()

        assert (client.text(), client.statuses()) == ("abcd", ["completed"])
        assert stored_text(town, client) == "abcd"


@pytest.mark.parametrize("limit", [1, 4096])
async def test_what_was_read_back_is_not_written_again_when_the_store_goes_away_for_good(
    seed: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a write is lost, the write is read back, its first entry or all, and then no more."""
    monkeypatch.setattr("unbroken.sessions.replica._READ_LIMIT", limit)
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        store, actor = distant(one), actor_on(one, client)
        append, read = store.append, store.read

        async def answerless(appends: Any) -> Any:
            await append(appends)
            raise StoreUnavailable

        async def read_once(*args: Any, **options: Any) -> Any:
            page = await read(*args, **options)
            store.is_out = True
            actor.look()
            return page

        monkeypatch.setattr(store, "append", answerless)
        monkeypatch.setattr(store, "read", read_once)
        if limit > 1:
            one.responder.last.say("c")
        one.responder.last.end()  # several entries
        await settle()
        one.clock.advance(0.6)
        await settle()
        assert store.is_out, "it is read"
        await begin_outage(one)
        client.read()
        assert (client.text(), client.statuses()) == ("abc" if limit > 1 else "ab", ["completed"])

        monkeypatch.undo()
        await town.store_is_back()
        if limit == 1:  # the store holds what this node never read: the log is begun anew
            await client.resume()
        await client.ask("again")
        one.responder.last.say("d")
        one.responder.last.end()
        await settle()
        client.read()
        assert client.statuses()[-1] == "completed"
        assert texts(one, client)[-1] == "d"


async def test_a_write_that_never_arrived_is_written_later(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        distant(one).is_out = True
        one.responder.last.say("c")
        await settle()
        assert client.read() == []  # nobody is shown what the log doesn't hold
        await town.store_is_back()
        client.read()
        assert client.text() == "abc"
        assert actor_on(one, client).feed.is_durable


async def test_an_input_is_refused_while_it_can_t_be_saved_and_taken_once_it_can(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        assert client.attachment is not None
        distant(one).is_out = True
        await client.say("hi", id="item_1")
        client.read()
        assert client.errors() == ["store_unavailable"]

        await town.store_is_back()
        await client.say("hi", id="item_1")
        client.read()
        assert client.errors() == ["store_unavailable"]
        assert "hi" in texts(one, client)


async def test_a_session_that_can_t_begin_is_no_task_that_failed(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one = town.worlds[0]
        client = await one.client()
        distant(one).is_out = True
        with capture_logs() as logs:
            await client.say("hi", id="item_1")
            client.read()
        assert client.errors() == ["store_unavailable"]
        assert [entry["event"] for entry in logs if "exc_info" in entry] == []


async def test_a_session_whose_beginning_was_not_answered_begins_once(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one = town.worlds[0]
        client = await one.client()
        distant(one).loses_answers = True
        await client.say("hi", id="item_1")
        await town.store_is_back()
        await client.say("hi", id="item_1")

        assert texts(one, client) == ["hi"]


async def test_a_bug_in_asking_whether_the_store_is_back_does_not_end_the_asking(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise ValueError("planted")

    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        await begin_outage(one)
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(distant(one), "unfollow", crash)
            for _ in range(3):
                one.clock.advance(0.5)
                await settle()
        assert [entry["event"] for entry in logs if "exc_info" in entry] == ["probe failed"], "once"

        await town.store_is_back()
        assert not one.node.is_store_lost
        assert actor_on(one, client).feed.is_durable


# Longer than writes wait.


async def test_who_has_taken_a_session_and_not_read_it_waits_for_the_store(seed: int) -> None:
    """It can't know what the owner of before has said, or that it has ended: nothing is begun again."""
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        await client.ask()
        tab = await tab_on(two, client)
        one.responder.last.say("a")
        one.responder.last.end()
        town.is_silent = True
        while client.statuses() != ["completed"]:
            await settle()
            client.read()
        town.notice(one)
        actor = actor_on(two, client)
        while not actor.is_owner:  # noqa: ASYNC110 - a few turns of the loop, no time
            await asyncio.sleep(0)
        await begin_outage(two)
        await tab.say("is anybody there?")
        assert two.responder.turns == []

        await town.store_is_back()
        tab.read()
        assert two.responder.turns == []
        assert (tab.text(), tab.statuses()) == ("a", ["completed"])
        assert stored_text(town, client) == "a"


async def test_an_owner_goes_on_without_the_store_and_saves_it_later(seed: int) -> None:
    """The cursors that it gave out meanwhile are good everywhere afterwards."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        one.responder.last.say("c")
        await begin_outage(one)
        client.read()
        assert client.text() == "abc"
        assert not actor_on(one, client).feed.is_durable
        await client.say("while it was out", id="item_1")
        await client.say("while it was out", id="item_1")
        one.responder.last.say("d")
        await settle()
        client.read()
        assert client.errors() == []
        assert client.text() == "abcd"

        await town.store_is_back()
        assert actor_on(one, client).feed.is_durable
        assert stored_text(town, client) == "abcd"
        await move(client, two)
        assert client.resumed
        await client.say("while it was out", id="item_1")
        one.responder.last.say("e")
        one.responder.last.end()
        await settle()
        client.read()
        assert (client.text(), client.statuses()) == ("abcde", ["completed"])
        assert texts(two, client).count("while it was out") == 1


async def test_a_new_session_begins_without_the_store_and_is_saved_later(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, other = await asked(town)
        await begin_outage(one)
        client = await one.client()
        await client.ask("hello")
        one.responder.last.say("x")
        one.responder.last.end()
        await settle()
        client.read()
        assert client.statuses() == ["completed"]

        await town.store_is_back()
        await move(client, two)
        assert client.resumed
        assert texts(two, client) == ["hello", "x"]
        assert actor_on(one, other).feed.is_durable


async def test_what_is_said_without_the_store_is_bounded(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        await begin_outage(one)
        await client.say("first")
        ring = actor_on(one, client)._ring
        assert ring is not None
        ring._room = 0
        await client.say("too much")
        one.responder.last.say("c")
        await settle()
        client.read()
        assert client.errors() == ["store_unavailable"]
        assert client.text() == "ab"

        await town.store_is_back()
        client.read()
        assert client.text() == "abc"


async def test_a_strict_node_says_nothing_that_it_can_t_save(seed: int) -> None:
    async with open_town(seed=seed, limits=limits_of(is_strict=True)) as town:
        one, _, client = await asked(town)
        one.responder.last.say("c")
        await begin_outage(one)
        await client.say("hi")
        client.read()
        assert client.text() == "ab"
        assert client.errors() == ["store_unavailable"]

        await town.store_is_back()
        client.read()
        assert client.text() == "abc"


async def test_who_was_replaced_meanwhile_gives_up_what_it_said_alone(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        await begin_outage(one)
        one.responder.last.say("c")
        await settle()
        client.read()
        assert client.text() == "abc"

        distant(one).is_out = False
        town.notice(one)
        await settle()
        tab.read()
        assert tab.statuses() == ["failed"]
        await town.store_is_back()
        with pytest.raises(CursorLost):
            client.read()
        await move(client, one)
        assert not client.resumed
        assert texts(one, client) == texts(two, client)


async def test_inputs_that_came_elsewhere_meanwhile_are_kept(seed: int) -> None:
    """The owner alone was cut off: the store has more than it knows, and so has the owner."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        await begin_outage(one)
        one.responder.last.say("c")
        await settle()
        await tab.say("from elsewhere")
        await town.store_is_back()

        assert actor_on(one, client).feed.is_durable
        assert "from elsewhere" in texts(one, client)
        with pytest.raises(CursorLost):
            client.read()
            client.read()
        await go(client, one)
        one.responder.last.end()
        await settle()
        client.read()
        assert "abc" in texts(one, client)


async def test_inputs_that_came_elsewhere_are_kept_however_many_there_are(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read page by page."""
    monkeypatch.setattr("unbroken.sessions.rejoining._READ_LIMIT", 3)
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        await begin_outage(one)
        one.responder.last.say("c")
        await settle()
        for number in range(20):
            await tab.say(f"from elsewhere {number}")
        await town.store_is_back()

        kept = texts(one, client)
        assert [text for text in kept if "elsewhere" in text] == [f"from elsewhere {n}" for n in range(20)]


async def test_who_is_alone_knows_what_the_log_has_forgotten(seed: int) -> None:
    """It took the session from a snapshot: the request that comes again was before that."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        one.responder.last.end()
        await settle()
        again = {"type": "response.create", "unbroken": {"message_id": "once"}}
        await client.send(again)
        one.responder.last.say(*40 * ["x" * 300])
        await settle()
        one.responder.last.end()
        await settle()
        client.disconnect()
        while len(one.node.hub):
            one.clock.advance(30)
            await one.node.sweep()
            await settle()
        await go(client, two)
        assert actor_on(two, client).log.keys() == {}
        await begin_outage(two)
        await client.send({"type": "response.create", "unbroken": {"message_id": "new"}})
        two.responder.last.end()
        await settle()
        await client.send(again)
        assert len(two.responder.turns) == 1


# A store that forgets.


async def test_a_store_that_lost_everything_is_given_it_again(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        town.lose()
        one.responder.last.say("c")
        await settle()

        assert actor_on(one, client).feed.is_durable
        with pytest.raises(CursorLost):
            client.read()
        client.disconnect()
        await go(client, two)
        assert not client.resumed
        one.responder.last.say("d")
        one.responder.last.end()
        await settle()
        client.read()
        assert texts(two, client) == ["hello", "abcd"]
        assert len(one.responder.turns) == 1


async def test_an_idle_session_is_saved_again_when_the_store_was_out_of_reach(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        await client.say("hi")
        town.lose()
        for neighbour in town.neighbours.values():
            neighbour.on_gap()
        await settle()

        client.disconnect()
        await go(client, two)
        assert texts(two, client) == ["hi"]


async def test_a_tail_that_was_lost_is_noticed_and_said_again(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        copied = town.copy()
        one.responder.last.say("c")
        await settle()
        client.read()
        assert client.text() == "abc"
        town.lose(copied)
        one.responder.last.say("d")
        await settle()

        with pytest.raises(CursorLost):
            client.read()
        client.disconnect()
        await go(client, two)
        assert not client.resumed
        one.responder.last.end()
        await settle()
        assert texts(two, client) == ["hello", "abcd"]


async def test_a_tail_that_was_lost_and_overwritten_is_noticed(seed: int) -> None:
    """The log is as long as the owner knows it, and holds other entries."""
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        copied = town.copy()
        one.responder.last.say("c")
        await settle()
        client.read()
        town.lose(copied)
        await _write_over(town, client, "over it")
        one.responder.last.say("d")
        one.responder.last.end()
        await settle()

        assert "abcd" in texts(one, client)
        assert "over it" in texts(one, client)
        with pytest.raises(CursorLost):
            client.read()
            client.read()


async def _write_over(town: Town, client: Client, text: str) -> None:
    """Say something by a node that hasn't seen what was lost."""
    log = town.stored(client).log
    said = CreateItem(Message(new_item_id(), "user", (Text(text),)))
    session_id = SessionId(client.session_id or "")
    await town.memory.submit(session_id, Submitted(said, ChainId("elsewhere")), log.position(log.head))


async def test_a_question_whose_item_was_lost_is_not_answered_without_it(seed: int) -> None:
    """On a node that hasn't noticed: its client is told to start over, and then sends both again."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        copied = town.copy()
        await tab.say("and now?")
        town.kill(one)
        town.lose(copied)
        with pytest.raises(CursorLost):
            await tab.ask()
        await settle()
        with pytest.raises(CursorLost):
            tab.read()

        assert town.stored(client).log.head == copied[SessionId(client.session_id or "")].log.head


async def test_followers_of_what_was_lost_start_over(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        town.lose()
        one.responder.last.say("c")
        await settle()
        town.poll()
        await settle()
        with pytest.raises(CursorLost):
            tab.read()
        tab.disconnect()
        await go(tab, two)
        assert not tab.resumed
        one.responder.last.end()
        await settle()
        tab.read()
        assert texts(two, tab) == ["hello", "abc"]
        assert client.session_id == tab.session_id


async def test_a_session_that_is_really_gone_is_not_found(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        town.kill(one)
        town.lose()
        client.disconnect()
        client.world = two
        with pytest.raises(SessionNotFound):
            await client.resume()


async def test_nobody_can_come_to_a_session_elsewhere_while_the_store_is_out(seed: int) -> None:
    """It can't be said whether there is one: that isn't the same as that there is none."""
    async with open_town(seed=seed) as town:
        _, two, client = await asked(town)
        distant(two).is_out = True
        client.disconnect()
        client.world = two
        with pytest.raises(StoreUnavailable):
            await client.resume()


async def test_while_the_store_is_out_those_who_come_are_told_without_asking_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would wait for as long as a call may take, in one of few places; and the node says it is out.

    It takes two sessions: one that can't be had may be to blame itself.
    """
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        clients = [await one.client() for _ in range(4)]
        for client in clients:
            await client.say("hi")
        store, calls = distant(two), list[SessionId]()
        follow = store.follow

        async def counted(session_id: SessionId, node: NodeId) -> Opened:
            calls.append(session_id)
            return await follow(session_id, node)

        monkeypatch.setattr(store, "follow", counted)
        store.is_out = True
        for client in clients:
            client.disconnect()
            client.world = two
        for client in (clients[0], *clients):
            with pytest.raises(StoreUnavailable):
                await client.resume()
        assert calls == [clients[0].session_id, clients[0].session_id, clients[1].session_id]
        assert two.node.is_store_lost

        await town.store_is_back()
        assert not two.node.is_store_lost
        for client in clients:
            await client.resume()


async def test_a_log_begun_anew_whose_answer_is_lost_is_gone_on_with(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others had written is kept too, although the log that held it is gone by the second attempt."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        await begin_outage(one)
        one.responder.last.say("c")
        await settle()
        await tab.say("from elsewhere", id="item_9")
        reseed, store = distant(one).reseed, distant(one)

        async def lose_the_answer(*args: Any, **options: Any) -> Fence:
            fence = await reseed(*args, **options)
            store.is_out = True
            monkeypatch.setattr(store, "reseed", reseed)
            raise StoreUnavailable(str(fence))

        monkeypatch.setattr(store, "reseed", lose_the_answer)
        await town.store_is_back()
        assert store.is_out
        one.responder.last.say("d")
        await settle()
        await town.store_is_back()

        assert actor_on(one, client).feed.is_durable
        assert len(one.responder.open) == 1
        one.responder.last.end()
        await settle()
        client.disconnect()
        await go(client, two)
        assert sorted(texts(two, client)) == ["abcd", "from elsewhere", "hello"]
