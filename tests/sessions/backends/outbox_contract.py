"""What every store's outbox must do. Subclass, and provide ``stored``: a store and its outbox."""

from __future__ import annotations

from collections.abc import Sequence

from tests.sessions.backends.store_contract import LIFE, NEXT_LIFE, NONE, START, A, B, head_of, mark
from unbroken.sessions.backends.base import Append, Fence, SessionStore, Snapshot
from unbroken.sessions.backends.outbox import Outbox, Parcel
from unbroken.sessions.entries import Entry
from unbroken.sessions.errors import Fenced, StoreError
from unbroken.sessions.event_log import Position
from unbroken.sessions.finished import FinishedTurn, decode_turn
from unbroken.sessions.ids import ItemId, Nonce, PrincipalId, ResponseId, SessionId, new_session_id
from unbroken.sessions.items import Message, Text

__all__ = ["PART_BYTES", "OutboxContract", "finished"]

PART_BYTES = 4096
"""What the outbox under test has room for, in each part."""

Stored = tuple[SessionStore, Outbox]


def finished(
    session_id: SessionId, name: str = "r1", *, text: str = "answer", is_attended: bool = True
) -> FinishedTurn:
    return FinishedTurn(
        v=1,
        session_id=session_id,
        response_id=ResponseId(name),
        place=7,
        principal=PrincipalId("alice"),
        status="completed",
        model="m",
        asked_at=1,
        ended_at=2.5,
        input=(Message(ItemId("i1"), "user", (Text("question"),)),),
        output=(Message(ItemId("i2"), "assistant", (Text(text),)),),
        is_attended=is_attended,
    )


def noise(length: int, seed: int) -> str:
    """Return text that takes as much room however it is packed."""
    import random

    return "".join(
        random.Random(seed).choices(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=length
        )
    )


async def everything(outbox: Outbox) -> list[Parcel]:
    found: list[Parcel] = []
    for shelf in await outbox.shelves():
        parcels = await outbox.take(shelf.part, 1000)
        assert shelf.count == len(parcels)
        assert shelf.since == parcels[0].since
        found += parcels
    return found


async def ids_in(outbox: Outbox) -> list[str]:
    return [decode_turn(parcel.data).response_id for parcel in await everything(outbox)]


class OutboxContract:
    """Run over each implementation."""

    async def begin(self, store: SessionStore) -> tuple[SessionId, Fence]:
        session_id = new_session_id()
        return session_id, await store.create(session_id, A, LIFE)

    async def write(
        self, store: SessionStore, session_id: SessionId, fence: Fence, *turns: FinishedTurn
    ) -> Sequence[Entry] | StoreError:
        seen, nonce = await head_of(store, session_id)
        (result,) = await store.append(
            [Append(session_id, fence, seen, nonce, 0, [mark("done")], finished=turns)]
        )
        return result

    async def test_what_ends_is_there_with_the_entry_that_ends_it(self, stored: Stored) -> None:
        store, outbox = stored
        session_id, fence = await self.begin(store)
        told: list[int] = []
        outbox.on_news = told.append
        assert await outbox.shelves() == []

        await self.write(store, session_id, fence, finished(session_id))

        (shelf,) = await outbox.shelves()
        (parcel,) = await outbox.take(shelf.part, 10)
        assert decode_turn(parcel.data) == finished(session_id)
        assert told == [shelf.part] == [parcel.part]
        assert shelf.since > 0

    async def test_what_is_not_written_is_not_there(self, stored: Stored) -> None:
        store, outbox = stored
        session_id, fence = await self.begin(store)
        await store.release(session_id, fence)
        await store.acquire(session_id, B)
        assert isinstance(await self.write(store, session_id, fence, finished(session_id)), Fenced)

        assert await everything(outbox) == []

    async def test_it_stays_until_it_is_settled(self, stored: Stored) -> None:
        store, outbox = stored
        session_id, fence = await self.begin(store)
        await self.write(store, session_id, fence, finished(session_id, "r1"))
        await self.write(store, session_id, fence, finished(session_id, "r2"), finished(session_id, "r3"))
        parcels = await everything(outbox)
        assert await ids_in(outbox) == ["r1", "r2", "r3"]
        part = parcels[0].part
        assert await outbox.take(part, 2) == parcels[:2]
        assert await outbox.take(part, 2, after=parcels[1].key) == parcels[2:]

        await outbox.settle(parcels[:1])
        await outbox.settle(parcels[:1])  # once more is harmless
        assert await ids_in(outbox) == ["r2", "r3"]
        await outbox.settle(parcels)
        assert await outbox.shelves() == []

    async def test_many_sessions_in_one_call_are_told_apart(self, stored: Stored) -> None:
        store, outbox = stored
        begun = [await self.begin(store) for _ in range(6)]
        appends = [
            Append(
                session_id,
                fence,
                0,
                NONE,
                0,
                [mark("done")],
                # Some end nothing.
                finished=(finished(session_id, f"r{number}"),) if number % 2 else (),
            )
            for number, (session_id, fence) in enumerate(begun)
        ]
        for result in await store.append(appends):
            assert not isinstance(result, StoreError)

        turns = [decode_turn(parcel.data) for parcel in await everything(outbox)]
        assert {(turn.session_id, turn.response_id) for turn in turns} == {
            (begun[number][0], f"r{number}") for number in (1, 3, 5)
        }

    async def test_it_knows_whether_anybody_was_there(self, stored: Stored) -> None:
        store, outbox = stored
        session_id, fence = await self.begin(store)
        await self.write(store, session_id, fence, finished(session_id, "here"))
        await self.write(store, session_id, fence, finished(session_id, "nobody", is_attended=False))
        await store.follow(session_id, B)
        await self.write(store, session_id, fence, finished(session_id, "there", is_attended=False))

        attended = {
            decode_turn(parcel.data).response_id: parcel.is_attended for parcel in await everything(outbox)
        }
        assert attended == {"here": True, "nobody": False, "there": True}

    async def test_what_there_is_no_room_for_is_told(self, stored: Stored) -> None:
        store, outbox = stored
        session_id, fence = await self.begin(store)
        lost: list[int] = []
        outbox.on_lost = lost.append
        large = finished(session_id, "large", text=noise(PART_BYTES * 5 // 8, 1))
        await self.write(store, session_id, fence, large)
        await self.write(store, session_id, fence, finished(session_id, "larger", text=noise(3000, 2)))
        await self.write(store, session_id, fence, finished(session_id, "small"))

        assert lost == [1]
        assert await ids_in(outbox) == ["large", "small"]
        await outbox.settle(await everything(outbox))
        await self.write(store, session_id, fence, large)
        assert await ids_in(outbox) == ["large"], "what is settled makes room"

    async def test_what_ended_without_the_store_comes_with_it(self, stored: Stored) -> None:
        store, outbox = stored
        session_id, fence = await self.begin(store)
        await store.rejoin(
            session_id,
            fence,
            START,
            0,
            [Entry(1, Nonce(5), mark("done"))],
            finished=[finished(session_id, is_attended=False)],
        )
        (parcel,) = await everything(outbox)
        assert decode_turn(parcel.data).response_id == "r1"
        assert not parcel.is_attended

    async def test_what_ended_of_late_comes_with_a_log_that_is_begun_anew(self, stored: Stored) -> None:
        store, outbox = stored
        session_id, fence = await self.begin(store)
        snapshot = Snapshot(3, Nonce(9), b'{"v":1}')
        turns = [finished(session_id, "r1"), finished(session_id, "r2")]
        fence = await store.reseed(session_id, fence, NEXT_LIFE, snapshot, {}, finished=turns)
        assert await ids_in(outbox) == ["r1", "r2"]

        await store.rejoin(session_id, fence, Position(NEXT_LIFE, 3, Nonce(9)), 0, [])
        assert await ids_in(outbox) == ["r1", "r2"], "nothing more"

    async def test_it_outlives_its_session(self, stored: Stored) -> None:
        store, outbox = stored
        session_id, fence = await self.begin(store)
        await self.write(store, session_id, fence, finished(session_id))
        await store.delete(session_id, fence)

        assert await ids_in(outbox) == ["r1"]
