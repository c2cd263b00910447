from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.sessions.backends.store_contract import (
    LIFE,
    NONE,
    START,
    A,
    B,
    StoreContract,
    asked,
    behind,
    mark,
    words,
)
from unbroken.sessions.backends.base import Append, Fence, SessionStore, Snapshot
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.backends.redis.keys import BUCKETS, Bounds, Keys
from unbroken.sessions.backends.redis.scripts import HalfMoved, Scripts
from unbroken.sessions.backends.redis.store import RedisStore
from unbroken.sessions.entries import Entry, InputKey
from unbroken.sessions.errors import LostTail, SessionDeleted, StoreBusy, StoreError, StoreUnavailable
from unbroken.sessions.ids import Incarnation, Nonce, new_node_id, new_session_id


class TestRedisStoreOnValkey(StoreContract):
    pass


class TestRedisStoreOnRedis7(StoreContract):
    @pytest_asyncio.fixture
    async def store(self, redis7: Server) -> AsyncIterator[RedisStore]:
        client = connect(Address(redis7.url), name="test")
        await client.flushall()
        store = RedisStore(client, Keys("test"), Bounds())
        yield store
        await store.aclose()
        await client.aclose()


class TestRedisStoreByBuckets(StoreContract):
    """As in a cluster: each bucket's sessions are written by a call of their own."""

    @pytest_asyncio.fixture
    async def store(self, client: Client) -> AsyncIterator[RedisStore]:
        store = RedisStore(client, Keys("test"), Bounds(), is_cluster=True)
        yield store
        await store.aclose()


async def test_a_server_that_forgot_the_scripts_is_given_them_again(
    store: SessionStore, valkey: Server
) -> None:
    session_id = new_session_id()
    await store.create(session_id, A, LIFE)
    valkey.command("SCRIPT", "FLUSH")

    (result,) = await store.append([Append(session_id, Fence(A, 1, LIFE), 0, NONE, 0, [mark("a")])])
    assert not isinstance(result, StoreError)


async def test_everything_of_a_session_expires(store: SessionStore, client: Client) -> None:
    session_id = new_session_id()
    fence = await store.create(session_id, A, LIFE)
    await store.submit(session_id, asked(key=InputKey("m:1", b"x")), START)
    await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")])])

    keys = [key async for key in client.scan_iter("test:*")]
    assert len(keys) == 4
    for key in keys:
        assert await client.ttl(key) > 80_000


async def test_what_is_left_of_a_deleted_session_is_one_small_key_that_expires(
    store: SessionStore, client: Client
) -> None:
    session_id = new_session_id()
    fence = await store.create(session_id, A, LIFE)
    await store.submit(session_id, asked(key=InputKey("m:1", b"x")), START)
    await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")])])

    await store.erase(session_id)

    (key,) = [key async for key in client.scan_iter("test:*")]
    assert 80_000 < await client.ttl(key) <= 86_400
    assert (await client.memory_usage(key) or 0) < 400


async def test_a_release_that_knows_of_no_deletions_brings_nothing_back(
    store: RedisStore, client: Client
) -> None:
    """Its scripts are those of this release without what they say of deletions."""
    old = RedisStore(client, Keys("test"), Bounds())
    for scripts in (old._scripts, old._writes):
        for name, text in scripts._texts.items():
            if name not in ("erase", "keep", "forget", "delete"):
                plain = re.sub(r" *if \w+(\[1\])? == '' then\n +return 'DELETED'\n *end\n", "", text)
                assert (plain != text) == ("DELETED" in text)
                scripts._texts[name] = plain
                scripts._digests[name] = hashlib.sha1(plain.encode(), usedforsecurity=False).hexdigest()
    session_id = new_session_id()
    fence = await old.create(session_id, A, LIFE)
    (entries,) = await old.append([Append(session_id, fence, 0, NONE, 0, [mark("a")])])
    assert not isinstance(entries, StoreError)
    place, snapshot = behind(entries), Snapshot(1, entries[0].nonce, b"state")

    await store.erase(session_id)

    for refused in (
        old.create(session_id, A, LIFE),
        old.submit(session_id, asked(), place),
        old.read(session_id, START, 10),
        old.compact(session_id, fence, 1, snapshot),
        old.reseed(session_id, fence, Incarnation("0b0b0b0b"), snapshot, {}),
        old.rejoin(session_id, fence, place, 0, [Entry(2, Nonce(7), mark("b"))]),
    ):
        with pytest.raises(StoreError):
            await refused
    (result,) = await old.append([Append(session_id, fence, 1, place.nonce, 0, [mark("b")])])
    assert isinstance(result, StoreError)
    with contextlib.suppress(StoreError):
        await old.acquire(session_id, A)  # there is nothing in it
    assert [key async for key in client.scan_iter("test:*")] == [Keys("test").meta(session_id).encode()]
    with pytest.raises(SessionDeleted):
        await store.inspect(session_id)
    await old.aclose()


async def test_that_a_session_was_deleted_is_known_for_as_long_as_sessions_last(client: Client) -> None:
    session_id, keys = new_session_id(), Keys("test")
    store = RedisStore(client, keys, Bounds(lifetime=200_000))
    await store.erase(session_id)
    assert await client.ttl(keys.meta(session_id)) > 190_000
    await store.aclose()


async def test_to_keep_a_session_that_was_deleted_changes_nothing(client: Client) -> None:
    session_id, keys = new_session_id(), Keys("test")
    store = RedisStore(client, keys, Bounds(lifetime=60))
    await store.erase(session_id)
    await store.keep([session_id])
    assert await client.ttl(keys.meta(session_id)) > 80_000
    await store.aclose()


async def test_names_of_inputs_are_bounded(client: Client) -> None:
    store = RedisStore(client, Keys("test"), Bounds(dedupe_window=8))
    session_id = new_session_id()
    await store.create(session_id, A, LIFE)
    for number in range(40):
        await store.submit(session_id, asked(key=InputKey(f"m:{number}", b"x")), START)

    assert await client.hlen(Keys("test").session(session_id)[2]) <= 10
    assert (await store.submit(session_id, asked(key=InputKey("m:39", b"x")), START)).duplicate
    assert not (await store.submit(session_id, asked(key=InputKey("m:0", b"x")), START)).duplicate
    await store.aclose()


async def test_inputs_that_nobody_answers_are_bounded_which_is_no_outage(client: Client) -> None:
    store = RedisStore(client, Keys("test"), Bounds(waiting_inputs=3))
    session_id = new_session_id()
    fence = await store.create(session_id, A, LIFE)
    receipts = [await store.submit(session_id, asked(), START) for _ in range(3)]
    with pytest.raises(StoreBusy):
        await store.submit(session_id, asked(), START)

    entry = receipts[-1].entry
    assert entry is not None
    await store.append([Append(session_id, fence, 3, entry.nonce, 3, [mark("a")])])
    await store.submit(session_id, asked(), START)
    await store.aclose()


async def test_many_sessions_are_written_by_one_call(store: SessionStore, client: Client) -> None:
    sessions = [new_session_id() for _ in range(50)]
    for session_id in sessions:
        await store.create(session_id, A, LIFE)
    fence = Fence(A, 1, LIFE)
    first = await store.append([Append(each, fence, 0, NONE, 0, [words("a")]) for each in sessions])
    nonces = [result[0].nonce for result in first if not isinstance(result, StoreError)]
    before = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    results = await store.append(
        [Append(each, fence, 1, nonce, 0, [words("b")]) for each, nonce in zip(sessions, nonces, strict=True)]
    )

    assert all(not isinstance(result, StoreError) for result in results)
    assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1


async def test_a_call_is_bounded_and_its_rest_is_another(client: Client) -> None:
    store = RedisStore(client, Keys("test"), Bounds(call_sessions=4, call_bytes=5000))
    sessions = [new_session_id() for _ in range(11)]
    for session_id in sessions:
        await store.create(session_id, A, LIFE)
    fence = Fence(A, 1, LIFE)
    appends = [Append(each, fence, 0, NONE, 0, [words(str(n))]) for n, each in enumerate(sessions)]
    results = await store.append(appends)

    for number, (session_id, result) in enumerate(zip(sessions, results, strict=True)):
        assert not isinstance(result, StoreError)
        assert (await store.read(session_id, START, 9)).entries == list(result)
        assert result[0].body == words(str(number))
    await store.aclose()


async def test_a_server_that_is_full_takes_nothing_and_says_so(store: SessionStore, valkey: Server) -> None:
    session_id = new_session_id()
    fence = await store.create(session_id, A, LIFE)
    valkey.command("CONFIG", "SET", "maxmemory", "1")
    try:
        (result,) = await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")])])
        assert isinstance(result, StoreUnavailable)
        with pytest.raises(StoreUnavailable):
            await store.submit(session_id, asked(), START)
    finally:
        valkey.command("CONFIG", "SET", "maxmemory", "0")
    assert (await store.read(session_id, START, 9)).entries == []


async def test_a_server_that_does_not_answer_is_given_up_soon(valkey: Server) -> None:
    client = connect(Address(valkey.url, timeout=0.2), name="test")
    store = RedisStore(client, Keys("test"), Bounds())
    session_id = new_session_id()
    fence = await store.create(session_id, A, LIFE)
    valkey.freeze()
    try:
        (result,) = await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")])])
    finally:
        valkey.thaw()
    assert isinstance(result, StoreUnavailable)
    await store.aclose()
    await client.aclose()


async def test_what_is_told_of_an_error_holds_no_password() -> None:
    client = connect(Address("redis://user:secret@127.0.0.1:1/0", timeout=0.2), name="test")
    store = RedisStore(client, Keys("test"), Bounds())
    with pytest.raises(StoreUnavailable) as caught:
        await store.inspect(new_session_id())
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None
    await client.aclose()


def test_all_keys_of_a_session_have_its_bucket_s_tag() -> None:
    keys = Keys("p")
    session_id = new_session_id()
    bucket = keys.bucket(session_id)
    assert 0 <= bucket < BUCKETS
    assert all(f":{{{bucket}}}:" in key for key in keys.session(session_id))
    assert keys.session(session_id)[0] == keys.meta(session_id)
    assert len(set(keys.indexes)) == BUCKETS


async def test_whoever_takes_a_session_keeps_all_of_it(store: SessionStore, client: Client) -> None:
    """Keys that expire one after another would leave a session that looks empty."""
    session_id = new_session_id()
    fence = await store.create(session_id, A, LIFE)
    await store.submit(session_id, asked(key=InputKey("m:1", b"x")), START)
    (entries,) = await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")])])
    assert not isinstance(entries, StoreError)
    await store.compact(session_id, fence, 1, Snapshot(2, entries[0].nonce, b"state"))
    keys = Keys("test").session(session_id)
    for key in keys:
        await client.expire(key, 60)

    await store.acquire(session_id, B, seen=fence)
    assert all([await client.ttl(key) > 80_000 for key in keys])


async def test_an_answer_that_outlasts_the_lifetime_keeps_its_session(
    store: SessionStore, client: Client
) -> None:
    session_id = new_session_id()
    fence = await store.create(session_id, A, LIFE)
    keys = Keys("test").session(session_id)[:2]
    (entries,) = await store.append([Append(session_id, fence, 0, NONE, 0, [words("a")])])
    assert not isinstance(entries, StoreError)
    for key in keys:
        await client.expire(key, 60)

    await store.append([Append(session_id, fence, 1, entries[-1].nonce, 0, [words("b")])])
    assert all([await client.ttl(key) > 80_000 for key in keys])


@pytest.mark.parametrize("is_cluster", [False, True])
async def test_what_is_kept_lasts_with_all_that_belongs_to_it(client: Client, is_cluster: bool) -> None:
    store = RedisStore(client, Keys("test"), Bounds(call_sessions=4), is_cluster=is_cluster)
    sessions, keys = [new_session_id() for _ in range(10)], list[str]()
    for session_id in sessions:
        fence = await store.create(session_id, A, LIFE)
        await store.submit(session_id, asked(key=InputKey("m:1", b"x")), START)
        (entries,) = await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")])])
        assert not isinstance(entries, StoreError)
        await store.compact(session_id, fence, 1, Snapshot(2, entries[0].nonce, b"state"))
        keys += Keys("test").session(session_id)
    for key in keys:
        await client.expire(key, 60)

    await store.keep(sessions)
    assert all([await client.ttl(key) > 80_000 for key in keys])
    await store.aclose()


async def test_who_cannot_keep_everything_is_told_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are kept all the same."""
    store = RedisStore(client, Keys("test"), Bounds(), is_cluster=True)
    sessions = [new_session_id() for _ in range(8)]
    for session_id in sessions:
        await store.create(session_id, A, LIFE)
        await client.expire(Keys("test").meta(session_id), 60)
    call, lost = store._call, Keys("test").session(sessions[0])

    async def fail_one(name: str, keys: Sequence[str], *args: object) -> object:
        if lost[0] in keys:
            raise StoreUnavailable
        return await call(name, keys, *args)

    monkeypatch.setattr(store, "_call", fail_one)
    with pytest.raises(StoreUnavailable):
        await store.keep(sessions)
    left = [
        await client.ttl(Keys("test").meta(each))
        for each in sessions
        if Keys.bucket(each) != Keys.bucket(sessions[0])
    ]
    assert min(left) > 80_000
    await store.aclose()


@pytest.mark.parametrize("lost", ["all", "first", "last"])
async def test_entries_that_the_server_has_evicted_are_noticed(
    store: SessionStore, client: Client, lost: str
) -> None:
    session_id = new_session_id()
    fence = await store.create(session_id, A, LIFE)
    await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a"), words("x", "y"), mark("b")])])
    log = Keys("test").session(session_id)[1]
    match lost:
        case "all":
            await client.delete(log)
        case "first":
            await client.xdel(log, "1-0")
        case _:
            await client.xdel(log, "2-0")

    with pytest.raises(LostTail):
        await store.read(session_id, START, 9)


async def test_what_an_expired_session_left_in_the_index_is_cleared_away(
    store: SessionStore, client: Client
) -> None:
    kept, expired = new_session_id(), [new_session_id() for _ in range(3)]
    for session_id in (kept, *expired):
        await store.create(session_id, A, LIFE)
        await store.submit(session_id, asked(), START)
    for session_id in expired:
        await client.delete(Keys("test").meta(session_id))

    assert await store.busy(A, 1) == [(kept, Fence(A, 1, LIFE))]
    assert await store.busy(A, 9) == [(kept, Fence(A, 1, LIFE))]
    left = [await client.hkeys(key) for key in Keys("test").indexes]
    assert [each for keys in left for each in keys] == [kept.encode()]


async def test_who_follows_is_bounded(client: Client) -> None:
    store = RedisStore(client, Keys("test"), Bounds(followers=3))
    session_id = new_session_id()
    await store.create(session_id, A, LIFE)
    nodes = [new_node_id() for _ in range(5)]
    for node in (*nodes, nodes[-1]):
        await store.follow(session_id, node)

    followers = await client.hget(Keys("test").meta(session_id), "w")
    assert isinstance(followers, bytes)
    assert followers.decode().split() == nodes[-3:]
    assert (await store.read(session_id, START, 9, node=nodes[0])).is_told, "it needn't ask for a place"
    await store.unfollow(session_id, nodes[-1])
    assert not (await store.read(session_id, START, 9, node=nodes[0])).is_told
    await store.aclose()


async def test_more_calls_than_connections_wait_for_their_turn(valkey: Server) -> None:
    client = connect(Address(valkey.url, connections=2), name="test")
    store = RedisStore(client, Keys("test"), Bounds(), connections=2)
    ids = [new_session_id() for _ in range(200)]
    await asyncio.gather(*[store.create(each, A, LIFE) for each in ids])
    results = await asyncio.gather(
        *[store.append([Append(each, Fence(A, 1, LIFE), 0, NONE, 0, [mark(each)])]) for each in ids]
    )
    assert not any(isinstance(result, StoreError) for (result,) in results)
    await store.aclose()
    await client.aclose()


async def test_a_call_that_is_cancelled_leaves_no_answer_for_another(store: SessionStore) -> None:
    ids = [new_session_id() for _ in range(20)]
    for each in ids:
        await store.create(each, A, LIFE)
        await store.append([Append(each, Fence(A, 1, LIFE), 0, NONE, 0, [mark(each)])])

    for turns in range(12):
        task = asyncio.ensure_future(store.read(ids[0], START, 9))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        for each in ids:
            assert [entry.body for entry in (await store.read(each, START, 9)).entries] == [mark(each)]
        await asyncio.gather(task, return_exceptions=True)


class _Stuck:
    """A client whose calls never end."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    async def evalsha(self, *_: object) -> None:
        self.called.set()
        await asyncio.Event().wait()


async def test_a_call_that_has_not_had_its_turn_says_that_it_was_not_made() -> None:
    client = _Stuck()
    store = RedisStore(cast(Client, client), Keys("test"), Bounds(), connections=2, patience=0.001)
    first = asyncio.create_task(store.inspect(new_session_id()))
    await client.called.wait()
    with pytest.raises(StoreBusy):
        await store.inspect(new_session_id())
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await store.aclose()


class _Moving:
    """A client whose keys are half moved for the first so many calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    async def evalsha(self, *_: object) -> bytes:
        if self.left:
            self.left -= 1
            raise HalfMoved("TRYAGAIN")
        return b"OK"

    async def eval(self, *_: object) -> bytes:
        raise AssertionError("it knows the script")


async def test_a_call_whose_keys_are_half_moved_is_made_again_some_times() -> None:
    scripts = Scripts(_Moving(3), 1, 1.0, again=(0.0, 0.0, 0.0))
    assert await scripts.call("inspect", ["k"]) == b"OK"

    scripts = Scripts(_Moving(4), 1, 1.0, again=(0.0, 0.0, 0.0))
    with pytest.raises(HalfMoved):
        await scripts.call("inspect", ["k"])


async def test_nobody_waits_for_one_whose_keys_are_half_moved() -> None:
    client = _Moving(1)
    scripts = Scripts(client, 1, 1.0, again=(60.0,))
    moving = asyncio.create_task(scripts.call("inspect", ["k"]))
    while client.left:  # noqa: ASYNC110 - a few turns of the loop, no time
        await asyncio.sleep(0)
    assert await scripts.call("inspect", ["l"]) == b"OK"
    moving.cancel()
    await asyncio.gather(moving, return_exceptions=True)
