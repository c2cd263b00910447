from __future__ import annotations

import asyncio
from typing import Final

import pytest

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


def woken(cursor: Cursor) -> asyncio.Event:
    """Return what is set when the cursor calls who listens."""
    event = asyncio.Event()
    cursor.listen(event.set)
    return event


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


def test_who_listens_is_called_when_there_may_be_more() -> None:
    feed = feed_of(1)
    cursor = feed.attach(1, CHAIN)
    assert cursor.take(9) == []
    more = woken(cursor)
    assert not more.is_set()

    grow(feed)
    feed.publish()
    assert more.is_set()
    assert taken(cursor) == [2]


def test_who_stops_listening_is_not_called() -> None:
    feed = feed_of(1)
    cursor = feed.attach(1, CHAIN)
    more = woken(cursor)
    cursor.listen(None)
    feed.publish()

    assert not more.is_set()


def test_a_closed_cursor_calls_nobody_and_is_forgotten() -> None:
    feed = feed_of(1)
    cursor = feed.attach(1, CHAIN)
    cursor.take(9)
    more = woken(cursor)
    cursor.close()
    cursor.close()
    feed.publish()

    assert not more.is_set()
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


def test_an_ended_feed_gives_what_it_has_and_then_the_reason() -> None:
    feed = feed_of(2)
    cursor = feed.attach(0, CHAIN)
    waiting = feed.attach(2, CHAIN)
    waiting.take(1)
    ended = woken(waiting)
    feed.end(Fenced("s"))

    assert ended.is_set()
    assert taken(cursor) == [1, 2]
    for each in (cursor, waiting):
        with pytest.raises(Fenced):
            each.take(1)
