"""Two releases over one Redis: the format that is written is one that all of them read, forwards and back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import structlog

from tests.fakes.valkey import Server
from tests.server.realtime.serving import eventually
from tests.sessions.backends.redis.rollout import Region, Talk
from tests.sessions.conversation import Client, settle
from tests.sessions.next_format import held_release, new_release, old_release
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.ids import SessionId


@pytest_asyncio.fixture
async def region(valkey: Server) -> AsyncIterator[Region]:
    async with Region(valkey.url) as region:
        yield region


async def idle_session(region: Region) -> Client:
    """Return one who was answered once, and left; the session is in Redis alone, with a snapshot."""
    place = region.places[0]
    client = await place.world.client()
    await client.ask()
    await eventually(lambda: len(place.world.responder.turns) > 0)
    turn = place.world.responder.last
    turn.say(*("word " for _ in range(1000)))
    turn.end()
    await eventually(lambda: bool(client.read()) and bool(client.statuses()))
    client.disconnect()
    place.world.clock.advance(100)
    await region.until_owned(client, "")
    assert await region.redis.exists(region.keys.session(SessionId(client.session_id or ""))[3])
    return client


async def come_back(client: Client, region: Region) -> None:
    """See that all is there, from a node where the session isn't; and leave again."""
    place = region.places[-1]
    client.world = place.world
    await client.connect()
    client.read()
    texts = [
        part.get("text") or part.get("transcript")
        for frame in client.of_type("conversation.item.done") + client.of_type("conversation.item.added")
        for part in frame["item"]["content"]
    ]
    assert "word " * 1000 in texts
    client.disconnect()
    await settle()


@pytest.mark.slow
async def test_a_rolling_deploy_and_all_the_way_back(region: Region) -> None:
    """Answers go on all the time; no old node meets an entry that it can't read."""
    first, second = await region.start(old_release()), await region.start(old_release())
    idle = await idle_session(region)
    for place in (first, second):
        await region.talk(place)
    await region.go_on()

    # Forwards: what the old release reads is written until the last of it has gone.
    third = await region.start(new_release())
    await region.talk(third)
    await region.stop(first)
    fourth = await region.start(new_release())
    await region.talk(fourth)
    await region.go_on()
    assert await region.range() == (1, 1, 1)
    assert await region.versions() == {1}
    await region.stop(second)
    await region.until_range(2, 2, 2)
    await region.go_on()
    await region.go_on(end=True)
    assert await region.versions() == {2}
    await come_back(idle, region)
    with pytest.raises(UnknownFormat):
        await region.start(old_release())

    # And back: a node that agrees to no more than the older format has everything brought into it.
    held = await region.start(held_release())
    await region.go_on()
    await region.until_range(1, 1, 1)
    await region.go_on()
    assert await region.versions() == {1}
    fifth = await region.start(old_release())
    await region.talk(fifth)
    await region.stop(third)
    await region.stop(fourth)
    sixth = await region.start(old_release())
    await region.stop(held)
    await region.go_on(end=True)
    await region.go_on()

    assert {region.owner(talk) for talk in region.talks} <= {fifth, sixth}
    await come_back(idle, region)
    assert [place.unreadable for place in region.all] == [0] * len(region.all)
    for talk in region.talks:
        assert set(talk.client.statuses()) == {"completed"}
        assert talk.heard() == talk.said


async def test_a_release_that_can_t_read_what_is_written_is_not_let_in(region: Region) -> None:
    new = await region.start(new_release())
    await region.until_range(2, 2, 2)
    talk = await region.talk(new)
    with pytest.raises(UnknownFormat, match="UNBROKEN_STORE_FORMAT=1 on the nodes of the later release"):
        await region.start(old_release())

    assert await region.redis.smembers(region.keys.nodes) == {new.world.node.id.encode()}
    await region.go_on(end=True)
    assert talk.heard()[0] == talk.said[0]


async def test_a_release_is_not_skipped(region: Region) -> None:
    """Of two that have no format in common, the later one is told to wait for the one between."""
    await region.start(old_release())
    third = new_release()
    third.oldest, third.newest, third.latest = 2, 3, 3  # type: ignore[misc]
    with pytest.raises(UnknownFormat, match="Run the release before this one first"):
        await region.start(third)


async def test_a_restart_of_redis_without_its_data_agrees_on_nothing_new_at_once(region: Region) -> None:
    """The first to come back sees nobody else: that is no sign that nobody is there."""
    new = await region.start(new_release())
    await region.start(old_release())
    await new.steady()
    await region.redis.flushall()
    await eventually(lambda: all(place.formats.written == 1 for place in region.places))
    await region.until_range(1, 1, 1)
    assert not any(place.formats.is_outdated for place in region.places)


async def test_a_failover_that_forgot_the_agreement_keeps_old_releases_out(region: Region) -> None:
    await region.start(new_release())
    await region.until_range(2, 2, 2)
    await region.redis.delete(region.keys.formats)
    await region.until_range(1, 1, 2)
    with pytest.raises(UnknownFormat):
        await region.start(old_release())


async def cut_off(region: Region) -> tuple[Talk, list[str]]:
    """Return somebody whose node is of the old release, was cut off, and is back: others have gone on."""
    old = await region.start(old_release())
    told: list[str] = []
    old.formats.on_outdated = lambda: told.append("outdated")
    talk = await region.talk(old)
    await region.go_on()
    new = await region.start(new_release())
    await old.freeze()
    await region.until_range(2, 2, 2)
    tab = Client(new.world, talk.client.session_id)
    await tab.connect()
    await tab.say("something", id="item_new")
    await old.thaw()
    return talk, told


@pytest.mark.slow
async def test_a_node_that_was_cut_off_meanwhile_learns_that_it_is_outdated(region: Region) -> None:
    talk, told = await cut_off(region)
    await eventually(lambda: told == ["outdated"])
    with pytest.raises(UnknownFormat):  # told to those who are connected
        await eventually(lambda: talk.client.read() is None)


async def test_a_session_that_can_t_be_read_is_left_for_others(region: Region) -> None:
    """Nothing of it is changed, and it isn't kept from those that can read it."""
    old = await region.start(old_release())
    new = await region.start(new_release())
    await new.freeze()
    new.formats.agree(2)  # as one that was frozen for long, and writes before it hears of anything
    client = await new.world.client()
    await client.say("hello", id="item_1")
    await _sees(client, "item_1")  # all of it is written: nothing changes any more
    client.disconnect()
    session_id = SessionId(client.session_id or "")
    await region.redis.hset(region.keys.meta(session_id), "o", "")
    before = await region.redis.xrange(region.keys.session(session_id)[1])

    client.world = old.world
    with structlog.testing.capture_logs() as logs, pytest.raises(UnknownFormat):
        await client.connect()
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["session can't be read"]
    assert old.unreadable > 0
    assert await region.redis.xrange(region.keys.session(session_id)[1]) == before
    owner = await region.redis.hget(region.keys.meta(session_id), "o")
    assert owner != old.world.node.id.encode()

    client.world = (await region.start(new_release())).world
    await client.connect()
    await _sees(client, "item_1")


async def _sees(client: Client, item_id: str) -> None:
    """Wait until a client has been shown an item."""
    await eventually(lambda: item_id in [frame["item"]["id"] for frame in client.read() if "item" in frame])
