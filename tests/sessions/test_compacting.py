"""Snapshots of what the store doesn't hold, and sessions that an older release has left with one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sessions.acting import said as item
from tests.sessions.conversation import Client, World, limits_of, settle
from tests.sessions.town import Town, actor_on, asked, begin_outage, distant, go, open_town, tab_on, texts
from unbroken.sessions.backends.base import Snapshot
from unbroken.sessions.errors import CursorLost, StoreUnavailable
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import RunLimits

pytestmark = pytest.mark.parametrize("seed", [1, 2, 3, 4])

FORGETFUL = limits_of(actor=ActorLimits(run=RunLimits(), retain_bytes=500))
"""So little log is kept that the store is to forget some of it again and again."""


async def told(town: Town, client: Client, count: int = 20) -> tuple[World, str]:
    """Have an answer of many words come to its end, and return who gave it."""
    (one,) = [world for world in town.worlds if world.node is town.owner_of(client)]
    await client.ask("more")
    for number in range(count):
        one.responder.last.say(f"word{number} " + "x" * 60)
        await settle()
    one.responder.last.end()
    await settle()
    client.read()
    return one, client.text()


def is_sound(town: Town, client: Client) -> bool:
    """Return whether what the store holds of a session can be gone on from."""
    stored = town.stored(client)
    kept = stored.snapshot
    return kept is None or (kept.seq <= stored.log.head and stored.log.nonce_at(kept.seq) == kept.nonce)


async def test_an_idle_session_whose_tail_was_lost_is_not_let_go(seed: int) -> None:
    """The store fails over, and its owner lets it go before anything else is asked of the store."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        copied = town.copy()
        one.responder.last.say(*40 * ["x" * 300])
        await settle()
        one.responder.last.end()
        await settle()
        said = texts(one, client)
        client.disconnect()
        town.lose(copied)
        await one.node._ownership.forget(actor_on(one, client))
        assert is_sound(town, client)
        await settle()
        for _ in range(6):
            one.clock.advance(30)
            await one.node.sweep()
            await settle()
        await go(client, two)

        assert is_sound(town, client)
        assert texts(two, client) == said


async def test_an_owner_learns_from_a_compaction_that_the_tail_was_lost(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed, limits=FORGETFUL) as town:
        one, two, client = await asked(town)
        copied = town.copy()
        compact = distant(one).compact

        async def lose_before(*args: Any) -> None:
            monkeypatch.setattr(distant(one), "compact", compact)
            town.lose(copied)
            await compact(*args)

        monkeypatch.setattr(distant(one), "compact", lose_before)
        one.responder.last.say(*40 * ["x" * 300])
        await settle()
        one.responder.last.end()
        await settle()
        await settle()
        assert distant(one).compact == compact
        with pytest.raises(CursorLost):
            client.read()
        assert is_sound(town, client)
        assert actor_on(one, client).feed.is_durable
        said = texts(one, client)
        client.disconnect()
        town.kill(one)
        town.notice(one)
        await go(client, two)
        assert texts(two, client) == said


async def test_a_store_that_an_owner_does_without_is_asked_to_forget_nothing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be back before that is noticed, and hold a snapshot of what it was never given."""
    async with open_town(seed=seed, limits=FORGETFUL) as town:
        one, two, client = await asked(town)
        await begin_outage(one)
        asks: list[Snapshot] = []
        compact = distant(one).compact

        async def note(session_id: Any, fence: Any, floor: int, snapshot: Snapshot) -> None:
            asks.append(snapshot)
            await compact(session_id, fence, floor, snapshot)

        monkeypatch.setattr(distant(one), "compact", note)
        one.responder.last.say(*40 * ["x" * 60])
        await settle()
        distant(one).is_out = False
        one.responder.last.end()
        await settle()
        await told(town, client)
        assert actor_on(one, client)._ring is not None
        assert asks == []
        assert is_sound(town, client)

        town.kill(one)
        town.notice(one)
        await settle()
        client.disconnect()
        await go(client, two)
        assert texts(two, client)[0] == "hello"
        assert actor_on(two, client).session.applied == actor_on(two, client).log.head


async def _left_behind(town: Town, *, ahead: bool) -> tuple[World, World, Client, list[str]]:
    """Return a session of nobody's, as a release that compared nothing left it: its snapshot is of a branch
    that the store has lost, and ahead of the log, or the log has gone on since."""
    one, two, client = await asked(town)
    copied = town.copy()
    one.responder.last.say(*40 * ["x" * 300])
    await settle()
    one.responder.last.end()
    await settle()
    actor = actor_on(one, client)
    said, snapshot = texts(one, client), actor.snapshot()
    client.disconnect()
    town.kill(one)
    town.lose(copied)
    stored = town.stored(client)
    if not ahead:
        client.world = two
        while stored.log.head < snapshot.seq + 3:
            opened = await town.memory.inspect(actor.session.id)
            place = stored.log.position(opened.head)
            await town.memory.submit(actor.session.id, item(f"item_{opened.head}"), place)
    stored.snapshot = snapshot
    stored.log.forget(min(snapshot.seq, stored.log.head))
    return one, two, client, said


@pytest.mark.parametrize("ahead", [True, False])
async def test_a_session_left_with_a_snapshot_of_what_was_lost_is_begun_anew(seed: int, ahead: bool) -> None:
    async with open_town(3, seed=seed) as town:
        one, two, client, said = await _left_behind(town, ahead=ahead)
        life = town.stored(client).log.incarnation
        town.notice(one)
        await settle()
        client.world = two
        await client.resume()
        await settle()
        assert not client.resumed
        tab = await tab_on(two, client)
        assert town.owner_of(client) is two.node
        assert texts(two, client)[: len(said)] == said
        assert is_sound(town, client)
        assert town.stored(client).log.incarnation != life
        assert actor_on(two, client).feed.is_durable

        await told(town, tab)
        await tab_on(town.worlds[2], client)
        assert texts(town.worlds[2], client) == texts(two, client)


async def test_a_session_left_so_by_an_owner_that_lives_is_for_it_to_mend(seed: int) -> None:
    """As it does once it has found out: until then, who comes to another node is to try again."""
    async with open_town(seed=seed) as town:
        _, two, client, _ = await _left_behind(town, ahead=True)
        client.world = two
        with pytest.raises(StoreUnavailable):
            await client.resume()
