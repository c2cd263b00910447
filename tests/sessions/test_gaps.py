"""What falls between two nodes: lost news, deaths at the wrong moment, a part of a store that is gone."""

from __future__ import annotations

import asyncio
from typing import Any
from zlib import crc32

import pytest
from structlog.testing import capture_logs

from tests.fakes.store import DistantStore
from tests.sessions.conversation import ALICE, Client, World, limits_of, settle
from tests.sessions.town import Town, actor_on, answered, asked, distant, move, open_town, tab_on
from unbroken.server.protocols.cursor import parse_cursor
from unbroken.server.protocols.realtime.connection import RealtimeConnection
from unbroken.sessions.errors import CursorLost, NodeFull, SessionNotFound, StoreUnavailable
from unbroken.sessions.ids import SessionId
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.responder import Handle, ReasoningPiece
from unbroken.sessions.run import RunLimits

near_or_far = pytest.mark.parametrize("seed", [None, 1, 2])
far = pytest.mark.parametrize("seed", [1, 2, 3])

TWO_ATTEMPTS = limits_of(actor=ActorLimits(run=RunLimits(stop_timeout=0.01), attempts=2))


async def polls(town: Town, count: int) -> None:
    for _ in range(count):
        town.poll()
        await settle()


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
    monkeypatch.setattr("unbroken.sessions.ownership._OWNED_POLLED_AT_ONCE", 0)
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


# Upstreams that work on.


@pytest.mark.parametrize("said", ["handle", "item"])
async def test_a_session_that_is_left_at_the_deadline_asks_no_upstream_again(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write is on its way then, and the model hasn't said its first word."""
    async with open_town(seed=1, limits=TWO_ATTEMPTS) as town:
        one = town.worlds[0]
        client = await one.client()
        await client.ask()
        go_on, on_its_way = asyncio.Event(), asyncio.Event()
        append = distant(one).append

        async def slow(appends: Any) -> Any:
            results = await append(appends)
            on_its_way.set()
            await go_on.wait()
            return results

        monkeypatch.setattr(distant(one), "append", slow)
        if said == "handle":
            one.responder.last.say(Handle("upstream-1"))
        else:
            await client.say("by the way")
        await on_its_way.wait()
        client.disconnect()
        one.node.begin_drain()
        await one.node.drained(0)
        go_on.set()
        await settle()

        assert len(one.responder.turns) == 1


@near_or_far
async def test_a_stop_that_comes_before_a_dead_owner_is_replaced_reaches_the_upstream(
    seed: int | None,
) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        two.responder.can_resume = True
        client = await one.client()
        await client.ask()
        one.responder.last.say(Handle("upstream-1"), "a", "b")
        await settle()
        client.read()
        await move(client, two)
        town.kill(one)
        await client.send({"type": "response.cancel"})
        town.notice(one)
        await settle()
        client.read()

        assert client.statuses() == ["cancelled"]
        assert two.responder.abandoned == ["upstream-1"]


async def test_an_upstream_s_work_that_nobody_can_go_on_with_is_stopped_at_the_deadline() -> None:
    """The turn is attempted again elsewhere; what the upstream has of the first attempt is nobody's."""
    async with open_town(seed=1, limits=TWO_ATTEMPTS) as town:
        one, two = town.worlds
        client = await one.client()
        await client.ask()
        one.responder.last.say(Handle("upstream-1"), "a", "b")
        await settle()
        client.read()
        await move(client, two)
        one.node.begin_drain()
        await one.node.drained(0)
        await settle()
        await polls(town, 3)

        assert two.responder.last.turn.attempt == 2
        assert not one.responder.turns[0].turn.custody.is_passed_on
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
async def test_a_node_that_drains_begins_no_response_that_waited(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        session = {"type": "realtime", "unbroken": {"concurrency": "queue"}}
        await client.send({"type": "session.update", "session": session})
        await client.ask()
        one.responder.last.say("a")
        await settle()
        await client.ask("second")
        client.read()
        assert client.errors() == []
        await move(client, two)
        one.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(60))
        await settle()
        one.responder.last.end()
        await settle()

        assert len(one.responder.turns) == 1
        assert town.owner_of(client) is two.node
        assert len(two.responder.turns) == 1
        assert draining.done()


@near_or_far
async def test_nodes_that_are_told_to_end_together_keep_their_connections_to_the_end(
    seed: int | None,
) -> None:
    async with open_town(seed=seed, limits=limits_of(handover_delay=1.0)) as town:
        one, two, client = await asked(town)
        for world in (one, two):
            world.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(60))
        await settle()
        for _ in range(3):
            one.clock.advance(0.6)
            await settle()
        assert not one.node.is_handing_over
        assert client.attachment is not None
        assert not client.attachment.is_finished
        one.responder.last.say("c")
        one.responder.last.end()
        await settle()
        client.read()
        assert client.statuses() == ["completed"]
        assert client.attachment.is_finished
        client.disconnect()
        await settle()
        assert draining.done()


@near_or_far
async def test_a_node_that_comes_while_another_drains_is_handed_its_sessions(seed: int | None) -> None:
    async with open_town(1, seed=seed) as town:
        one = town.worlds[0]
        client = await one.client()
        await client.ask()
        one.node.begin_drain()
        draining = asyncio.create_task(one.node.drained(60))
        await settle()
        assert not one.node.is_handing_over
        await town.node()
        for _ in range(3):
            one.clock.advance(0.6)
            await settle()
        assert one.node.is_handing_over
        draining.cancel()
        await asyncio.wait([draining])


# A store of which something is gone.


@far
@pytest.mark.parametrize("is_named", [False, True])
async def test_a_stop_whose_answer_was_lost_stops_nothing_else(seed: int, is_named: bool) -> None:
    async with open_town(seed=seed) as town:
        one = town.worlds[0]
        client = await one.client()
        await client.ask()  # and the model thinks for long
        client.read()
        distant(one).loses_answers = True
        one.node._outages.of(SessionId("")).note_failure(SessionId(""))  # somebody noticed
        for _ in range(2):
            one.clock.advance(0.6)
            await settle()
        await client.send({"type": "response.cancel", **({"event_id": "stop_1"} if is_named else {})})
        await settle()
        client.read()
        assert client.statuses() == ["cancelled"]
        await client.ask("something else")
        one.responder.last.say("a")
        await settle()
        await town.store_is_back()
        one.responder.last.say("b")
        one.responder.last.end()
        await settle()

        assert one.ended == ["cancelled", "completed"]


@far
async def test_sessions_go_on_alone_when_their_part_of_the_store_is_gone_and_the_others_don_t_notice(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part_of(session_id: str) -> str:
        return "even" if crc32(session_id.encode()) // 2 % 2 == 0 else "odd"

    monkeypatch.setattr(DistantStore, "part_of", lambda _, session_id: part_of(session_id), raising=False)
    async with open_town(seed=seed) as town:
        one = town.worlds[0]
        clients: dict[str, list[Client]] = {"even": [], "odd": []}
        while not all(clients.values()):
            client = await one.client()
            await client.ask()
            one.responder.last.say("ab")
            await settle()
            clients[part_of(client.session_id or "")].append(client)
        store = distant(one)
        real_append, real_read, real_unfollow = store.append, store.read, store.unfollow
        reads = 0

        async def append(appends: Any) -> Any:
            if any(part_of(each.session_id) == "even" for each in appends):
                raise StoreUnavailable
            return await real_append(appends)

        async def read(session_id: Any, *args: Any) -> Any:
            nonlocal reads
            if part_of(session_id) == "even":
                raise StoreUnavailable
            reads += 1
            return await real_read(session_id, *args)

        async def unfollow(session_id: Any, *args: Any) -> Any:
            if part_of(session_id) == "even":
                raise StoreUnavailable
            return await real_unfollow(session_id, *args)

        monkeypatch.setattr(store, "append", append)
        monkeypatch.setattr(store, "read", read)
        monkeypatch.setattr(store, "unfollow", unfollow)
        for turn in one.responder.turns:
            turn.say("c")
        for _ in range(24):  # six seconds; a session waits for one
            one.clock.advance(0.25)
            await settle()
        for part, each in clients.items():
            for client in each:
                client.read()
                assert client.text() == "abc"
                assert actor_on(one, client).feed.is_durable == (part == "odd")
        assert reads == 0, "nobody doubts what the others have"


@far
async def test_strict_says_nothing_that_isn_t_saved_also_after_a_loss(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("OOM")

    async with open_town(seed=seed, limits=limits_of(is_strict=True)) as town:
        one, _, client = await asked(town)
        town.lose()  # restarted empty, and with too little memory
        with monkeypatch.context() as patch:
            patch.setattr(distant(one), "reseed", full)
            patch.setattr(distant(one), "unfollow", full)
            one.responder.last.say("c")
            await settle()
            for _ in range(20):
                one.clock.advance(0.5)
                await settle()
            await client.say("taken?", id="item_x")
            await settle()
            client.read()
            assert client.text() == "ab"
            assert client.errors() == ["store_unavailable"]
            assert "taken?" not in [item.text for item in actor_on(one, client).session.items()]

        await town.store_is_back()
        await client.resume()
        one.responder.last.end()
        await settle()
        client.read()
        assert client.statuses() == ["completed"]
        assert actor_on(one, client).session.items()[-1].text == "abc"


@far
async def test_a_store_that_can_be_read_and_not_written_is_out_of_reach(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def full(*_: Any, **__: Any) -> Any:
        nonlocal calls
        calls += 1
        raise StoreUnavailable("OOM")

    async with open_town(seed=seed) as town:
        one, _, client = await asked(town)
        with monkeypatch.context() as patch, capture_logs() as logs:
            for verb in ("append", "unfollow", "rejoin", "reseed", "submit"):
                patch.setattr(distant(one), verb, full)
            one.responder.last.say("c")
            for _ in range(40):  # four seconds
                one.clock.advance(0.1)
                town.poll()
                await settle()
            client.read()
            assert client.text() == "abc"
            assert not actor_on(one, client).feed.is_durable
            assert calls < 30
            assert [entry["event"] for entry in logs].count("store out of reach") == 1
        await town.store_is_back()
        one.responder.last.end()
        await settle()
        client.read()
        assert client.statuses() == ["completed"]
        assert actor_on(one, client).feed.is_durable


@far
async def test_who_follows_is_told_when_its_node_hears_nothing_any_more(seed: int) -> None:
    async with open_town(3, seed=seed) as town:
        _, two, client = await asked(town)
        await move(client, two)
        distant(two).is_out = True
        two.node._outages.of(SessionId("")).note_failure(SessionId(""))
        for _ in range(3):
            two.clock.advance(1.0)
            town.poll()
            await settle()
        assert not actor_on(two, client).feed.is_durable
        await town.store_is_back()
        assert actor_on(two, client).feed.is_durable


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


@far
async def test_who_follows_on_a_node_that_is_cut_off_is_sent_away(seed: int) -> None:
    async with open_town(3, seed=seed) as town:
        _, two, client = await asked(town)
        await move(client, two)  # its node follows; the answer goes on on the first
        distant(two).is_out = True
        two.node._outages.of(SessionId("")).note_failure(SessionId(""))
        for _ in range(12):
            two.clock.advance(1.0)
            town.poll()
            await settle()
        with pytest.raises(StoreUnavailable):
            client.read()
        with pytest.raises(StoreUnavailable):
            await Client(two, client.session_id).connect()


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


async def come_back(client: Client, world: World) -> None:
    """Come back to a session in which nothing was said, as the door does: under the same id."""
    assert client.last_id is not None
    session_id = SessionId(client.session_id or "")
    cursor = parse_cursor(client.last_id)
    assert cursor is not None
    position, _ = cursor
    with pytest.raises(SessionNotFound):
        await world.node.attach(session_id, ALICE, position, client.chain)
    client.attachment = await world.node.create(
        ALICE,
        SessionConfig("m"),
        client.chain,
        session_id=session_id,
        incarnation=position.incarnation,
    )
    start = client.attachment.cursor.position()
    client.connection = RealtimeConnection(
        client.attachment.session,
        start,
        client.chain,
        max_depth=32,
        encoder=world.encoder(session_id, start.incarnation),
        most_tokens=None,
    )
