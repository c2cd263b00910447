"""A store of which something is gone, or a part, or that can't be written to: who is told of what."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest
from structlog.testing import capture_logs

from tests.fakes.store import DistantStore
from tests.sessions.conversation import Client, World, limits_of, settle
from tests.sessions.town import Town, actor_on, asked, distant, move, open_town
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import SessionId
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import RunLimits

near_or_far = pytest.mark.parametrize("seed", [None, 1, 2])
far = pytest.mark.parametrize("seed", [1, 2, 3])

TWO_ATTEMPTS = limits_of(actor=ActorLimits(run=RunLimits(stop_timeout=0.01), attempts=2))


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

        async def read(session_id: Any, *args: Any, **options: Any) -> Any:
            nonlocal reads
            if part_of(session_id) == "even":
                raise StoreUnavailable
            reads += 1
            return await real_read(session_id, *args, **options)

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


async def hears_nothing(town: Town, world: World, seconds: int) -> None:
    """Have the store out of a node's reach for so long: it has noticed, and looks again at each poll."""
    distant(world).is_out = True
    world.node._outages.of(SessionId("")).note_failure(SessionId(""))
    for _ in range(seconds):
        world.clock.advance(1.0)
        town.poll()
        await settle()


@far
async def test_who_follows_is_told_when_its_node_hears_nothing_any_more(seed: int) -> None:
    async with open_town(3, seed=seed) as town:
        _, two, client = await asked(town)
        await move(client, two)
        await hears_nothing(town, two, 3)
        assert not actor_on(two, client).feed.is_durable
        await town.store_is_back()
        assert actor_on(two, client).feed.is_durable


@far
async def test_a_follower_that_heard_nothing_and_then_takes_the_session_says_that_all_is_saved(
    seed: int,
) -> None:
    """Found by chaos: it was told to be unsaved for as long as it lived there."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        await move(client, two)
        await hears_nothing(town, two, 3)
        assert not actor_on(two, client).feed.is_durable
        town.kill(one)
        distant(two).is_out = False
        town.notice(one)  # before anybody has seen that the store is back
        await settle()
        assert actor_on(two, client).is_owner
        await town.store_is_back()
        assert actor_on(two, client).feed.is_durable


@far
async def test_who_follows_on_a_node_that_is_cut_off_is_sent_away(seed: int) -> None:
    async with open_town(3, seed=seed) as town:
        _, two, client = await asked(town)
        await move(client, two)  # its node follows; the answer goes on on the first
        await hears_nothing(town, two, 12)
        with pytest.raises(StoreUnavailable):
            client.read()
        with pytest.raises(StoreUnavailable):
            await Client(two, client.session_id).connect()
