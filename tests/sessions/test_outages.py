"""A store that is out of reach, slow to answer, restarted empty, or failed over without its tail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.sessions.conversation import Client, World, limits_of, settle
from tests.sessions.town import Town, actor_on, asked, distant, go, move, open_town, tab_on
from unbroken.sessions.backends.base import NOBODY, Append, Fence
from unbroken.sessions.entries import Entry
from unbroken.sessions.errors import CursorLost, SessionNotFound, StoreError, StoreUnavailable, Unseen
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import RunLimits

NAMED = {"type": "response.create", "unbroken": {"message_id": "once"}}

pytestmark = pytest.mark.parametrize("seed", [1, 2, 3, 4])


async def begin_outage(world: World) -> None:
    """Have the store out of a node's reach for longer than writes wait for it."""
    distant(world).is_out = True
    world.node._outage.note_failure()  # somebody noticed
    for _ in range(6):
        await settle()
        world.clock.advance(0.6)
    await settle()


def texts(world: World, client: Client) -> list[str]:
    return [item.text for item in actor_on(world, client).session.items()]


def stored_text(town: Town, client: Client) -> str:
    """Return all deltas that the store holds."""
    stored = town.stored(client)
    return "".join(
        part for record in stored.log.read(stored.log.floor, 10**6) for part in getattr(record, "parts", ())
    )


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
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        copied = town.copy()
        one.responder.last.say("c")
        await settle()
        client.read()
        town.lose(copied)
        await tab.say("over it")
        one.responder.last.say("d")
        one.responder.last.end()
        await settle()

        assert "abcd" in texts(one, client)
        assert "over it" in texts(one, client)
        with pytest.raises(CursorLost):
            client.read()
            client.read()


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


# What is sent again.


@pytest.mark.parametrize("came_elsewhere", [True, False])
async def test_what_an_owner_has_answered_it_does_not_answer_again_alone(
    seed: int, came_elsewhere: bool
) -> None:
    """The store took the request; the client, which wasn't told, sends it again when the owner is alone."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        one.responder.last.end()
        await settle()
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
        one, two, client = await asked(town)
        one.responder.last.end()
        await settle()
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
        one, two, client = await asked(town)
        one.responder.last.end()
        await settle()
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
        one, two, client = await asked(town)
        one.responder.last.end()
        await settle()
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


# Draining meanwhile.


async def test_who_leaves_gives_up_its_sessions_once_the_store_hears_of_it(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        one.responder.last.end()
        await settle()
        client.disconnect()
        distant(one).is_out = True
        one.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(60))
        await settle()
        assert not draining.done()

        distant(one).is_out = False
        one.clock.advance(1)
        await settle()
        assert draining.done()
        assert town.stored(client).owner == NOBODY


async def test_who_leaves_waits_for_the_store_with_what_isn_t_saved(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        await begin_outage(one)
        one.responder.last.say("c")
        one.responder.last.end()
        await settle()
        client.disconnect()
        one.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(60))
        await settle()
        assert not draining.done()

        await town.store_is_back()
        assert draining.done()
        await go(client, two)
        assert client.statuses() == ["completed"]
        assert texts(two, client) == ["hello", "abc"]


async def test_a_store_that_stays_away_holds_no_drain_up_beyond_its_deadline(seed: int) -> None:
    limits = limits_of(actor=ActorLimits(run=RunLimits(stop_timeout=0.01)))
    async with open_town(seed=seed, limits=limits) as town:
        one, _, client = await asked(town)
        await begin_outage(one)
        client.disconnect()
        one.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(0))
        await settle()
        one.responder.last.end()
        await asyncio.wait_for(draining, 10)


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
        one, two, client = await asked(town)
        one.responder.last.end()
        await settle()
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


async def test_what_a_node_had_to_give_up_holds_no_drain_up(seed: int) -> None:
    """Another one has the session: what was said alone is gone, and there is nothing to wait for."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        await begin_outage(one)
        one.responder.last.say("c")
        await settle()
        distant(one).is_out = False
        town.notice(one)
        await settle()
        tab.read()
        assert tab.statuses() == ["failed"]
        await town.store_is_back()
        assert actor_on(one, client).feed.ended is not None
        client.disconnect()
        one.node.begin_drain()
        await asyncio.wait_for(one.node.drained(3600), 5)

        assert one.node.is_settled
