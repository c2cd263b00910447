from __future__ import annotations

from itertools import pairwise
from typing import Final

import pytest

from tests.sessions.conversation import Client, limits_of, settle
from tests.sessions.town import actor_on, asked, go, move, open_town, orphaned, polls, tab_on
from unbroken.sessions.backends.base import NOBODY, Opened
from unbroken.sessions.errors import ResponderError, SessionNotFound, StoreUnavailable
from unbroken.sessions.ids import NodeId, SessionId
from unbroken.sessions.items import Usage
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.responder import Handle
from unbroken.sessions.run import RunLimits
from unbroken.sessions.session import Session

SEEDS: Final = (None, 1, 2, 3)

pytestmark = pytest.mark.parametrize("seed", SEEDS)


class RestLost(ResponderError):
    is_rest_lost = True

    def __init__(self) -> None:
        super().__init__("upstream_rejected", "There is none of that name.")


def code_of(client: Client) -> str:
    """Return the error code of the one response that has ended."""
    (done,) = client.of_type("response.done")
    code: str = done["response"]["status_details"]["error"]["code"]
    return code


# Coming to another node.


async def test_an_answer_is_followed_on_another_node(seed: int | None) -> None:
    """It goes on where it began: nothing is asked of the agent again."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        await move(client, two)
        assert client.resumed

        one.responder.last.say("c")
        await settle()
        client.read()
        assert client.text() == "abc"
        one.responder.last.end()
        await settle()
        client.read()

        assert (client.text(), client.statuses()) == ("abc", ["completed"])
        assert two.responder.turns == []
        assert one.ended == ["completed"]
        assert two.ended == []


async def test_ownership_moves_when_the_turn_has_ended(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        await move(client, two)
        assert town.owner_of(client) is one.node

        one.responder.last.end()
        await settle()
        assert town.owner_of(client) is two.node
        assert len(one.node.hub) == 0
        await client.ask("more")
        two.responder.last.say("d")
        two.responder.last.end()
        await settle()
        client.read()
        assert client.text() == "abd"


async def test_an_idle_session_moves_at_once(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        await client.say("hi")
        await move(client, two)

        assert town.owner_of(client) is two.node
        assert len(one.node.hub) == 0


async def test_several_tabs_on_several_nodes_see_the_same(seed: int | None) -> None:
    async with open_town(3, seed=seed) as town:
        one, two, client = await asked(town)
        tabs = [client, await tab_on(two, client), await tab_on(town.worlds[2], client)]
        await tabs[2].say("from the third")
        one.responder.last.say("c")
        one.responder.last.end()
        await settle()

        for tab in tabs:
            tab.read()
        assert [tab.text() for tab in tabs] == ["abc", "abc", "abc"]
        items = [[item.text for item in actor_on(world, client).session.items()] for world in town.worlds]
        assert items[0] == items[1] == items[2]
        assert "from the third" in items[0]
        assert town.owner_of(client) is one.node  # which has a connection of its own


async def test_an_answer_can_be_stopped_and_asked_for_from_any_node(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        await tab.send({"type": "response.cancel"})
        await settle()
        client.read()
        tab.read()

        assert one.responder.open == []
        assert client.statuses() == tab.statuses() == ["cancelled"]
        await tab.ask("again")
        await settle()
        assert len(one.responder.turns) == 2
        assert two.responder.turns == []


async def test_a_message_sent_again_to_another_node_runs_once(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        await client.say("hi", id="item_1")
        await move(client, two)
        await client.say("hi", id="item_1")

        assert [item.text for item in actor_on(two, client).session.items()] == ["hi"]
        assert client.errors() == []


async def test_a_stranger_learns_nothing_on_another_node(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        await client.say("hi")
        stranger = Client(two, client.session_id)

        with pytest.raises(SessionNotFound):
            await stranger.connect(principal="bob")  # type: ignore[arg-type]


# News that are lost.


async def test_lost_news_cost_at_most_a_poll(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        await move(client, two)
        town.is_silent = True
        one.responder.last.say("c")
        await settle()
        await client.send({"type": "response.cancel"})  # its owner isn't told
        await settle()
        assert client.text() == "ab"

        town.is_silent = False
        await polls(town, 2)
        client.read()
        assert (client.text(), client.statuses()) == ("abc", ["cancelled"])


async def test_a_lost_wish_is_made_good_by_the_release_of_what_is_idle(seed: int | None) -> None:
    async with open_town(seed=seed, limits=limits_of(release_after=10.0)) as town:
        one, two = town.worlds
        client = await one.client()
        await client.say("hi")
        town.is_silent = True
        await move(client, two)
        assert town.owner_of(client) is one.node

        one.clock.advance(60)
        await settle()
        town.poll()
        await settle()
        assert town.owner_of(client) is two.node


async def test_what_is_idle_costs_no_node_anything(seed: int | None) -> None:
    async with open_town(seed=seed, limits=limits_of(release_after=10.0)) as town:
        one, two = town.worlds
        client = await one.client()
        await client.say("hi")
        client.disconnect()
        for _ in range(2):
            one.clock.advance(60)
            await settle()
        assert len(one.node.hub) == 0

        await go(client, two)
        assert client.resumed
        assert town.owner_of(client) is two.node


async def test_what_a_node_owns_and_does_not_have_it_gives_up(seed: int | None) -> None:
    """It let go of a session in the moment in which it was passed on to it."""
    async with open_town(3, seed=seed) as town:
        one, two, client = await asked(town)
        client.disconnect()
        one.responder.last.end()
        await settle()
        fence = actor_on(one, client).fence
        one.node.hub.remove(actor_on(one, client))
        session_id = SessionId(client.session_id or "")
        await town.memory.release(session_id, fence, to=two.node.id)
        await settle()
        await go(client, town.worlds[2])

        assert town.owner_of(client) is town.worlds[2].node
        await client.ask("again")
        assert len(town.worlds[2].responder.turns) == 1


async def test_a_wish_reaches_who_owns_a_session_without_having_it(seed: int | None) -> None:
    async with open_town(3, seed=seed) as town:
        one, _, client = await asked(town)
        client.disconnect()
        one.responder.last.end()
        await settle()
        one.node.hub.remove(actor_on(one, client))  # the store hasn't heard of it
        await go(client, town.worlds[2])

        assert town.owner_of(client) is town.worlds[2].node


async def test_what_rests_takes_little_and_is_still_all_there(seed: int | None) -> None:
    async with open_town(seed=seed, limits=limits_of(release_after=10.0)) as town:
        one, two = town.worlds
        client = await one.client()
        for number in range(20):
            await client.ask(f"question {number}")
            one.responder.last.say(f"answer {number} ", "and more")
            one.responder.last.end()
            await settle()
            client.read()
        session_id = SessionId(client.session_id or "")
        before = town.memory._sessions[session_id].log.size
        client.disconnect()
        for _ in range(3):
            one.clock.advance(60)
            await settle()
        assert len(one.node.hub) == 0
        assert town.memory._sessions[session_id].log.size < before / 4

        await go(client, two)
        assert client.resumed  # it had seen everything
        items = [item.text for item in actor_on(two, client).session.items()]
        assert items[-2:] == ["question 19", "answer 19 and more"]
        assert len(items) == 40
        late = Client(two, client.session_id)
        await late.connect()
        assert len([frame for frame in late.read() if frame["type"] == "conversation.item.added"]) == 40


async def test_a_node_that_drains_leaves_the_log_as_it_is(seed: int | None) -> None:
    """Its clients are on their way to another node, with cursors in the middle of it."""
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        for _ in range(20):
            await client.ask()
            one.responder.last.say("a", "b")
            one.responder.last.end()
            await settle()
        client.read(3)
        client.disconnect()
        one.node.begin_drain()
        await one.node.drained(1.0)
        await go(client, two)

        assert client.resumed
        assert client.text() == 20 * "ab"


async def test_what_was_passed_on_to_a_node_that_drains_is_nobody_s(seed: int | None) -> None:
    """It hasn't heard of it. Whoever comes next need not find out first that the node is dead."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        one.responder.last.end()
        await settle()
        tab = Client(two, client.session_id)
        await tab.connect()
        await settle()
        town.is_silent = True
        client.disconnect()
        await settle()
        assert town.stored(client).fence.node == two.node.id
        tab.disconnect()
        two.node.begin_drain()
        await two.node.drained(1.0)

        assert town.stored(client).fence.node == NOBODY


async def test_a_drain_that_begins_again_lets_connections_go_one_by_one_again(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, _ = town.worlds
        client = await one.client()
        assert client.attachment is not None
        one.node.begin_drain()
        assert not client.attachment.is_finished
        one.node.end_drain()
        assert not client.attachment.is_finished
        one.clock.advance(10)
        one.node.begin_drain()
        assert not client.attachment.is_finished  # its time to leave was of the first drain
        one.clock.advance(10)
        assert client.attachment.is_finished


async def test_a_node_that_stays_takes_what_nodes_have_left_that_died_meanwhile(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        client.disconnect()
        two.node.begin_drain()
        town.kill(one)
        town.notice(one)
        two.clock.advance(10)
        await settle()
        assert town.owner_of(client) is None
        two.node.end_drain()
        two.clock.advance(10)
        await settle()

        assert town.owner_of(client) is two.node
        assert two.ended == ["interrupted"]


# Owners that die.


async def test_a_dead_owner_s_answer_is_marked_with_how_far_it_got(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        town.kill(one)
        await move(client, two)
        assert town.owner_of(client) is None
        town.notice(one)
        await settle()
        client.read()

        assert town.owner_of(client) is two.node
        assert (client.text(), client.statuses()) == ("ab", ["failed"])
        assert (
            client.of_type("response.done")[0]["response"]["status_details"]["error"]["code"] == "interrupted"
        )
        await client.ask("again")
        assert len(two.responder.turns) == 1


async def test_an_owner_known_to_be_dead_is_replaced_at_once(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        town.kill(one)
        town.notice(one)
        await move(client, two)
        assert client.statuses() == ["failed"]


async def test_a_dead_owner_s_session_that_can_t_be_had_is_tried_once(
    seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still among those with something to do, as often as one asks."""
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        broken, well = await one.client(), await one.client()
        for client in (broken, well):
            await client.ask()
            client.disconnect()
        follow = town.memory.follow

        async def follow_some(session_id: SessionId, node: NodeId) -> Opened:
            if session_id == broken.session_id:
                raise StoreUnavailable
            return await follow(session_id, node)

        monkeypatch.setattr(town.memory, "follow", follow_some)
        town.kill(one)
        town.notice(one)
        two.clock.advance(2)
        await settle()

        assert town.owner_of(well) is two.node


async def test_of_a_dead_owner_s_sessions_those_that_nobody_follows_are_taken_too(seed: int | None) -> None:
    async with open_town(3, seed=seed) as town:
        one, two, client = await asked(town)
        client.disconnect()
        town.kill(one)
        town.notice(one)
        await settle()
        for world in town.worlds[1:]:
            world.clock.advance(5)
        await settle()

        owner = town.owner_of(client)
        assert owner is not None
        await go(client, two)
        await settle()
        client.read()
        assert client.statuses() == ["failed"]


async def test_a_node_that_wakes_keeps_what_it_begins_though_others_take_it_for_dead(
    seed: int | None,
) -> None:
    """They noticed that it was frozen, and look for its sessions when it is at work again."""
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        town.notice(one)
        town.woken.add(one.node.id)
        client = await one.client()
        await client.ask()
        one.responder.last.say("a")
        await settle()
        two.clock.advance(5)  # the search for what it had
        await settle()
        tab = await tab_on(two, client)
        await polls(town, 2)

        assert town.owner_of(client) is one.node
        one.responder.last.say("b")
        one.responder.last.end()
        await settle()
        for each in (client, tab):
            each.read()
            assert (each.text(), each.statuses()) == ("ab", ["completed"])


async def test_what_died_with_all_who_knew_is_taken_by_who_comes_next(seed: int | None) -> None:
    """It is told of nobody's death. Sessions that have nothing to do stay where they are."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        client.disconnect()
        for world in (one, two):
            town.kill(world)
        town.lost |= {one.node.id, two.node.id}
        three = await town.node()
        await polls(town, 4)

        assert town.owner_of(client) is three.node
        await go(client, three)
        assert client.statuses() == ["failed"]


async def test_of_several_that_would_take_a_session_one_does(seed: int | None) -> None:
    async with open_town(4, seed=seed) as town:
        one, _, client = await asked(town)
        tabs = [await tab_on(world, client) for world in town.worlds[1:]]
        client.disconnect()
        town.kill(one)
        town.notice(one)
        await settle()

        for tab in tabs:
            tab.read()
        assert [tab.statuses() for tab in tabs] == [["failed"]] * 3
        assert sum(actor_on(world, client).is_owner for world in town.worlds[1:]) == 1


async def test_a_zombie_is_fenced_and_goes_on_as_a_follower(seed: int | None) -> None:
    """It was only slow. What it says after it was replaced nobody sees, its own connections included."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        town.notice(one)
        await settle()
        assert actor_on(two, client).is_owner

        turn = one.responder.last
        turn.say("zombie")
        await settle()
        assert turn.is_closed
        assert turn.turn.custody.is_passed_on
        assert not actor_on(one, client).is_owner
        await tab.ask("again")
        two.responder.last.say("new")
        two.responder.last.end()
        await settle()
        client.read()
        tab.read()
        assert client.text() == tab.text() == "abnew"
        assert client.statuses() == tab.statuses() == ["failed", "completed"]


async def test_a_turn_is_attempted_again_where_that_is_set(seed: int | None) -> None:
    limits = limits_of(actor=ActorLimits(run=RunLimits(), attempts=2))
    async with open_town(3, seed=seed, limits=limits) as town:
        two, client = await orphaned(town)
        assert [item.text for item in two.responder.last.turn.items] == ["hello"]
        assert two.responder.last.turn.attempt == 2
        two.responder.last.say("whole")
        await settle()

        town.kill(two)
        town.notice(two)
        third = town.worlds[2]
        await move(client, third)
        await settle()
        client.read()
        assert client.statuses() == ["failed", "failed"]
        assert third.responder.turns == []


async def test_a_further_attempt_answers_what_the_first_one_did(seed: int | None) -> None:
    """Not what was said meanwhile; and its answer stands before that."""
    limits = limits_of(actor=ActorLimits(run=RunLimits(), attempts=2))
    async with open_town(seed=seed, limits=limits) as town:
        one, two, client = await asked(town)
        await client.say("said meanwhile")
        await move(client, two)
        town.kill(one)
        town.notice(one)
        await settle()
        turn = two.responder.last
        assert [item.text for item in turn.turn.items] == ["hello"]
        turn.say("whole")
        turn.end()
        await settle()

        items = [item.text for item in actor_on(two, client).session.items()]
        assert items == ["hello", "whole", "said meanwhile"]


async def test_what_waits_behind_a_turn_waits_for_its_further_attempt_too(seed: int | None) -> None:
    """It was asked for before that was begun, and is to know what it says."""
    limits = limits_of(actor=ActorLimits(run=RunLimits(), attempts=2))
    async with open_town(seed=seed, limits=limits) as town:
        one, two, client = await asked(town)
        await client.send({"type": "session.update", "session": {"unbroken": {"concurrency": "queue"}}})
        await client.ask("next")
        await move(client, two)
        town.kill(one)
        town.notice(one)
        await settle()
        await client.ask("last")
        assert [turn.turn.attempt for turn in two.responder.open] == [2]
        two.responder.last.say("whole")
        two.responder.last.end()
        await settle()

        assert [item.text for item in two.responder.last.turn.items] == ["hello", "whole", "next"]
        two.responder.last.end()
        await settle()
        assert [item.text for item in two.responder.last.turn.items][-1] == "last"


async def test_an_answer_that_its_upstream_keeps_goes_on(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        town.worlds[1].responder.can_resume = True
        two, client = await orphaned(town, Handle("upstream-1"), "a", "b")

        resumption = two.responder.last.turn.resumption
        assert resumption is not None
        assert (resumption.handle, resumption.offset) == ("upstream-1", 2)
        assert len(resumption.text) == 2
        two.responder.last.say("c")
        two.responder.last.end()
        await settle()
        client.read()
        assert (client.text(), client.statuses()) == ("abc", ["completed"])
        (done,) = client.of_type("response.done")
        assert done["response"]["output"][0]["content"][0]["text"] == "abc"
        assert len(client.of_type("response.created")) == 1


async def test_an_answer_whose_upstream_lost_it_is_marked(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        town.worlds[1].responder.can_resume = True
        two, client = await orphaned(town, Handle("upstream-1"), "a")
        two.responder.last.fail(RestLost())
        await settle()
        client.read()

        assert (client.text(), client.statuses()) == ("a", ["failed"])
        assert code_of(client) == "interrupted"


async def test_one_whose_upstream_lost_it_is_attempted_again_where_that_is_wanted(seed: int | None) -> None:
    limits = limits_of(actor=ActorLimits(run=RunLimits(), attempts=2))
    async with open_town(seed=seed, limits=limits) as town:
        town.worlds[1].responder.can_resume = True
        two, client = await orphaned(town, Handle("upstream-1"), "a")
        two.responder.last.fail(RestLost())
        await settle()
        client.read()

        assert code_of(client) == "interrupted"
        assert [turn.turn.attempt for turn in two.responder.turns] == [1, 2]
        assert two.responder.last.turn.resumption is None


@pytest.mark.parametrize("code", ["upstream_cut", "answer_unchecked", "agent_crashed", "agent_stalled"])
async def test_what_fails_when_it_is_gone_on_with_fails_as_ever(seed: int | None, code: str) -> None:
    """It is told as what it is, with what it cost, and isn't asked for a second time."""
    limits = limits_of(actor=ActorLimits(run=RunLimits(stall_timeout=3), attempts=2))
    async with open_town(seed=seed, limits=limits) as town:
        town.worlds[1].responder.can_resume = True
        two, client = await orphaned(town, Handle("upstream-1"), "a")
        two.responder.last.say("b", Usage(3, 2))
        if code == "agent_stalled":
            await settle()
            two.clock.advance(3)
        elif code == "agent_crashed":
            two.responder.last.fail(RuntimeError("a bug"))
        else:
            two.responder.last.fail(ResponderError(code, "It failed."))
        await settle()
        client.read()

        assert (client.text(), client.statuses()) == ("ab", ["failed"])
        assert code_of(client) == code
        (done,) = client.of_type("response.done")
        assert done["response"]["usage"]["output_tokens"] == 2
        assert len(two.responder.turns) == 1


async def test_an_answer_that_goes_on_outlives_as_many_nodes_as_it_takes(seed: int | None) -> None:
    """As in a deploy of many nodes, each of which leaves it to the next at its deadline."""
    async with open_town(8, seed=seed) as town:
        for world in town.worlds:
            world.responder.can_resume = True
        first = town.worlds[0]
        client = await first.client()
        await client.ask()
        first.responder.last.say(Handle("upstream-1"), "0")
        await settle()
        client.read()
        for number, (old, new) in enumerate(pairwise(town.worlds), 1):
            await move(client, new)
            old.node.begin_drain()
            await old.node.drained(0)
            await settle()
            new.responder.last.say(Handle("upstream-1"), str(number))
            await settle()
            client.read()
        new.responder.last.end()
        await settle()
        client.read()

        assert (client.text(), client.statuses()) == ("01234567", ["completed"])


async def test_that_a_turn_is_another_upstream_s_is_no_takeover(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        two.responder.can_resume = True
        client = await one.client()
        await client.ask()
        for number in range(5):
            one.responder.last.say(Handle(f"upstream-{number}"))
            await settle()
            one.responder.last.say(Handle(""))
            await settle()
        one.responder.last.say(Handle("upstream-5"), "a")
        await settle()
        await move(client, two)
        town.kill(one)
        town.notice(one)
        await settle()

        assert len(two.responder.turns) == 1
        assert two.responder.last.turn.resumption is not None


async def test_takeovers_are_in_the_snapshot(seed: int | None) -> None:
    async with open_town(3, seed=seed) as town:
        for world in town.worlds:
            world.responder.can_resume = True
        two, client = await orphaned(town, Handle("upstream-1"), "a")
        session = actor_on(two, client).session
        twin = Session.restore(session.id, session.limits, session.snapshot())

        (response,) = twin.responses.values()
        (known,) = session.responses.values()
        assert (response.takeovers, response.in_vain, response.taken_at) == (1, 1, known.ordinal)


async def test_a_turn_that_kills_its_owners_ends(seed: int | None) -> None:
    async with open_town(8, seed=seed) as town:
        client = await town.worlds[0].client()
        for world in town.worlds:
            world.responder.can_resume = True
        await client.ask()
        town.worlds[0].responder.last.say(Handle("upstream-1"), "a")
        await settle()
        client.read()
        turns = 0
        for world, following in zip(town.worlds, town.worlds[1:], strict=False):
            await move(client, following)
            town.kill(world)
            town.notice(world)
            await settle()
            client.read()
            turns += len(following.responder.turns)

        assert turns == 3
        assert client.statuses() == ["failed"]
