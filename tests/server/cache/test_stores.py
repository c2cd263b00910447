"""What every store of answers promises: in memory, and in a real Valkey."""

from __future__ import annotations

import re
import struct
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.valkey import Server, redis_binary
from tests.server.cache.conftest import NewStore
from unbroken.server.cache.base import Answer, AnswerStore, CacheUnavailable, Neighbour, Slot, StoreLimits
from unbroken.server.cache.index import PlaceIndex
from unbroken.server.cache.memory import MemoryAnswers
from unbroken.server.cache.redis import RedisAnswers
from unbroken.sessions.backends.redis.connection import Address, connect
from unbroken.sessions.backends.redis.keys import Keys
from unbroken.sessions.items import Usage


def slot(number: int, place: int = 1, tenant: int = 1) -> Slot:
    return Slot(f"{place:040x}", f"{number:040x}", f"{tenant:040x}")


def answer(text: str = "yes") -> Answer:
    return Answer((text,), Usage(1, 2), FakeClock().time())


def near(number: int) -> Neighbour:
    return Neighbour(f"{number:040x}", f"text {number}", struct.pack("<2e", 1, 0), bytes([number]))


async def kept(
    store: AnswerStore, which: Slot, text: str = "yes", neighbour: Neighbour | None = None
) -> None:
    await store.keep(which, answer(text), (await store.find(which)).epoch, neighbour)


async def found(store: AnswerStore, *slots: Slot) -> list[str | None]:
    answers = [(await store.find(each)).answer for each in slots]
    return [None if each is None else each.text for each in answers]


async def keys_in(store: AnswerStore, place: int = 1) -> set[int]:
    index = await store.index(f"{place:040x}")
    if index is None:
        return set()
    return {int(each.key, 16) for _, each in index.near(struct.pack("<2e", 1, 0), 0.5, most=100)}


async def test_what_was_kept_is_found_as_it_was(store: AnswerStore) -> None:
    given = Answer(
        ("a ", "b\u00e9\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")),
        Usage(7, 8, 9),
        FakeClock().time() + 0.25,
    )
    await store.keep(slot(1), given, (await store.find(slot(1))).epoch, None)
    assert (await store.find(slot(1))).answer == given
    assert await found(store, slot(2), slot(1, place=2), slot(1, tenant=2)) == [
        None,
        None,
        "a b\u00e9\U0001f600",
    ]


async def test_what_is_kept_again_replaces(store: AnswerStore) -> None:
    for text in ("one", "two"):
        await kept(store, slot(1), text)
    assert await found(store, slot(1)) == ["two"]
    assert (store.entries, store.size) == (1, answer("two").size)


async def test_the_oldest_of_too_many_goes(new_store: NewStore) -> None:
    store = new_store(StoreLimits(entries=3))
    for number in range(5):
        await kept(store, slot(number, place=number % 2))
    assert (
        await found(store, *(slot(number, place=number % 2) for number in range(5)))
        == [None] * 2 + ["yes"] * 3
    )
    assert store.entries == 3


async def test_the_oldest_of_a_place_s_too_many_goes(new_store: NewStore) -> None:
    store = new_store(StoreLimits(place_entries=2))
    await kept(store, slot(9, place=2))
    for number in range(4):
        await kept(store, slot(number))
    assert await found(store, *map(slot, range(4)), slot(9, place=2)) == [None, None, "yes", "yes", "yes"]


@pytest.mark.parametrize("bound", ["bytes", "place_bytes"])
async def test_the_oldest_of_too_much_goes(new_store: NewStore, bound: str) -> None:
    most = 2 * answer("x" * 1000).size
    store = new_store(StoreLimits(bytes=most) if bound == "bytes" else StoreLimits(place_bytes=most))
    for number in range(3):
        await kept(store, slot(number), "x" * 1000)
    assert await found(store, *map(slot, range(3))) == [None, "x" * 1000, "x" * 1000]
    assert store.size == most
    await kept(store, slot(4), "x" * 10_000)
    assert await found(store, slot(4), slot(2)) == [None, "x" * 1000], "what never fits takes nobody's place"


@pytest.mark.parametrize("bound", ["bytes", "place_bytes"])
async def test_in_memory_questions_count_as_answers_do(bound: str) -> None:
    """Their vectors and keys take more than most answers."""
    question = near(1).size
    most = 2 * (answer("x" * 1000).size + question)
    limits = StoreLimits(bytes=most) if bound == "bytes" else StoreLimits(place_bytes=most)
    store = MemoryAnswers(FakeClock(), limits, PlaceIndex)
    for number in range(3):
        await kept(store, slot(number), "x" * 1000, near(number))
    assert await found(store, *map(slot, range(3))) == [None, "x" * 1000, "x" * 1000]
    assert (store.size, store.index_size) == (most, 2 * question)
    await kept(store, slot(1), "x" * 1000)
    assert store.size == most, "its question stays"
    await kept(store, slot(4), "x" * 3500, near(4))
    assert await found(store, slot(4), slot(2), slot(1)) == [None, "x" * 1000, "x" * 1000], "that never fits"

    await store.forget(slot(1).tenant)
    assert (store.size, store.index_size, store.entries) == (0, 0, 0)


async def test_in_redis_a_node_s_copies_of_indexes_are_bounded_by_bytes(answers_server: Server) -> None:
    async with AsyncExitStack() as stack:
        client = connect(Address(answers_server.url), name="test")
        stack.push_async_callback(client.aclose)
        limits = StoreLimits(bytes=10_000)
        store = RedisAnswers(client, Keys(f"t{uuid.uuid4().hex[:12]}"), FakeClock(), limits, PlaceIndex)
        size = near(1).size
        for place in range(10_000 // size + 3):
            await kept(store, slot(place, place), neighbour=near(place))
            assert await keys_in(store, place) == {place}
            assert store.index_size <= 10_000
        assert store.index_size > 10_000 - 2 * size


async def test_in_redis_a_shorter_lifetime_holds_for_what_was_kept_before(answers_server: Server) -> None:
    """And what was forgotten doesn't come back when that it was is forgotten."""
    async with AsyncExitStack() as stack:
        client = connect(Address(answers_server.url), name="test")
        stack.push_async_callback(client.aclose)
        keys, clock = Keys(f"t{uuid.uuid4().hex[:12]}"), FakeClock()
        long, short = (
            RedisAnswers(client, keys, clock, StoreLimits(lifetime=lifetime), PlaceIndex)
            for lifetime in (3600, 10)
        )
        await kept(long, slot(1))
        clock.now += 9
        assert await found(short, slot(1)) == ["yes"]
        clock.now += 2
        assert (await found(short, slot(1)), await found(long, slot(1))) == ([None], ["yes"])


async def test_an_index_is_one_place_s(store: AnswerStore) -> None:
    await kept(store, slot(1), neighbour=near(1))
    await kept(store, slot(2, place=2), neighbour=near(2))
    await kept(store, slot(3))
    assert (await keys_in(store), await keys_in(store, 2), await keys_in(store, 3)) == ({1}, {2}, set())
    await kept(store, slot(4), neighbour=near(4))
    assert await keys_in(store) == {1, 4}, "it is read as it grows"
    index = await store.index(slot(1).place)
    assert index is not None
    assert [index.may_have(bytes([number])) for number in range(6)] == [
        number in (1, 4) for number in range(6)
    ]


async def test_an_index_is_bounded(new_store: NewStore) -> None:
    store = new_store(StoreLimits(place_entries=3))
    for number in range(10):
        await kept(store, slot(number), neighbour=near(number))
    assert await keys_in(store) == {7, 8, 9}


async def test_of_one_tenant_or_of_all_nothing_counts_any_more(store: AnswerStore) -> None:
    one, other = slot(1, tenant=1), slot(2, tenant=2)
    for each in (one, other):
        await kept(store, each)
    before = await store.find(one)
    await store.forget(one.tenant)
    assert await found(store, one, other) == [None, "yes"]
    await store.keep(one, answer("late"), before.epoch, None)
    assert await found(store, one) == [None]
    await store.forget(None)
    assert await found(store, other) == [None]
    await kept(store, other, "new")
    assert await found(store, other) == ["new"]


async def test_in_redis_everything_ends(answers_server: Server) -> None:
    """Nothing that the cache has written stays for ever."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    client = connect(Address(answers_server.url), name="test")
    try:
        store = RedisAnswers(client, Keys(prefix), FakeClock(), StoreLimits(), PlaceIndex)
        await kept(store, slot(1), neighbour=near(1))
        await store.forget(None)
        await store.forget(slot(1).tenant)
        names = [name async for name in client.scan_iter(f"{prefix}*")]
        assert len(names) == 7
        assert all([await client.pttl(name) > 0 for name in names])
        assert all(name.startswith(f"{prefix}:{{cache}}:".encode()) for name in names)
    finally:
        await client.aclose()


async def test_in_redis_what_another_release_wrote_is_not_found(answers_server: Server) -> None:
    prefix = f"t{uuid.uuid4().hex[:12]}"
    client = connect(Address(answers_server.url), name="test")
    try:
        store = RedisAnswers(client, Keys(prefix), FakeClock(), StoreLimits())
        await client.set(Keys(prefix).cached(f"a:{slot(1).place}:{slot(1).key}"), b"\x93\x01\x02\x03")
        assert await found(store, slot(1)) == [None]
    finally:
        await client.aclose()


async def test_a_redis_that_is_gone_is_asked_once_a_second(tmp_path: Path) -> None:
    clock = FakeClock()
    client = connect(Address(Server(tmp_path / "gone").url, timeout=1), name="test")
    try:
        store = RedisAnswers(client, Keys("t"), clock, StoreLimits(), PlaceIndex)
        with pytest.raises(CacheUnavailable, match="unreachable"):
            await store.find(slot(1))
        with pytest.raises(CacheUnavailable, match="just failed"):
            await store.keep(slot(1), answer(), "", None)
        clock.advance(1)
        with pytest.raises(CacheUnavailable, match="unreachable"):
            await store.forget(None)
    finally:
        await client.aclose()


async def test_in_redis_the_user_that_the_docs_describe_may_do_all_of_it(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    rule = re.search(r"^ACL SETUSER unbroken on >password (.+)$", text, re.MULTILINE)
    assert rule is not None
    with Server(tmp_path / "data").running() as server:
        server.command("ACL", "SETUSER", "unbroken", "on", ">password", *rule[1].split())
        client = connect(Address(server.url.replace("//", "//unbroken:password@")), name="test")
        try:
            limits = StoreLimits(place_entries=2)
            store = RedisAnswers(client, Keys("unbroken"), FakeClock(), limits, PlaceIndex)
            for number in range(4):
                await kept(store, slot(number), neighbour=near(number))
            await store.forget(slot(0).tenant)
            await store.forget(None)
            assert await found(store, slot(3)) == [None]
            assert await keys_in(store) == {2, 3}
        finally:
            await client.aclose()


async def test_in_redis_an_answer_whose_size_is_gone_makes_room_all_the_same(tmp_path: Path) -> None:
    """As where Redis had to throw something away."""
    keys = Keys("test")
    with Server(tmp_path / "redis", redis_binary()).running() as server:
        async with AsyncExitStack() as stack:
            client = connect(Address(server.url), name="test")
            stack.push_async_callback(client.aclose)
            store = RedisAnswers(client, keys, FakeClock(), StoreLimits(entries=1), PlaceIndex)
            await kept(store, slot(1))
            await client.delete(keys.cached("sizes"))
            await kept(store, slot(2))

            assert await found(store, slot(1), slot(2)) == [None, "yes"]


@pytest.mark.parametrize("gone", ["all", "p"])
async def test_in_redis_sizes_whose_answers_are_gone_take_no_room(answers_server: Server, gone: str) -> None:
    """As where Redis had to throw something away."""
    keys = Keys(f"t{uuid.uuid4().hex[:12]}")
    async with AsyncExitStack() as stack:
        client = connect(Address(answers_server.url), name="test")
        stack.push_async_callback(client.aclose)
        most = answer("x" * 1000).size * 3 // 2
        limits = StoreLimits(bytes=most) if gone == "all" else StoreLimits(place_bytes=most)
        store = RedisAnswers(client, keys, FakeClock(), limits, PlaceIndex)
        await kept(store, slot(1), "x" * 1000)
        await client.delete(keys.cached("all" if gone == "all" else f"p:{1:040x}"))
        for number in range(2, 5):
            await kept(store, slot(number), "x" * 1000)

        assert await found(store, slot(3), slot(4)) == [None, "x" * 1000]
