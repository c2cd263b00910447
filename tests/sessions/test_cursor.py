from __future__ import annotations

import asyncio
from typing import Final

import pytest

from tests.sessions.conversation import settle
from unbroken.sessions.cursor import Cursor, Feed
from unbroken.sessions.entries import Deltas, Entry, ItemDeleted
from unbroken.sessions.errors import CursorLost, Fenced
from unbroken.sessions.event_log import EventLog, Position, Slice
from unbroken.sessions.ids import ChainId, Incarnation, ItemId, Nonce, ResponseId

LIFE: Final = Incarnation("0a0a0a0a")
CHAIN: Final = ChainId("c1")


def feed_of(count: int) -> Feed:
    feed = Feed(EventLog(LIFE))
    for _ in range(count):
        grow(feed)
    return feed


def grow(feed: Feed) -> None:
    feed.log.append(Entry(feed.log.head + 1, Nonce(9), ItemDeleted(ItemId("x"))))


def taken(cursor: Cursor, limit: int = 10) -> list[int]:
    return [record.seq for record in cursor.take(limit)]


def test_a_cursor_takes_what_follows_its_place_and_moves() -> None:
    cursor = feed_of(5).attach(1, CHAIN)

    assert taken(cursor, 2) == [2, 3]
    assert cursor.seq == 3
    assert not cursor.is_at_head
    assert taken(cursor) == [4, 5]
    assert cursor.is_at_head
    assert taken(cursor) == []


def test_a_cursor_moves_behind_the_last_piece_it_took() -> None:
    feed = feed_of(1)
    feed.log.append(Entry(2, Nonce(9), Deltas(ResponseId("r"), ItemId("i"), ["a", "b", "c"], 2)))
    cursor = feed.attach(1, CHAIN)

    (piece,) = cursor.take(2)

    assert isinstance(piece, Slice)
    assert list(piece.parts) == ["a", "b"]
    assert cursor.seq == 3
    assert cursor.position() == Position(LIFE, 3, Nonce(9))


async def test_a_cursor_waits_until_there_may_be_more() -> None:
    feed = feed_of(1)
    cursor = feed.attach(1, CHAIN)
    assert cursor.take(9) == []
    waiting = asyncio.create_task(cursor.wait())
    await settle()
    assert not waiting.done()

    grow(feed)
    feed.publish()
    await waiting
    assert taken(cursor) == [2]


async def test_what_came_before_the_wait_is_not_missed() -> None:
    feed = feed_of(1)
    cursor = feed.attach(1, CHAIN)
    assert cursor.take(9) == []
    feed.publish()

    await cursor.wait()


async def test_a_closed_cursor_waits_for_nothing_and_is_forgotten() -> None:
    feed = feed_of(1)
    cursor = feed.attach(1, CHAIN)
    cursor.take(9)
    cursor.close()
    cursor.close()

    await cursor.wait()
    assert len(feed) == 0
    assert feed.lowest is None


def test_the_lowest_cursor_is_known() -> None:
    feed = feed_of(5)
    low, high = feed.attach(1, CHAIN), feed.attach(4, CHAIN)

    assert feed.lowest == 1
    low.take(2)
    assert feed.lowest == 3
    low.close()
    assert feed.lowest == high.seq == 4


def test_a_cursor_below_the_floor_is_lost() -> None:
    feed = feed_of(5)
    lost, held = feed.attach(1, CHAIN), feed.attach(2, CHAIN)
    feed.log.forget(2)

    with pytest.raises(CursorLost):
        lost.take(1)
    with pytest.raises(CursorLost):
        lost.position()
    assert held.position().seq == 2
    assert taken(held) == [3, 4, 5]


async def test_an_ended_feed_gives_what_it_has_and_then_the_reason() -> None:
    feed = feed_of(2)
    cursor = feed.attach(0, CHAIN)
    waiting = feed.attach(2, CHAIN)
    waiting.take(1)
    feed.end(Fenced("s"))

    await waiting.wait()
    assert taken(cursor) == [1, 2]
    for each in (cursor, waiting):
        with pytest.raises(Fenced):
            each.take(1)
