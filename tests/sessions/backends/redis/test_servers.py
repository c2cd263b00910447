"""Several servers: Valkey Cluster, and one that Sentinels name. Real ones."""

from __future__ import annotations

import asyncio
import gc
import re
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot

from tests.fakes.valkey import Watchtower
from tests.fakes.valkey_cluster import ValkeyCluster
from tests.sessions.backends.cluster_contract import ClusterContract, House
from tests.sessions.backends.index_contract import LISTED, IndexContract
from tests.sessions.backends.redis.acl import allow
from tests.sessions.backends.redis.test_membership import RedisStreet, polled
from tests.sessions.backends.redis.test_tally import RedisBooks
from tests.sessions.backends.store_contract import LIFE, NONE, START, A, StoreContract, asked, mark, words
from tests.sessions.backends.tally_contract import TallyContract
from tests.sessions.next_format import new_release
from unbroken.sessions.backends.base import Append, Fence
from unbroken.sessions.backends.redis.cluster_client import CalmCluster
from unbroken.sessions.backends.redis.connection import Address, connect
from unbroken.sessions.backends.redis.index import RedisIndex
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.membership import Pace
from unbroken.sessions.backends.redis.rewriting import Rewriting
from unbroken.sessions.backends.redis.scripts import Caller, Scripts, SlotDown
from unbroken.sessions.backends.redis.store import RedisStore
from unbroken.sessions.backends.redis.watch import Watch
from unbroken.sessions.caps import Caps
from unbroken.sessions.clock import SystemClock
from unbroken.sessions.entries import version_of
from unbroken.sessions.errors import StoreError, StoreUnavailable
from unbroken.sessions.ids import SessionId, new_session_id

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect here what the client leaves behind when it learns anew who the servers are: connections that
    it doesn't close, whose warnings would be another test's failure."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")).running() as servers:
        yield servers


class TestStoreOnACluster(StoreContract):
    @pytest_asyncio.fixture
    async def store(self, servers: ValkeyCluster) -> AsyncIterator[RedisStore]:
        client = connect(Address(servers.url), name="test")
        store = RedisStore(client, Keys("test"), Bounds(), is_cluster=True)
        yield store
        await store.aclose()
        await client.aclose()


class TestIndexOnACluster(IndexContract):
    @pytest_asyncio.fixture
    async def index(self, servers: ValkeyCluster) -> AsyncIterator[RedisIndex]:
        servers.flush()
        client = connect(Address(servers.url), name="test")
        yield RedisIndex(client, Keys("test"), Bounds(), listed=LISTED)
        await client.aclose()


class TestMembershipOnACluster(ClusterContract):
    @pytest_asyncio.fixture
    async def street(self, servers: ValkeyCluster) -> AsyncIterator[RedisStreet]:
        servers.flush()
        street = RedisStreet(Address(servers.url))
        yield street
        await street.aclose()


class TestTallyOnACluster(TallyContract):
    @pytest_asyncio.fixture
    async def books(self, servers: ValkeyCluster) -> AsyncIterator[RedisBooks]:
        servers.flush()
        books = RedisBooks(Address(servers.url))
        yield books
        await books.street.aclose()


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_a_server_that_is_gone_ends_the_caps_of_its_own_principals_alone(
    tmp_path: Path, fault: str
) -> None:
    with ValkeyCluster(tmp_path, "--cluster-require-full-coverage", "no").running() as servers:
        keys = Keys("test")
        primary = servers.server_of(keys.nodes)  # it stays: this isn't about who is judged dead
        lost = next(server for server in servers.servers if server is not primary)
        names = [f"p{number}" for number in range(30)]
        theirs = [name for name in names if servers.server_of(keys.tally(name)) is lost]
        others = [name for name in names if name not in theirs]
        books = RedisBooks(Address(servers.url, timeout=0.5))
        alone: list[str] = []
        a, b = [Caps(SystemClock(), await books.node(), on_alone=alone.append) for _ in "ab"]
        a.open()
        b.open()
        for name in names:
            assert await a.admit("connection", name, 1)
        if fault == "kill":
            lost.kill()
        else:
            lost.freeze()
        try:
            waits = asyncio.gather(*(b.admit("connection", name, 1) for name in theirs))
            for _ in range(2):
                refused = await asyncio.gather(*(b.admit("connection", name, 1) for name in others))
                assert not any(refused)
                assert all(await waits)
            assert len(alone) == len(theirs)
        finally:
            if fault == "freeze":
                lost.thaw()
            await a.aclose()
            await b.aclose()
            await books.street.aclose()


async def test_a_failover_that_was_asked_for_is_nobody_s_death(tmp_path: Path) -> None:
    """Of the server with all nodes' channels. Each node subscribes to its own where the others then look."""
    with ValkeyCluster(tmp_path, replicas=3).running() as servers:
        primary = servers.server_of(Keys("test").nodes)
        replica = servers.replica_of(primary)
        street = RedisStreet(Address(servers.url), Pace())
        houses = [await House(street).join() for _ in range(5)]
        await polled(houses[-1], 5)  # all judge
        for new, old in ((replica, primary), (primary, replica)):
            gaps = [house.listener.gaps for house in houses]
            assert new.command("CLUSTER", "FAILOVER") == b"+OK\r\n"
            for house, before in zip(houses, gaps, strict=True):
                await house.listener.until(lambda house=house, before=before: house.listener.gaps > before)  # type: ignore[misc]
            await polled(houses[-1], 7)  # all judge again
            for house in houses:
                assert house.listener.lost == []
                assert not any(house.cluster.is_lost(other.node) for other in houses)
                assert house.cluster.has_others
                assert house.node.encode() in new.command("PUBSUB", "SHARDCHANNELS")
            assert old.command("PUBSUB", "SHARDCHANNELS") == b"*0\r\n"
        await street.kill(houses[0].cluster)
        for house in houses[1:]:
            await house.listener.until(lambda house=house: house.listener.lost == [houses[0].node])  # type: ignore[misc]
        await street.aclose()


async def test_sessions_of_all_servers_are_written_together(servers: ValkeyCluster) -> None:
    client = connect(Address(servers.url, connections=4), name="test")
    store = RedisStore(client, Keys("test"), Bounds(), is_cluster=True, connections=4)
    ids = [new_session_id() for _ in range(300)]
    await asyncio.gather(*[store.create(each, A, LIFE) for each in ids])
    results = await store.append([Append(each, Fence(A, 1, LIFE), 0, NONE, 0, [words(each)]) for each in ids])
    for each, result in zip(ids, results, strict=True):
        assert not isinstance(result, StoreError)
        assert result[0].body == words(each)
    assert len(await store.busy(A, 999)) == 300
    assert await store.owners() == {A}
    await store.aclose()
    await client.aclose()


async def test_a_server_that_is_back_without_its_slots_breaks_no_call_to_the_others(tmp_path: Path) -> None:
    """It says CLUSTERDOWN for two seconds. The client closed all connections, to all servers, for that."""
    with ValkeyCluster(tmp_path, "--cluster-require-full-coverage", "no").running() as servers:
        client = connect(Address(servers.url), name="test")
        store = RedisStore(client, Keys("test"), Bounds(), is_cluster=True)
        ids = [new_session_id() for _ in range(60)]
        for each in ids:
            await store.create(each, A, LIFE)
        bad = servers.servers[2]
        theirs = [each for each in ids if servers.server_of(Keys("test").meta(each)) is bad]
        others = [each for each in ids if each not in theirs]
        said, read, is_over = set[str](), 0, False

        async def reads() -> None:
            nonlocal read
            while not is_over:
                read += len(await asyncio.gather(*(store.read(each, START, 9) for each in others)))

        reading = asyncio.create_task(reads())
        bad.kill()
        bad.start()
        async with asyncio.timeout(20):
            while "ok" not in said:
                for each in theirs:
                    try:
                        await store.unfollow(each, A)
                        said.add("ok")
                    except StoreUnavailable as exc:
                        said.add(str(exc.args[0]))
                before = read
                while read == before:
                    assert not reading.done()
                    await asyncio.sleep(0)
        is_over = True
        await reading
        assert "SlotDown" in said
        await store.aclose()
        await client.aclose()


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_a_node_begins_while_the_server_that_is_listed_first_is_gone(
    tmp_path: Path, fault: str
) -> None:
    """It alone was asked what commands there are: nothing could be begun until its replica took over."""
    with ValkeyCluster(tmp_path, "--cluster-require-full-coverage", "no").running() as servers:
        first = servers.servers[0]  # of the slots, and in the address
        if fault == "kill":
            first.kill()
        else:
            first.freeze()
        client = connect(Address(servers.url, timeout=0.5), name="test")
        store = RedisStore(client, Keys("test"), Bounds(), is_cluster=True)
        try:
            ids = [new_session_id() for _ in range(60)]
            theirs = [each for each in ids if servers.server_of(Keys("test").meta(each)) is first]
            for each in ids:
                if each not in theirs:
                    await store.create(each, A, LIFE)
            with pytest.raises(StoreUnavailable):
                await store.create(theirs[0], A, LIFE)
        finally:
            if fault == "freeze":
                first.thaw()
            await store.aclose()
            await client.aclose()


async def test_while_nobody_says_who_serves_what_the_servers_that_are_known_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that failed had everybody's next one wait until a server said so: perhaps the one that hangs."""
    with ValkeyCluster(tmp_path).running() as servers:
        client = connect(Address(servers.url, timeout=0.3), name="test")
        assert isinstance(client, CalmCluster)
        store = RedisStore(client, Keys("test"), Bounds(), is_cluster=True)
        ids = [new_session_id() for _ in range(30)]
        for each in ids:
            await store.create(each, A, LIFE)
        asked = list[str | None]()

        async def hang(_: object, *, last_failed_node_name: str | None) -> None:
            asked.append(last_failed_node_name)
            await asyncio.Event().wait()

        monkeypatch.setattr(type(client.nodes_manager), "initialize", hang)
        bad = servers.servers[1]
        theirs = [each for each in ids if servers.server_of(Keys("test").meta(each)) is bad]
        bad.freeze()
        try:
            with pytest.raises(StoreUnavailable):
                await store.read(theirs[0], START, 9)
            for each in ids:
                if each not in theirs:
                    await store.read(each, START, 9)
            assert asked == [f"127.0.0.1:{bad.port}"], "the one that hangs is asked last of all"
        finally:
            bad.thaw()
        await store.aclose()
        await client.aclose()


async def test_where_a_server_serves_a_slot_no_more_it_is_asked_who_does_and_not_for_each_call(
    servers: ValkeyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots are others' by now where one was taken out of its cluster. Each answer costs all connections."""
    client = connect(Address(servers.url), name="test")
    assert isinstance(client, CalmCluster)
    store = RedisStore(client, Keys("test"), Bounds(), is_cluster=True)
    ids = [new_session_id() for _ in range(30)]
    for each in ids:
        await store.create(each, A, LIFE)
    bad = servers.servers[1]
    theirs = [each for each in ids if servers.server_of(Keys("test").meta(each)) is bad]
    asked = list[str | None]()

    async def count(_: object, *, last_failed_node_name: str | None) -> None:
        asked.append(last_failed_node_name)

    execute = ClusterNode.execute_command

    async def refuse(node: ClusterNode, *args: Any, **kwargs: Any) -> Any:
        if node.port == bad.port:
            raise SlotDown("CLUSTERDOWN Hash slot not served")
        return await execute(node, *args, **kwargs)

    monkeypatch.setattr(type(client.nodes_manager), "initialize", count)
    monkeypatch.setattr(ClusterNode, "execute_command", refuse)
    for _ in range(3):
        for each in theirs:
            with pytest.raises(StoreUnavailable):
                await store.read(each, START, 9)
    assert asked == [f"127.0.0.1:{bad.port}"]
    await store.aclose()
    await client.aclose()


async def test_a_server_of_a_cluster_that_is_gone_is_an_outage(tmp_path: Path) -> None:
    with ValkeyCluster(tmp_path).running() as servers:
        client = connect(Address(servers.url, timeout=0.5), name="test")
        store = RedisStore(client, Keys("test"), Bounds(), is_cluster=True)
        ids = [new_session_id() for _ in range(30)]
        for each in ids:
            await store.create(each, A, LIFE)
        servers.servers[1].kill()

        failed = 0
        for each in ids:
            try:
                await store.submit(each, asked(), START)
            except StoreUnavailable:
                failed += 1
        assert failed > 0
        await store.aclose()
        await client.aclose()


async def test_what_is_half_moved_is_a_part_of_its_own(servers: ValkeyCluster) -> None:
    """Nobody else of its server's is refused anything, or waits, or is taken to be out of reach."""
    servers.flush()
    client = connect(Address(servers.url), name="test")
    store, keys = RedisStore(client, Keys("test"), Bounds(), is_cluster=True), Keys("test")
    ids = [new_session_id() for _ in range(30)]
    for each in ids:
        await store.create(each, A, LIFE)
        await store.append([Append(each, Fence(A, 1, LIFE), 0, NONE, 0, [mark("a")])])
    torn = ids[0]
    source = servers.server_of(keys.meta(torn))
    near = [each for each in ids if store.part_of(each) == store.part_of(torn)]
    near = [torn, *(each for each in near if keys.bucket(each) != keys.bucket(torn))]
    assert len(near) > 1
    target = next(server for server in servers.servers if server is not source)
    whole = store.part_of(torn)
    loop = asyncio.get_running_loop()
    heads = {each: (await store.read(each, START, 9)).entries[-1].nonce for each in near}
    found: dict[SessionId, Any] = {}

    async def write() -> None:
        appends = [Append(each, Fence(A, 1, LIFE), 1, heads[each], 0, [mark("b")]) for each in near]
        found.update(zip(near, await store.append(appends), strict=True))
        with pytest.raises(StoreUnavailable):
            await store.unfollow(torn, A)
        assert {store.part_of(each) for each in near[1:]} == {whole}
        assert store.part_of(torn) not in ("", whole)

    slot = key_slot(keys.meta(torn).encode())
    await asyncio.to_thread(
        servers.move,
        [slot],
        source,
        target,
        halfway=lambda: asyncio.run_coroutine_threadsafe(write(), loop).result(),
    )
    assert isinstance(found.pop(torn), StoreUnavailable)
    assert not any(isinstance(each, StoreError) for each in found.values())

    (result,) = await store.append([Append(torn, Fence(A, 1, LIFE), 1, heads[torn], 0, [mark("b")])])
    assert not isinstance(result, StoreError), "what was refused hadn't been written"
    assert "/" not in store.part_of(torn)
    assert store.part_of(torn) != whole
    await store.aclose()
    await client.aclose()
    await asyncio.to_thread(servers.move, [slot], target, source, halfway=lambda: None)


async def test_caps_of_what_is_half_moved_are_a_part_of_their_own(servers: ValkeyCluster) -> None:
    books, keys = RedisBooks(Address(servers.url)), Keys("test")
    servers.flush()
    names = [f"p{number}" for number in range(2000)]
    torn = [name for name in names if keys.bucket(name) == keys.bucket(names[0])]
    source = servers.server_of(keys.tally(torn[0]))
    target = next(server for server in servers.servers if server is not source)
    near = [name for name in names if name not in torn and servers.server_of(keys.tally(name)) is source][:20]
    alone: list[str] = []
    a, b = [Caps(SystemClock(), await books.node(), on_alone=alone.append) for _ in "ab"]
    a.open()
    b.open()
    assert all(await asyncio.gather(*(a.admit("connection", each, 1) for each in [*torn, *near])))
    loop = asyncio.get_running_loop()

    async def come() -> None:
        found = await asyncio.gather(*(b.admit("connection", each, 1) for each in [*torn, *near]))
        assert all(found[: len(torn)])
        assert not any(found[len(torn) :])

    slot = key_slot(keys.tally(torn[0]).encode())
    try:
        await asyncio.to_thread(
            servers.move,
            [slot],
            source,
            target,
            halfway=lambda: asyncio.run_coroutine_threadsafe(come(), loop).result(),
        )
        assert len(alone) == len(torn)
    finally:
        await a.aclose()
        await b.aclose()
        await books.street.aclose()
    await asyncio.to_thread(servers.move, [slot], target, source, halfway=lambda: None)


@pytest.fixture
def watchtower(tmp_path: Path) -> Iterator[Watchtower]:
    with Watchtower(tmp_path).running() as watchtower:
        yield watchtower


async def test_a_failover_by_sentinels_is_an_outage_and_nobody_s_death(watchtower: Watchtower) -> None:
    street = RedisStreet(Address(watchtower.url, timeout=0.5))
    store = street.store
    a, b = [await House(street).join() for _ in range(2)]
    session_id = new_session_id()
    fence = await store.create(session_id, a.node, LIFE)
    await store.follow(session_id, b.node)
    watchtower.wait_for_replica()
    watchtower.primary.kill()

    (result,) = await store.append([Append(session_id, fence, 0, NONE, 0, [words("a")])])
    while isinstance(result, StoreError):
        assert isinstance(result, StoreUnavailable)
        await a.listener.until(lambda polls=a.listener.polls: a.listener.polls > polls)  # type: ignore[misc]
        (result,) = await store.append([Append(session_id, fence, 0, NONE, 0, [words("a")])])
    assert result[0].seq == 1
    for house in (a, b):
        await house.listener.until(lambda house=house: house.listener.gaps > 0)  # type: ignore[misc]
    await store.submit(session_id, asked(), START)
    await b.listener.until(lambda: session_id in b.listener.news)
    await street.aclose()


@pytest.mark.parametrize("when", ["promoted", "moved"])
async def test_a_primary_that_was_frozen_and_is_back_is_nobody_s_death(
    watchtower: Watchtower, when: str
) -> None:
    """Nodes whose calls to it came back in time follow those whose calls didn't, before it is told."""
    street = RedisStreet(Address(watchtower.url), Pace())
    houses = [await House(street).join() for _ in range(5)]
    await polled(houses[-1], 5)  # all judge
    watchtower.primary.freeze()
    await asyncio.to_thread(watchtower.wait_until_promoted)
    if when == "moved":
        await houses[0].listener.until(lambda: houses[0].listener.gaps > 0)
    watchtower.primary.thaw()
    for house in houses:
        await house.listener.until(lambda house=house: house.listener.gaps > 0)  # type: ignore[misc]
    assert b"role:master" in watchtower.primary.command("INFO", "replication")  # it doesn't know yet
    await polled(houses[-1], 10)  # all judge again; a lease that wasn't renewed has run out
    for house in houses:
        assert house.listener.lost == []
        assert not any(house.cluster.is_lost(other.node) for other in houses)
        assert house.node.encode() in watchtower.replica.command("PUBSUB", "CHANNELS")
    await street.aclose()


def test_all_of_a_bucket_is_in_one_slot() -> None:
    keys = Keys("p")
    for number in range(50):
        session_id = SessionId(f"s{number}")
        tags = {re.findall(r"\{(.*?)\}", key)[0] for key in keys.session(session_id)}
        assert tags == {str(keys.bucket(session_id))}


async def test_a_restricted_user_may_do_in_a_cluster_what_is_done_there(servers: ValkeyCluster) -> None:
    """The rule in the docs, with what it says of clusters."""
    servers.flush()
    for server in servers.servers:
        allow(server, "test", in_cluster=True)
    street = RedisStreet(
        Address(servers.url.replace("redis+cluster://", "redis+cluster://unbroken:password@"))
    )
    a, b = [await House(street).join() for _ in range(2)]
    ids = [new_session_id() for _ in range(20)]
    for each in ids:
        await street.store.create(each, a.node, LIFE)
        await street.store.follow(each, b.node)
        await street.store.submit(each, asked(), START)
    await b.listener.until(lambda: len(set(b.listener.news)) > 0)

    formats, client = new_release(), street._client()
    formats.agree(2)
    watch = Watch(client)
    await watch.look()
    assert watch.used > 0
    assert await Rewriting(client, Keys("test"), formats, Scripts(cast(Caller, client), 1, 2.0)).run(a.node)
    admin: Any = connect(Address(servers.url), name="test")
    for each in ids:
        ((_, fields),) = await admin.xrange(Keys("test").session(each)[1])
        assert version_of(fields[b"b"]) == 2
    await admin.aclose()
    await street.aclose()
    for server in servers.servers:
        assert server.command("ACL", "LOG") == b"*0\r\n"
