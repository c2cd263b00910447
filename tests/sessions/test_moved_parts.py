"""Sessions that have moved from one part of the store to another, as when a cluster is resharded."""

from __future__ import annotations

import gc

import pytest

from tests.fakes.store import DistantStore
from tests.sessions.conversation import settle
from tests.sessions.town import actor_on, asked, begin_outage, distant, open_town, tab_on
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import SessionId

OTHER = SessionId("of the part of before")


class Parts:
    """Which part has the sessions, all but one that stays where it was. Fault verb: :meth:`move`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = "1st"
        monkeypatch.setattr(DistantStore, "part_of", lambda _, each: self.of(each), raising=False)
        self._patch = monkeypatch

    def of(self, session_id: SessionId) -> str:
        return "1st" if session_id in (OTHER, "") else self._now

    def move(self) -> None:
        """Have sessions be in the second part from now on."""
        self._now = "2nd"

    def lose_the_first(self, store: DistantStore) -> None:
        """Have all probes of the first part fail."""

        async def fail(*_: object) -> None:
            raise StoreUnavailable

        self._patch.setattr(store, "unfollow", fail)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(monkeypatch)


async def test_an_outage_of_the_part_of_before_sends_nobody_away(parts: Parts) -> None:
    async with open_town(seed=1) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        parts.move()
        parts.lose_the_first(distant(two))
        two.node._outages.of(OTHER).note_failure(OTHER)
        for _ in range(24):
            two.clock.advance(0.5)
            town.poll()
            await settle()

        assert two.node.is_store_lost
        actor = actor_on(two, tab)
        assert actor.feed.ended is None
        assert actor.feed.is_durable
        one.responder.last.end()
        await settle()
        tab.read()
        assert tab.statuses() == ["completed"]


async def test_a_failure_is_one_of_the_part_that_has_the_session_by_now(parts: Parts) -> None:
    async with open_town(seed=1) as town:
        one, _, client = await asked(town)
        before = actor_on(one, client).outage
        parts.move()
        distant(one).is_out = True
        one.responder.last.say("c")
        await settle()

        assert one.node.is_store_lost
        assert not before.is_on
        await town.store_is_back()
        one.responder.last.end()
        await settle()
        client.read()
        assert (client.text(), client.statuses()) == ("abc", ["completed"])
        assert not one.node.is_store_lost


async def test_one_that_goes_on_alone_is_saved_where_it_is_by_now(parts: Parts) -> None:
    async with open_town(seed=1) as town:
        one, _, client = await asked(town)
        one.responder.last.say("c")
        await begin_outage(one)
        assert not actor_on(one, client).feed.is_durable
        parts.move()
        parts.lose_the_first(distant(one))
        distant(one).is_out = False
        town.poll()
        await settle()

        assert one.node.is_store_lost, "of others"
        assert actor_on(one, client).feed.is_durable


async def test_an_outage_of_a_part_that_has_nothing_any_more_is_over(parts: Parts) -> None:
    async with open_town(seed=1) as town:
        one, _, client = await asked(town)
        one.responder.last.say("c")
        distant(one).is_out = True
        await settle()
        first = actor_on(one, client).outage
        assert first.is_on
        parts.move()
        for _ in range(4):
            one.clock.advance(0.5)
            await settle()

        assert not first.is_on
        assert one.node.is_store_lost, "of the part that has it now"
        distant(one).is_out = False
        for _ in range(4):
            one.clock.advance(0.5)
            await settle()
        assert not one.node.is_store_lost
        one.responder.last.end()
        await settle()
        client.read()
        assert (client.text(), client.statuses()) == ("abc", ["completed"])


async def test_what_is_known_of_a_part_is_forgotten_with_its_last_session(parts: Parts) -> None:
    """Servers of a cluster come and go under new names for as long as a node lives."""
    async with open_town(1, seed=1) as town:
        one = town.worlds[0]
        for _ in range(2):
            client = await one.client()
            await client.ask()
            one.responder.last.end()
            await settle()
            client.disconnect()
            one.clock.advance(100)  # it is let go of
            await settle()
            parts.move()
        assert not len(one.node.hub)
        one.responder.turns.clear()  # of which each knows its session
        gc.collect()

        assert list(one.node._outages._parts) == []
        assert list(one.node._committers._parts) == []


async def test_a_part_out_of_reach_is_known_without_a_session(parts: Parts) -> None:
    async with open_town(1, seed=1) as town:
        one = town.worlds[0]
        parts.lose_the_first(distant(one))
        one.node._outages.of(OTHER).note_failure(OTHER)
        one.clock.advance(0.5)
        gc.collect()
        assert one.node._outages.of(OTHER).is_on
        assert one.node.is_store_lost
