"""What every session store must do. Subclass, and provide ``store``."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from unbroken.sessions.backends.base import Append, Fence, InputKey, SessionStore, Snapshot
from unbroken.sessions.entries import Body, CancelResponse, Deltas, Entry, ItemDeleted, Submitted, width
from unbroken.sessions.errors import Fenced, LostTail, MessageIdReused, SessionGone, StoreError
from unbroken.sessions.ids import (
    ChainId,
    Incarnation,
    ItemId,
    NodeId,
    ResponseId,
    SessionId,
    new_session_id,
)

A, B, C = NodeId("node_a"), NodeId("node_b"), NodeId("node_c")
LIFE = Incarnation("0a0a0a0a")


def mark(name: str) -> ItemDeleted:
    return ItemDeleted(ItemId(name))


def words(*parts: str) -> Deltas:
    return Deltas(ResponseId("r"), ItemId("i"), list(parts), 2)


def asked(name: str = "x") -> Submitted:
    return Submitted(CancelResponse(name), ChainId("c"))


def flat(entries: Sequence[Entry]) -> list[object]:
    """Return what the entries hold, number by number; contiguous, or it fails."""
    out: list[object] = []
    expected = entries[0].seq if entries else 0
    for entry in entries:
        assert entry.seq == expected
        expected = entry.last + 1
        out += entry.body.parts if isinstance(entry.body, Deltas) else [entry.body]
    return out


class StoreContract:
    """Run over each implementation."""

    async def begin(self, store: SessionStore) -> tuple[SessionId, Fence]:
        session_id = new_session_id()
        return session_id, await store.create(session_id, A, LIFE)

    async def write(
        self, store: SessionStore, session_id: SessionId, fence: Fence, *bodies: Body, min_head: int = 0
    ) -> Sequence[Entry]:
        (result,) = await store.append([Append(session_id, fence, min_head, 0, bodies)])
        if isinstance(result, StoreError):
            raise result
        return result

    async def test_numbers_are_contiguous_from_1_across_inputs_and_outputs(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)

        first = await self.write(store, session_id, fence, mark("a"), words("x", "y"))
        receipt = await store.submit(session_id, LIFE, None, asked())
        second = await self.write(store, session_id, fence, mark("b"))

        assert [entry.seq for entry in first] == [1, 2]
        assert (receipt.seq, receipt.duplicate) == (4, False)
        assert second[0].seq == 5
        read = await store.read(session_id, LIFE, 0, 100)
        assert flat(read) == [mark("a"), "x", "y", asked(), mark("b")]

    async def test_a_batch_has_one_nonce_and_the_next_another(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        nonces = set()
        for _ in range(8):
            entries = await self.write(store, session_id, fence, mark("a"), mark("b"))
            assert entries[0].nonce == entries[1].nonce
            nonces.add(entries[0].nonce)

        assert len(nonces) == 8
        assert all(0 <= nonce < 2**32 for nonce in nonces)

    async def test_what_is_read_has_the_numbers_and_nonces_that_were_written(
        self, store: SessionStore
    ) -> None:
        session_id, fence = await self.begin(store)
        written: dict[int, int] = {}
        for batch in ([words("a")], [words("b", "c"), mark("m")], [words("d")]):
            for entry in await self.write(store, session_id, fence, *batch):
                written |= dict.fromkeys(range(entry.seq, entry.last + 1), entry.nonce)

        for after in range(5):
            entries = await store.read(session_id, LIFE, after, 100)
            assert entries[0].seq == after + 1
            for entry in entries:
                for seq in range(entry.seq, entry.last + 1):
                    assert entry.nonce == written[seq]

    async def test_what_is_read_is_what_was_written(self, store: SessionStore) -> None:
        """Also whose pieces they are: arguments of a call must not come back as text."""
        session_id, fence = await self.begin(store)
        text = words("a", "b")
        call = Deltas(ResponseId("r"), ItemId("k"), ["{", "}"], 5, output_index=1, call_id="call_1")
        written = await self.write(store, session_id, fence, text, mark("m"), call)

        read = await store.read(session_id, LIFE, 0, 100)

        assert [entry.body for entry in read] == [text, mark("m"), call]
        assert read == list(written)

    async def test_a_read_is_bounded_and_can_be_gone_on_with(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await self.write(store, session_id, fence, *[mark(str(n)) for n in range(50)])
        seen: list[object] = []
        after = 0
        while entries := await store.read(session_id, LIFE, after, 7):
            assert sum(width(entry.body) for entry in entries) <= 50
            seen += flat(entries)
            after = entries[-1].last

        assert seen == [mark(str(n)) for n in range(50)]

    async def test_an_input_with_a_known_key_is_not_written_again(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)
        key = InputKey("m:1", b"digest")

        first = await store.submit(session_id, LIFE, key, asked("first"))
        again = await store.submit(session_id, LIFE, key, asked("first"))

        assert (again.seq, again.duplicate, again.entry) == (first.seq, True, None)
        assert flat(await store.read(session_id, LIFE, 0, 9)) == [asked("first")]

    async def test_the_same_key_with_another_digest_is_an_error(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)
        await store.submit(session_id, LIFE, InputKey("m:1", b"one"), asked())

        with pytest.raises(MessageIdReused):
            await store.submit(session_id, LIFE, InputKey("m:1", b"two"), asked())
        assert len(await store.read(session_id, LIFE, 0, 9)) == 1

    async def test_inputs_without_a_key_are_all_written(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)
        for _ in range(2):
            await store.submit(session_id, LIFE, None, asked())

        assert len(await store.read(session_id, LIFE, 0, 9)) == 2

    async def test_only_the_owner_appends(self, store: SessionStore) -> None:
        """Both the token and the node must match: a token alone may be issued twice after a failover."""
        session_id, fence = await self.begin(store)
        opened = await store.acquire(session_id, B, seen=fence)

        with pytest.raises(Fenced):
            await self.write(store, session_id, fence, mark("zombie"))
        with pytest.raises(Fenced):
            await self.write(store, session_id, Fence(A, opened.fence.token, LIFE), mark("zombie"))
        with pytest.raises(Fenced):
            await self.write(store, session_id, Fence(B, fence.token, LIFE), mark("zombie"))
        with pytest.raises(Fenced):
            other_life = Fence(B, opened.fence.token, Incarnation("0b0b0b0b"))
            await self.write(store, session_id, other_life, mark("zombie"))
        await self.write(store, session_id, opened.fence, mark("owner"))
        assert flat(await store.read(session_id, LIFE, 0, 9)) == [mark("owner")]

    async def test_of_two_that_steal_from_the_same_owner_one_wins(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await store.acquire(session_id, B, seen=fence)

        with pytest.raises(Fenced):
            await store.acquire(session_id, C, seen=fence)

    async def test_nobody_takes_what_is_owned_without_saying_from_whom(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)

        with pytest.raises(Fenced):
            await store.acquire(session_id, B)

    async def test_a_released_session_can_be_acquired(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await self.write(store, session_id, fence, mark("a"))
        await store.release(session_id, fence)
        opened = await store.acquire(session_id, B)

        assert (opened.head, opened.floor, opened.snapshot) == (1, 0, None)
        with pytest.raises(Fenced):
            await store.release(session_id, fence)

    async def test_an_owner_may_acquire_again_what_it_owns(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        opened = await store.acquire(session_id, A)

        assert opened.fence == fence
        await self.write(store, session_id, fence, mark("a"))

    async def test_a_lost_tail_is_noticed(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await self.write(store, session_id, fence, mark("a"))

        with pytest.raises(LostTail):
            await self.write(store, session_id, fence, mark("b"), min_head=2)
        assert len(await store.read(session_id, LIFE, 0, 9)) == 1

    async def test_the_last_answered_input_is_kept_for_the_next_owner(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await store.submit(session_id, LIFE, None, asked())
        await store.append([Append(session_id, fence, 1, 1, [])])
        opened = await store.acquire(session_id, B, seen=fence)

        assert opened.consumed == 1

    async def test_a_call_for_several_sessions_answers_for_each(self, store: SessionStore) -> None:
        one, fence_of_one = await self.begin(store)
        two, fence_of_two = await self.begin(store)
        void = Fence(C, 9, LIFE)

        good, fenced, gone = await store.append(
            [
                Append(one, fence_of_one, 0, 0, [mark("a")]),
                Append(two, void, 0, 0, [mark("b")]),
                Append(new_session_id(), fence_of_two, 0, 0, [mark("c")]),
            ]
        )

        assert not isinstance(good, StoreError)
        assert [entry.seq for entry in good] == [1]
        assert isinstance(fenced, Fenced)
        assert isinstance(gone, SessionGone)
        assert await store.read(two, LIFE, 0, 9) == []

    async def test_compaction_moves_the_floor_and_keeps_the_snapshot(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        entries = [await self.write(store, session_id, fence, mark(name)) for name in "abc"]
        entry = entries[-1][0]
        await store.compact(session_id, fence, 2, Snapshot(3, entry.nonce, b"state"))

        with pytest.raises(SessionGone):
            await store.read(session_id, LIFE, 1, 9)
        assert flat(await store.read(session_id, LIFE, 2, 9)) == [mark("c")]
        opened = await store.acquire(session_id, B, seen=fence)
        assert (opened.floor, opened.head) == (2, 3)
        assert opened.snapshot is not None
        assert (opened.snapshot.seq, opened.snapshot.data) == (3, b"state")

    async def test_only_the_owner_compacts_and_deletes(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        (entry,) = await self.write(store, session_id, fence, mark("a"))
        await store.acquire(session_id, B, seen=fence)

        with pytest.raises(Fenced):
            await store.compact(session_id, fence, 1, Snapshot(1, entry.nonce, b""))
        with pytest.raises(Fenced):
            await store.delete(session_id, fence)
        assert len(await store.read(session_id, LIFE, 0, 9)) == 1

    async def test_what_is_deleted_is_gone(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await store.delete(session_id, fence)
        await store.delete(session_id, fence)

        with pytest.raises(SessionGone):
            await store.read(session_id, LIFE, 0, 9)
        with pytest.raises(SessionGone):
            await store.submit(session_id, LIFE, None, asked())
        with pytest.raises(SessionGone):
            await store.acquire(session_id, A)

    async def test_another_incarnation_is_another_session(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)

        with pytest.raises(SessionGone):
            await store.submit(session_id, Incarnation("0b0b0b0b"), None, asked())
        with pytest.raises(SessionGone):
            await store.read(session_id, Incarnation("0b0b0b0b"), 0, 9)

    async def test_a_session_is_created_once(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)

        with pytest.raises(StoreError):
            await store.create(session_id, B, LIFE)
