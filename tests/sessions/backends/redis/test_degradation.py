"""What operators learn of a Redis that refuses, and what it has to allow. Real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
import structlog

from tests.fakes.valkey import Server
from tests.server.realtime.serving import eventually
from tests.sessions.backends.cluster_contract import ClusterContract
from tests.sessions.backends.index_contract import LISTED, IndexContract
from tests.sessions.backends.redis.acl import allow
from tests.sessions.backends.redis.rollout import Place, Region
from tests.sessions.backends.redis.test_membership import RedisStreet
from tests.sessions.backends.store_contract import StoreContract
from tests.sessions.next_format import held_release, new_release, old_release
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.backends.redis.index import RedisIndex
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.store import RedisStore
from unbroken.sessions.backends.redis.trouble import Trouble, reason_of
from unbroken.sessions.backends.redis.watch import Watch
from unbroken.sessions.errors import StoreUnavailable

OPERATIONS: Final = Path(__file__).parents[4] / "docs" / "operations.md"

REFUSALS: Final = {
    "out_of_memory": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "read_only": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    "not_permitted": (("ACL", "SETUSER", "default", "-@scripting"), ("ACL", "SETUSER", "default", "+@all")),
    "no_replicas": (
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own: these tests set it up badly."""
    with Server(tmp_path / "data").running() as server:
        yield server


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    client = connect(Address(server.url), name="test")
    yield client
    await client.aclose()


def note_failures(place: Place) -> list[str]:
    """Return the reasons of what fails on a node from here on."""
    failures: list[str] = []
    place.store._trouble.on_failure = place.membership._trouble.on_failure = failures.append
    return failures


@pytest.mark.parametrize("reason", list(REFUSALS))
async def test_a_store_that_can_only_be_read_is_out_of_reach_until_it_can_be_written(
    server: Server, reason: str
) -> None:
    """It was taken for one that is back, again and again, since what was asked of it was but a reading."""
    break_it, mend_it = REFUSALS[reason]
    with structlog.testing.capture_logs() as logs:
        async with Region(server.url) as region:
            place = await region.start(old_release())
            failures = note_failures(place)
            node, clock = place.world.node, place.world.clock
            talk = await region.talk(place)
            server.command(*break_it)
            clock.advance(1)
            (turn,) = place.world.responder.turns
            turn.say("word ")
            await eventually(lambda: node._outages.is_any_on)
            assert node.is_store_lost
            for _ in range(3):
                count = len(failures)
                clock.advance(1)
                await eventually(lambda count=count: len(failures) > count + 1)  # type: ignore[misc]
            assert "store back" not in [line["event"] for line in logs]
            assert set(failures) == {reason}

            server.command(*mend_it)
            talk.said[-1] = "word "

            def is_back() -> bool:
                clock.advance(1)
                return not node.is_store_lost and talk.heard() == talk.said

            await eventually(is_back)
    said = [line for line in logs if line["event"] == "redis fails"]
    assert {line["reason"] for line in said} == {reason}
    assert len(said) <= 2  # the store's and the membership's, however often it was tried
    assert all(line["hint"] for line in said)


async def test_a_node_without_sessions_notices_too_that_redis_is_gone(server: Server) -> None:
    async with Region(server.url) as region:
        place = await region.start(old_release())
        failures = note_failures(place)
        assert not place.world.node.is_store_lost
        server.kill()
        await eventually(lambda: place.world.node.is_store_lost)
        assert set(failures) <= {"unreachable", "timeout"}
        server.start()
        await eventually(lambda: not place.world.node.is_store_lost)


async def test_a_password_that_was_changed_is_named(server: Server) -> None:
    server.command("ACL", "SETUSER", "ada", "on", ">first", "~*", "&*", "+@all")
    async with Region(server.url.replace("redis://", "redis://ada:first@")) as region:
        place = await region.start(old_release())
        failures = note_failures(place)
        server.command("ACL", "SETUSER", "ada", "resetpass", ">second")
        server.command("CLIENT", "KILL", "USER", "ada", "SKIPME", "no")
        await eventually(lambda: "refused_user" in failures)
        assert place.world.node.is_store_lost
        server.command("ACL", "SETUSER", "ada", ">first")
        await eventually(lambda: not place.world.node.is_store_lost)


def test_a_reason_that_isn_t_known_is_of_the_closed_list_too() -> None:
    assert reason_of(StoreUnavailable("Whatever")) == reason_of(StoreUnavailable()) == "other"


def test_each_reason_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("unbroken.sessions.backends.redis.trouble.time.monotonic", lambda: now[0])
    trouble = Trouble()
    with structlog.testing.capture_logs() as logs:
        for name in ("TimeoutError", "TimeoutError", "ReadOnlyError"):
            trouble.note(StoreUnavailable(name))
        now[0] += 60
        trouble.note(StoreUnavailable("TimeoutError"))
    assert [line["reason"] for line in logs] == ["timeout", "read_only", "timeout"]


async def looked(watch: Watch) -> list[str]:
    with structlog.testing.capture_logs() as logs:
        await watch.look()
    return [line["event"] for line in logs]


async def test_a_redis_that_would_evict_sessions_is_warned_of(server: Server, client: Client) -> None:
    watch = Watch(client)
    server.command("CONFIG", "SET", "maxmemory", "100mb")
    assert await looked(watch) == []
    server.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    assert await looked(watch) == ["redis may evict sessions"]
    assert watch.may_evict
    assert await looked(watch) == []
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert await looked(watch) == []
    assert not watch.may_evict


async def test_keys_that_were_evicted_and_memory_that_runs_out_are_told(
    server: Server, client: Client
) -> None:
    watch = Watch(client)
    assert await looked(watch) == ["redis has no bound"]
    for number in range(200):
        server.command("SET", f"k{number}", "x" * 10_000)
    await watch.look()
    server.command("CONFIG", "SET", "maxmemory", str(watch.used + 100_000))
    assert await looked(watch) == ["redis nearly full"]
    assert watch.limit > watch.used > 0
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    server.command("CONFIG", "SET", "maxmemory", str(watch.used - 500_000))
    server.command("SET", "more", "x")
    assert "redis has evicted keys" in await looked(watch)
    assert watch.evicted > 0


async def test_what_may_not_be_looked_at_is_said_once(server: Server) -> None:
    server.command("ACL", "SETUSER", "ada", "on", ">pw", "~*", "&*", "+@all", "-info")
    client = connect(Address(server.url.replace("redis://", "redis://ada:pw@")), name="test")
    watch = Watch(client)
    assert await looked(watch) == ["redis not watched"]
    assert await looked(watch) == []
    await client.aclose()


# What a user of Redis has to be allowed: the rule in the docs, to the letter.


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose user has the rule of the docs."""
    with Server(tmp_path_factory.mktemp("guarded") / "data").running() as server:
        allow(server, "test")
        server.url = server.url.replace("redis://", "redis://unbroken:password@")
        yield server


class TestStoreOfARestrictedUser(StoreContract):
    @pytest_asyncio.fixture
    async def store(self, guarded: Server) -> AsyncIterator[RedisStore]:
        client = connect(Address(guarded.url), name="test")
        store = RedisStore(client, Keys("test"), Bounds())
        yield store
        await store.aclose()
        await client.aclose()


class TestIndexOfARestrictedUser(IndexContract):
    @pytest_asyncio.fixture
    async def index(self, guarded: Server) -> AsyncIterator[RedisIndex]:
        guarded.command("FLUSHALL")
        client = connect(Address(guarded.url), name="test")
        yield RedisIndex(client, Keys("test"), Bounds(), listed=LISTED)
        await client.aclose()


class TestMembershipOfARestrictedUser(ClusterContract):
    @pytest_asyncio.fixture
    async def street(self, guarded: Server) -> AsyncIterator[RedisStreet]:
        guarded.command("FLUSHALL")
        street = RedisStreet(Address(guarded.url))
        yield street
        await street.aclose()


async def test_a_restricted_user_may_rewrite_and_watch(guarded: Server) -> None:
    guarded.command("FLUSHALL")
    guarded.command("SCRIPT", "FLUSH")
    admin = guarded.url.replace("unbroken:password@", "")
    async with Region(admin) as region:
        region.url = guarded.url
        place = await region.start(new_release())
        await region.talk(place)
        await region.go_on(end=True)
        await region.until_range(2, 2, 2)
        await region.start(held_release())
        await region.until_range(1, 1, 1)
        assert await region.versions() == {1}
        watch = Watch(place.client)
        await watch.look()
        assert watch.used > 0


async def test_a_restricted_user_may_nothing_else(guarded: Server) -> None:
    """The rule is of use: other keys, and what is for administrators, are refused."""
    client = connect(Address(guarded.url), name="test")
    for words in (("GET", "other"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*")):
        with pytest.raises(Exception, match="permission"):
            await client.execute_command(*words)
    await client.aclose()
