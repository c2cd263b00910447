"""Sessions that somebody is connected to don't expire in the store, whatever is said in them."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tests.sessions.conversation import Client, World, limits_of, settle
from tests.sessions.town import Town, actor_on, answered, asked, distant, open_town, tab_on
from unbroken.sessions import keeping
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import SessionId

LIMITS = limits_of(idle_timeout=1200.0)  # so that it is told each hundred seconds


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[SessionId]:
    """The sessions that a store in memory was told to keep, each as often as it was."""
    found: list[SessionId] = []

    async def keep(_: MemoryStore, session_ids: Collection[SessionId]) -> None:
        found.extend(session_ids)

    monkeypatch.setattr(MemoryStore, "keep", keep)
    return found


async def after(town: Town, seconds: float) -> None:
    """Let so much time pass, and then the slow poll come."""
    for world in town.worlds:
        world.clock.advance(seconds)
    await settle()
    town.poll()
    await settle()


@pytest.mark.parametrize("seed", [None, 1])
async def test_what_somebody_is_connected_to_is_kept_from_time_to_time(
    seed: int | None, kept: list[SessionId]
) -> None:
    async with open_town(seed=seed, limits=LIMITS) as town:
        _, _, client = await answered(town)
        for _ in range(3):
            await after(town, 99)
            assert kept == []
            await after(town, 1)
            assert kept == [client.session_id]
            kept.clear()


@pytest.mark.parametrize("seed", [None, 1])
async def test_what_has_connections_at_a_follower_alone_is_kept(
    seed: int | None, kept: list[SessionId]
) -> None:
    """At once: nobody knows how much of its time is over. Its owner stays that, as an answer runs there."""
    async with open_town(seed=seed, limits=LIMITS) as town:
        one, two, client = await asked(town)
        await tab_on(two, client)
        client.disconnect()
        await after(town, 1)
        assert actor_on(one, client).is_owner
        assert kept == [client.session_id]
        await after(town, 100)
        assert kept == 2 * [client.session_id]


async def test_what_nobody_is_connected_to_is_not(kept: list[SessionId]) -> None:
    async with open_town(limits=LIMITS) as town:
        one, _, client = await asked(town)
        client.disconnect()
        await one.client()  # in which nobody has said anything: the store doesn't know it
        await after(town, 100)
        assert kept == []


async def test_a_store_that_cannot_be_told_is_told_soon_again(
    kept: list[SessionId], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(1, seed=1, limits=LIMITS) as town:
        client = await _one(town)
        with monkeypatch.context() as patch:
            patch.setattr(distant(town.worlds[0]), "keep", _unavailable)
            await after(town, 100)
        await after(town, 9)
        assert kept == []
        await after(town, 1)
        assert kept == [client.session_id]


async def test_what_is_out_of_reach_waits_and_the_others_do_not(kept: list[SessionId]) -> None:
    async with open_town(1, seed=1, limits=LIMITS) as town:
        torn, other = await _one(town), await _one(town)
        store = distant(town.worlds[0])
        store.half_moved = {SessionId(torn.session_id or "")}
        actor_on(town.worlds[0], torn).look()
        await settle()
        await after(town, 100)
        assert kept == [other.session_id]


async def test_how_many_are_kept_at_once_is_bounded(
    kept: list[SessionId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_AT_ONCE", 2)
    async with open_town(1, limits=LIMITS) as town:
        clients = [await _one(town) for _ in range(5)]
        await after(town, 100)
        assert len(kept) == 2
        for _ in range(2):
            await after(town, 1)
        assert sorted(kept) == sorted(client.session_id or "" for client in clients)


async def _one(town: Town) -> Client:
    """Return a client of the first node that has been answered."""
    one: World = town.worlds[0]
    client = await one.client()
    await client.ask()
    one.responder.last.end()
    await settle()
    return client


async def _unavailable(_: object) -> None:
    raise StoreUnavailable
