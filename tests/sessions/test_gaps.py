"""What falls between two nodes: lost news, deaths at the wrong moment, sessions that begin twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.sessions.conversation import Client, limits_of, settle
from tests.sessions.town import (
    Town,
    actor_on,
    answered,
    asked,
    come_back,
    distant,
    move,
    open_town,
    polls,
    tab_on,
    texts,
)
from unbroken.sessions.errors import CursorLost, NodeFull
from unbroken.sessions.ids import ItemId, SessionId
from unbroken.sessions.items import ApprovalHead, ToolHead
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.responder import (
    AsksApproval,
    FunctionCallPiece,
    Handle,
    Output,
    ReasoningPiece,
    RunsTools,
    ToolCallPiece,
)
from unbroken.sessions.run import RunLimits

near_or_far = pytest.mark.parametrize("seed", [None, 1, 2])
far = pytest.mark.parametrize("seed", [1, 2, 3])

TWO_ATTEMPTS = limits_of(actor=ActorLimits(run=RunLimits(stop_timeout=0.01), attempts=2))

CALL = ItemId("item_call")


# News that were lost.


@near_or_far
async def test_a_client_that_comes_to_a_node_that_follows_and_is_behind_resumes(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        await tab_on(two, client)
        town.is_silent = True  # or just a moment before the news
        one.responder.last.say("c")
        await settle()
        client.read()
        client.disconnect()
        client.world = two
        await client.resume()

        assert client.resumed
        assert actor_on(two, client).log.head == actor_on(one, client).log.head


@near_or_far
@pytest.mark.parametrize("comes_back", [False, True])
async def test_an_input_whose_news_were_lost_with_its_node_is_answered(
    seed: int | None, comes_back: bool
) -> None:
    """A follower writes an input, and is killed before it tells the owner."""
    async with open_town(3, seed=seed) as town:
        one, two, client = await answered(town)
        client.read()
        tab = await tab_on(two, client)
        town.is_silent = True
        await tab.send({"type": "response.create"})
        town.kill(two)
        town.notice(two)
        town.is_silent = False
        assert len(one.responder.turns) == 1
        if comes_back:
            tab.disconnect()
            tab.world = one
            await tab.resume()
            await settle()
        else:
            await polls(town, 2)

        assert len(one.responder.turns) == 2


@near_or_far
async def test_who_was_frozen_finds_out_by_itself_that_it_is_no_owner(seed: int | None) -> None:
    """The news of the theft were lost: its thief died before it told them."""
    async with open_town(3, seed=seed) as town:
        one, _, client = await answered(town)
        client.read()
        tab = await tab_on(town.worlds[2], client)
        town.is_silent = True
        town.notice(one)  # frozen for longer than its lease; the third takes the session
        await settle()
        town.is_silent = False
        town.lost.discard(one.node.id)  # it goes on
        await tab.ask("on the other tab")
        (turn,) = town.worlds[2].responder.open
        turn.say("c")
        turn.end()
        await polls(town, 2)
        client.read()

        assert client.text() == "abc"
        assert not actor_on(one, client).is_owner


@near_or_far
async def test_an_owner_looks_for_what_it_wasn_t_told_of_among_many_sessions(
    seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polls take so long to come round that the search finds it first."""
    monkeypatch.setattr("unbroken.sessions.poll_order._OWNED_AT_ONCE", 0)
    async with open_town(seed=seed) as town:
        one, two, client = await answered(town)
        client.read()
        tab = await tab_on(two, client)
        town.is_silent = True
        await tab.send({"type": "response.create"})
        town.kill(two)
        town.notice(two)
        town.is_silent = False
        await polls(town, 30)

        assert len(one.responder.turns) == 2


# Too many.


@near_or_far
async def test_a_node_holds_no_more_sessions_than_it_may_also_of_those_that_come_back(
    seed: int | None,
) -> None:
    async with open_town(seed=seed, limits=limits_of(sessions=3)) as town:
        one, two = town.worlds
        clients = []
        for world in (one, two):
            for _ in range(3):
                client = await world.client()
                await client.ask()
                world.responder.last.end()
                await settle()
                clients.append(client)
        town.kill(one)
        town.notice(one)
        await settle()
        for client in clients[:3]:
            with pytest.raises(NodeFull):
                await move(client, two)

        assert len(two.node.hub) == 3


@near_or_far
async def test_a_full_node_lets_go_at_once_of_what_a_shared_store_holds(seed: int | None) -> None:
    async with open_town(seed=seed, limits=limits_of(sessions=3)) as town:
        one = town.worlds[0]
        for _ in range(3):
            client = await one.client()
            await client.ask()
            one.responder.last.end()
            await settle()
            client.disconnect()
            await settle()
        late = await one.client()
        await late.ask()
        assert len(one.node.hub) <= 3


async def test_wishes_are_told_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = most = 0
    async with open_town(seed=1) as town:
        one, two = town.worlds
        for _ in range(20):
            client = await one.client()
            await client.ask()
            await tab_on(two, client)
        cluster = two.node._cluster

        async def slow(*_: object) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1

        monkeypatch.setattr(cluster, "wish", slow)
        await polls(town, 8)

    assert 1 <= most <= 2


# Deaths in mid-answer.


@near_or_far
async def test_a_stop_that_comes_before_a_dead_owner_is_replaced_reaches_the_upstream(
    seed: int | None,
) -> None:
    async with open_town(seed=seed) as town:
        town.worlds[1].responder.can_resume = True
        one, two, client = await asked(town, Handle("upstream-1"), "a", "b")
        await move(client, two)
        town.kill(one)
        await client.send({"type": "response.cancel"})
        town.notice(one)
        await settle()
        client.read()

        assert client.statuses() == ["cancelled"]
        assert two.responder.abandoned == ["upstream-1"]


@near_or_far
async def test_thoughts_are_no_tool_call(seed: int | None) -> None:
    async with open_town(seed=seed, limits=TWO_ATTEMPTS) as town:
        one, two = town.worlds
        client = await one.client()
        session = {"type": "realtime", "unbroken": {"reasoning": True}}
        await client.send({"type": "session.update", "session": session})
        await client.ask()
        one.responder.last.say(ReasoningPiece("hm"), "a")
        await settle()
        client.read()
        await move(client, two)
        town.kill(one)
        town.notice(one)
        await settle()

        assert [turn.turn.attempt for turn in two.responder.turns] == [2]


@near_or_far
@pytest.mark.parametrize(
    "said",
    [
        [FunctionCallPiece(index=0, name="mail")],
        [ToolCallPiece(CALL, "{", ToolHead("mail", "tools"))],
        [ToolCallPiece(CALL, "{}", ToolHead("mail", "tools")), RunsTools((CALL,))],
        [AsksApproval(CALL, ApprovalHead("mail", "tools", "{}"))],
    ],
    ids=["of the client's", "of the server's", "of the server's, which runs", "to be approved of"],
)
async def test_where_a_tool_was_called_there_is_no_second_attempt(
    seed: int | None, said: list[Output]
) -> None:
    """Somebody may have acted on it: the attempt is marked as interrupted instead, and all of it stays."""
    async with open_town(seed=seed, limits=TWO_ATTEMPTS) as town:
        one, two, client = await asked(town, "a", *said)
        await move(client, two)
        town.kill(one)
        town.notice(one)
        await settle()
        client.read()

        assert two.responder.turns == []
        assert client.statuses() == ["failed"]
        (done,) = client.of_type("response.done")
        assert done["response"]["status_details"]["error"]["code"] == "interrupted"
        assert client.of_type("conversation.item.deleted") == []
        assert texts(two, client)[:2] == ["hello", "a"]
        assert len(texts(two, client)) == 3


# Sessions that begin.


@far
async def test_a_session_whose_node_dies_as_it_begins_can_begin(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two calls by which it begins in its store, it is there, and has no first entry."""

    async def never(_: Any) -> Any:
        await asyncio.Event().wait()

    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()  # its id and first cursor are known, nothing was said
        monkeypatch.setattr(distant(one), "append", never)
        saying = asyncio.ensure_future(client.say("hi", id="item_1"))
        await settle()
        town.kill(one)
        town.notice(one)
        saying.cancel()
        await asyncio.wait([saying])
        assert SessionId(client.session_id or "") in town.memory._sessions

        again = Client(two, client.session_id)
        again.last_id = client.last_id
        await come_back(again, two)
        await again.say("hi", id="item_1")
        again.read()
        assert [item.text for item in actor_on(two, client).session.items()] == ["hi"]


@far
async def test_of_two_nodes_that_begin_a_session_at_once_one_does(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        other = Client(two, client.session_id)
        other.last_id = client.last_id
        await come_back(other, two)
        results = await asyncio.gather(
            client.say("one", id="item_1"), other.say("two", id="item_2"), return_exceptions=True
        )

        assert sum(result is None for result in results) >= 1
        assert all(result is None or isinstance(result, CursorLost) for result in results)
        said = [body.item.text for body in bodies_of(town, client) if hasattr(body, "item")]
        assert len(said) == sum(result is None for result in results)


def bodies_of(town: Town, client: Client) -> list[Any]:
    log = town.stored(client).log
    return [record.body for record in log.read(0, 1000)]
