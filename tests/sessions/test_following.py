"""What it costs a node to follow sessions, and that much of that is no outage."""

from __future__ import annotations

import pytest

from tests.sessions.conversation import Client, limits_of, settle
from tests.sessions.town import Town, actor_on, asked, distant, move, open_town, polls, tab_on
from unbroken.sessions import poll_order
from unbroken.sessions.backends.base import NOBODY, Opened, Page
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import NodeId, SessionId


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[SessionId]:
    """The sessions that were read from a store in memory, each as often as it was."""
    found: list[SessionId] = []
    read = MemoryStore.read

    async def counted(
        self: MemoryStore, session_id: SessionId, after: Position, limit: int, *, node: NodeId = NOBODY
    ) -> Page:
        found.append(session_id)
        return await read(self, session_id, after, limit, node=node)

    monkeypatch.setattr(MemoryStore, "read", counted)
    return found


async def test_news_cost_one_read(reads: list[SessionId]) -> None:
    async with open_town() as town:
        one, two, client = await asked(town)
        await move(client, two)
        reads.clear()
        one.responder.last.say("c")
        await settle()
        client.read()
        assert client.text() == "abc"
        assert reads == [client.session_id]


async def test_who_comes_to_another_node_costs_three_reads(reads: list[SessionId]) -> None:
    """Of the log, of what has come meanwhile, and one by the owner, which is told of it."""
    async with open_town() as town:
        _, two, client = await asked(town)
        reads.clear()
        await move(client, two)
        assert client.resumed
        assert reads == 3 * [client.session_id]


async def test_who_was_passed_a_session_reads_none_of_its_own_writes(reads: list[SessionId]) -> None:
    """It followed it before."""
    async with open_town() as town:
        one, two, client = await asked(town)
        await move(client, two)
        one.responder.last.end()
        await settle()
        await client.ask("more")
        assert town.owner_of(client) is two.node
        reads.clear()
        for _ in range(5):
            two.responder.last.say("x")
            await settle()
        assert reads == []


async def test_of_many_that_are_followed_each_is_read_in_its_turn(
    reads: list[SessionId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll_order, "_FOLLOWED_AT_ONCE", 2)
    monkeypatch.setattr(poll_order, "_SILENT_AT_ONCE", 2)
    monkeypatch.setattr(poll_order, "_OWNED_AT_ONCE", 0)
    async with open_town() as town:
        clients = [(await asked(town))[2] for _ in range(5)]
        for client in clients:
            await move(client, town.worlds[1])
        town.is_silent = True  # their owner isn't asked, and reads nothing
        await _polled(town, reads)  # from here on it is known that nothing comes
        polls = [await _polled(town, reads) for _ in range(4)]
        everything = {client.session_id for client in clients}
        assert [len(each) for each in polls] == [2, 2, 1, 2]
        assert set().union(*polls[:3]) == everything
        assert polls[3] == polls[0]


async def _polled(town: Town, reads: list[SessionId]) -> set[SessionId]:
    """Return what a poll reads."""
    reads.clear()
    town.poll()
    await settle()
    return set(reads)


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_an_input_that_is_answered_by_nothing_is_known_to_be_answered(seed: int | None) -> None:
    """Stop was pressed twice. Else a follower waits for an answer, and asks the owner for it at each poll."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        one.responder.last.ignores_cancel = True
        tab = await tab_on(two, client)
        for _ in range(2):
            await tab.send({"type": "response.cancel"})
        one.clock.advance(5)  # the agent isn't waited for any longer
        await settle()
        await polls(town, 1)
        one.responder.last.ignores_cancel = False

        follower = actor_on(two, client)
        assert not follower.is_owner
        assert not follower.session.is_busy


@pytest.mark.parametrize("is_owner", [False, True])
async def test_a_store_that_is_asked_too_much_is_not_taken_for_lost(is_owner: bool) -> None:
    async with open_town(seed=1, limits=limits_of(outage_patience=0.0)) as town:
        one, two, client = await asked(town)
        await move(client, two)
        world = one if is_owner else two
        distant(world).is_busy = True
        one.responder.last.say("c")
        await settle()
        for _ in range(5):
            actor_on(world, client).look()
            world.clock.advance(2)
            await settle()
        assert not world.node.is_store_lost
        assert actor_on(world, client).feed.is_durable
        client.read()
        assert client.text() == "ab"

        distant(world).is_busy = False
        world.clock.advance(2)
        await settle()
        one.responder.last.end()
        await settle()
        client.read()
        assert (client.text(), client.statuses()) == ("abc", ["completed"])


async def test_an_input_that_has_not_had_its_turn_is_refused_and_nothing_is_lost() -> None:
    async with open_town(seed=1, limits=limits_of(outage_patience=0.0)) as town:
        world = town.worlds[0]
        client = await world.client()
        distant(world).is_busy = True
        await client.say("hi")
        await settle()
        client.read()
        assert [each["error"]["code"] for each in client.of_type("error")] == ["store_unavailable"]
        assert not world.node.is_store_lost

        distant(world).is_busy = False
        await client.say("hi again")
        await settle()
        client.read()
        assert len(client.of_type("conversation.item.done")) == 1


async def _followed(town: Town, *, running: int, idle: int) -> tuple[list[Client], list[Client]]:
    """Return tabs on the second node: of answers of the first's that have begun, and clients of some that
    have ended there, each with a tab on the second.
    """
    one, two = town.worlds
    ended, tabs = [], []
    for number in range(idle + running):
        client = (await asked(town))[2]
        if number < idle:
            one.responder.last.end()
            await settle()
            ended.append(client)
        tabs.append(await tab_on(two, client))
    for _ in range(2):  # from here on it is known who says nothing
        town.poll()
        await settle()
    town.is_silent = True
    return tabs[idle:], ended


async def test_one_that_falls_silent_in_mid_answer_is_read_before_the_many_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was told of it got lost: a client waits for it, and not for the others."""
    monkeypatch.setattr(poll_order, "_FOLLOWED_AT_ONCE", 2)
    monkeypatch.setattr(poll_order, "_SILENT_AT_ONCE", 1)
    async with open_town() as town:
        (tab,), _ = await _followed(town, running=1, idle=12)
        for piece in ("c", "d"):
            town.worlds[0].responder.last.say(piece)
            await settle()
            for _ in range(2):
                town.poll()
                await settle()
            tab.read()
            assert tab.text()[-1] == piece


async def test_many_that_are_silent_leave_turns_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that think for long are no reason not to look at anything else."""
    monkeypatch.setattr(poll_order, "_FOLLOWED_AT_ONCE", 3)
    monkeypatch.setattr(poll_order, "_SILENT_AT_ONCE", 2)
    async with open_town() as town:
        running, idle = await _followed(town, running=6, idle=3)
        for turn in town.worlds[0].responder.turns[3:]:
            turn.say("c")
        for client in idle:
            await client.say("hi again")
        await settle()
        for _ in range(8):
            town.poll()
            await settle()
        for tab in running:
            tab.read()
        assert [tab.text()[-1] for tab in running] == ["c"] * 6
        for client in idle:
            assert actor_on(town.worlds[1], client).log.head == actor_on(town.worlds[0], client).log.head


# Registrations that were lost.


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_who_is_registered_no_more_registers_again(seed: int | None) -> None:
    """The store has failed over, and lost that; or was told late that the node doesn't follow any more."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        await town.memory.unfollow(SessionId(client.session_id or ""), two.node.id)
        one.responder.last.say("c")
        await settle()
        tab.read()
        assert tab.text() == "ab"
        await polls(town, 2)
        one.responder.last.say("d")
        await settle()
        tab.read()
        assert tab.text() == "abcd"
        assert two.node.id in town.stored(client).followers


async def test_an_owner_that_is_fenced_and_cannot_register_at_once_does_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_town(seed=1) as town:
        one, two, client = await asked(town)
        await tab_on(two, client)
        follow, calls = distant(one).follow, 0

        async def fail_first(session_id: SessionId, node: NodeId) -> Opened:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise StoreUnavailable
            return await follow(session_id, node)

        monkeypatch.setattr(distant(one), "follow", fail_first)
        town.lost.add(one.node.id)
        town.neighbours[two.node.id].on_lost(one.node.id)  # it was frozen
        await settle()
        one.responder.last.say("late")
        await polls(town, 3)
        assert not actor_on(one, client).is_owner
        assert one.node.id in town.stored(client).followers
        assert calls == 2


async def test_a_store_that_takes_no_registrations_is_asked_once_a_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no memory left, say, and can be read."""
    async with open_town(seed=1) as town:
        _, two, client = await asked(town)
        await tab_on(two, client)
        calls = 0

        async def full(*_: object) -> Opened:
            nonlocal calls
            calls += 1
            raise StoreUnavailable

        monkeypatch.setattr(distant(two), "follow", full)
        await town.memory.unfollow(SessionId(client.session_id or ""), two.node.id)
        await polls(town, 5)
        assert 1 <= calls <= 5
