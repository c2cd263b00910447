from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from tests.fakes.valkey import Server
from tests.sessions.backends.store_contract import LIFE, NONE, START, A, mark, words
from unbroken.sessions.backends.base import Append, Fence, Page
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.store import RedisStore
from unbroken.sessions.entries import Entry
from unbroken.sessions.errors import LostTail, SessionGone, StoreError, StoreUnavailable
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import Nonce, SessionId, new_session_id

FENCE = Fence(A, 1, LIFE)


async def filled(store: RedisStore, count: int, entries: int = 1) -> list[SessionId]:
    """Create sessions of so many entries."""
    ids = [new_session_id() for _ in range(count)]
    for each in ids:
        await store.create(each, A, LIFE)
        (result,) = await store.append(
            [Append(each, FENCE, 0, NONE, 0, [mark(f"{each} {n}") for n in range(entries)])]
        )
        assert not isinstance(result, StoreError)
    return ids


async def together(store: RedisStore, ids: Sequence[SessionId]) -> list[Any]:
    """Read them in one turn of the loop. Return pages, and what was raised."""
    return await asyncio.gather(*(store.read(each, START, 4096) for each in ids), return_exceptions=True)


def marks(entries: Sequence[Entry]) -> list[Any]:
    return [entry.body for entry in entries]


async def calls(client: Client) -> int:
    made: int = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    return made


async def test_what_is_read_at_once_is_one_call(store: RedisStore, client: Client) -> None:
    ids = await filled(store, 50)
    before = await calls(client)
    pages = await together(store, ids)

    assert await calls(client) == before + 1
    assert [marks(page.entries) for page in pages] == [[mark(f"{each} 0")] for each in ids]
    assert all(page.is_end for page in pages)


async def test_what_is_wrong_with_one_is_none_of_the_others_business(
    store: RedisStore, client: Client
) -> None:
    ids = await filled(store, 4)
    gone, lost, broken, whole = ids
    await store.delete(gone, FENCE)
    await client.set(Keys("test").meta(broken), "no hash")
    elsewhere = Position(LIFE, 1, Nonce(12345))
    results = await asyncio.gather(
        store.read(gone, START, 9),
        store.read(lost, elsewhere, 9),
        store.read(broken, START, 9),
        store.read(whole, START, 9),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [SessionGone, LostTail, ResponseError, Page]
    assert isinstance(results[3], Page)
    assert marks(results[3].entries) == [mark(f"{whole} 0")]


async def test_of_many_that_are_long_each_is_read_in_pages(client: Client) -> None:
    store = RedisStore(client, Keys("test"), Bounds(page_entries=20))
    ids = await filled(store, 5, entries=60)

    async def all_of(session_id: SessionId) -> list[Any]:
        found, place, is_end = list[Any](), START, False
        while not is_end:
            page = await store.read(session_id, place, 4096)
            assert 0 < len(page.entries) <= 20
            found += marks(page.entries)
            last, is_end = page.entries[-1], page.is_end
            place = Position(LIFE, last.seq, last.nonce)
        return found

    found = await asyncio.gather(*map(all_of, ids))
    assert found == [[mark(f"{each} {n}") for n in range(60)] for each in ids]
    await store.aclose()


async def test_a_call_is_bounded(client: Client) -> None:
    store = RedisStore(client, Keys("test"), Bounds(call_sessions=4))
    ids = await filled(store, 11)
    before = await calls(client)
    pages = await together(store, ids)

    assert await calls(client) == before + 3
    assert all(len(page.entries) == 1 for page in pages)
    await store.aclose()


async def test_whoever_has_gone_is_not_read_for_and_keeps_nobody_waiting(
    store: RedisStore, client: Client
) -> None:
    ids = await filled(store, 3)
    reads = [asyncio.create_task(store.read(each, START, 9)) for each in ids]
    await asyncio.sleep(0)
    reads[0].cancel()
    first, *rest = await asyncio.gather(*reads, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert [marks(page.entries) for page in cast(list[Page], rest)] == [
        [mark(f"{each} 0")] for each in ids[1:]
    ]

    before = await calls(client)
    read = asyncio.create_task(store.read(ids[0], START, 9))
    await asyncio.sleep(0)
    read.cancel()
    await asyncio.gather(read, return_exceptions=True)
    assert await calls(client) == before


async def test_an_outage_is_each_reader_s_and_over_when_it_is(valkey: Server) -> None:
    client = connect(Address(valkey.url, timeout=1.0), name="test")
    store = RedisStore(client, Keys("test"), Bounds())
    ids = await filled(store, 5)
    valkey.kill()
    assert {type(each) for each in await together(store, ids)} == {StoreUnavailable}
    valkey.start()
    assert {type(each) for each in await together(store, ids)} == {SessionGone}, "it is back, and empty"
    await store.aclose()
    await client.aclose()


class _Stuck:
    """A client whose calls never end."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    async def evalsha(self, *_: object) -> None:
        self.called.set()
        await asyncio.Event().wait()


async def test_whoever_waits_as_the_store_is_closed_is_told() -> None:
    client = _Stuck()
    store = RedisStore(cast(Client, client), Keys("test"), Bounds())
    reads = [asyncio.create_task(store.read(new_session_id(), START, 9)) for _ in range(3)]
    await client.called.wait()
    for turns in range(3):  # before it is sent, as it is, and once it has been
        reads.append(asyncio.create_task(store.read(new_session_id(), START, 9)))
        for _ in range(2 - turns):
            await asyncio.sleep(0)
    await store.aclose()
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert [type(each) for each in results] == [StoreUnavailable] * 6
    with pytest.raises(StoreUnavailable):
        await store.read(new_session_id(), START, 9)


async def test_pieces_are_read_from_their_middle_beside_others(store: RedisStore) -> None:
    one, two = [new_session_id() for _ in range(2)]
    for each in (one, two):
        await store.create(each, A, LIFE)
    results = await store.append(
        [Append(each, FENCE, 0, NONE, 0, [words("a ", "b ", "c ")]) for each in (one, two)]
    )
    nonce = results[0][0].nonce if not isinstance(results[0], StoreError) else NONE
    half, whole = await asyncio.gather(
        store.read(one, Position(LIFE, 2, nonce), 9), store.read(two, START, 9)
    )
    assert [entry.seq for entry in half.entries] == [3]
    assert [entry.seq for entry in whole.entries] == [1]
