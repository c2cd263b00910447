"""What every session store must do. Subclass, and provide ``store``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from unbroken.sessions.backends.base import NOBODY, Append, Fence, SessionStore, Snapshot
from unbroken.sessions.entries import (
    Body,
    CancelResponse,
    ConfigUpdated,
    Deltas,
    Entry,
    InputKey,
    ItemDeleted,
    SessionOpened,
    Submitted,
    width,
)
from unbroken.sessions.errors import (
    Fenced,
    LostTail,
    MessageIdReused,
    SessionDeleted,
    SessionGone,
    StoreError,
    Unseen,
)
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import (
    ChainId,
    Incarnation,
    ItemId,
    NodeId,
    Nonce,
    PrincipalId,
    ResponseId,
    SessionId,
    new_node_id,
    new_session_id,
)
from unbroken.sessions.items import SessionConfig

A, B, C = NodeId("node_a"), NodeId("node_b"), NodeId("node_c")
LIFE, NEXT_LIFE = Incarnation("0a0a0a0a"), Incarnation("0b0b0b0b")
NONE = Nonce(0)


def start_of(life: Incarnation) -> Position:
    return Position(life, 0, NONE)


START = start_of(LIFE)


def mark(name: str) -> ItemDeleted:
    return ItemDeleted(ItemId(name))


def opened(metadata: dict[str, str]) -> SessionOpened:
    return SessionOpened(PrincipalId("alice"), SessionConfig("m", metadata=metadata), 1_790_000_000_000)


def changed(metadata: dict[str, str]) -> ConfigUpdated:
    return ConfigUpdated(SessionConfig("m", metadata=metadata))


def words(*parts: str) -> Deltas:
    return Deltas(ResponseId("r"), ItemId("i"), list(parts), 2)


def asked(name: str = "x", *, key: InputKey | None = None) -> Submitted:
    return Submitted(CancelResponse(name), ChainId("c"), key=key)


def flat(entries: Sequence[Entry]) -> list[object]:
    """Return what the entries hold, number by number; contiguous, or it fails."""
    out: list[object] = []
    expected = entries[0].seq if entries else 0
    for entry in entries:
        assert entry.seq == expected
        expected = entry.last + 1
        out += entry.body.parts if isinstance(entry.body, Deltas) else [entry.body]
    return out


def behind(entries: Sequence[Entry]) -> Position:
    """Return the position of who has read up to here."""
    return Position(LIFE, entries[-1].last, entries[-1].nonce)


async def entries_in(store: SessionStore, session_id: SessionId, after: Position, limit: int) -> list[Entry]:
    return (await store.read(session_id, after, limit)).entries


async def head_of(store: SessionStore, session_id: SessionId) -> tuple[int, Nonce]:
    """Return the number and the nonce of a log's last entry."""
    opened = await store.inspect(session_id)
    place = Position(opened.fence.incarnation, opened.floor, opened.floor_nonce)
    while entries := await entries_in(store, session_id, place, 999):
        place = place._replace(seq=entries[-1].last, nonce=entries[-1].nonce)
    return place.seq, place.nonce


class StoreContract:
    """Run over each implementation."""

    async def begin(self, store: SessionStore) -> tuple[SessionId, Fence]:
        session_id = new_session_id()
        return session_id, await store.create(session_id, A, LIFE)

    async def write(
        self,
        store: SessionStore,
        session_id: SessionId,
        fence: Fence,
        *bodies: Body,
        seen: int | None = None,
        nonce: Nonce = NONE,
    ) -> Sequence[Entry]:
        """Write as one who has read everything, or what *seen* and *nonce* say."""
        if seen is None:
            with contextlib.suppress(SessionGone):
                seen, nonce = await head_of(store, session_id)
        result = await self.put(store, Append(session_id, fence, seen or 0, nonce, 0, bodies))
        if isinstance(result, StoreError):
            raise result
        return result

    async def put(self, store: SessionStore, append: Append) -> Sequence[Entry] | StoreError:
        (result,) = await store.append([append])
        return result

    async def test_numbers_are_contiguous_from_1_across_inputs_and_outputs(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)

        first = await self.write(store, session_id, fence, mark("a"), words("x", "y"))
        receipt = await store.submit(session_id, asked(), START)
        second = await self.write(store, session_id, fence, mark("b"))

        assert [entry.seq for entry in first] == [1, 2]
        assert (receipt.seq, receipt.duplicate) == (4, False)
        assert second[0].seq == 5
        read = await entries_in(store, session_id, START, 100)
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
            entries = await entries_in(
                store, session_id, Position(LIFE, after, Nonce(written.get(after, 0))), 100
            )
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

        read = await entries_in(store, session_id, START, 100)

        assert [entry.body for entry in read] == [text, mark("m"), call]
        assert read == list(written)

    async def test_a_read_is_bounded_and_can_be_gone_on_with(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await self.write(store, session_id, fence, *[mark(str(n)) for n in range(50)])
        seen: list[object] = []
        after = START
        while entries := await entries_in(store, session_id, after, 7):
            assert sum(width(entry.body) for entry in entries) <= 50
            seen += flat(entries)
            after = behind(entries)

        assert seen == [mark(str(n)) for n in range(50)]

    async def test_a_page_says_whether_it_is_the_last(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        assert (await store.read(session_id, START, 7)).is_end
        for number in range(9):
            await self.write(store, session_id, fence, mark(str(number)))
        first = await store.read(session_id, START, 7)
        rest = await store.read(session_id, behind(first.entries), 7)
        assert (first.is_end, rest.is_end) == (False, True)
        assert flat([*first.entries, *rest.entries]) == [mark(str(n)) for n in range(9)]
        assert (await store.read(session_id, behind(rest.entries), 7)).is_end

    async def test_an_input_with_a_known_key_is_not_written_again(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)
        key = InputKey("m:1", b"digest")

        first = await store.submit(session_id, asked("first", key=key), START)
        again = await store.submit(session_id, asked("first", key=key), START)

        assert (again.seq, again.duplicate, again.entry) == (first.seq, True, None)
        assert flat(await entries_in(store, session_id, START, 9)) == [asked("first", key=key)]

    async def test_the_same_key_with_another_digest_is_an_error(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)
        await store.submit(session_id, asked(key=InputKey("m:1", b"one")), START)

        with pytest.raises(MessageIdReused):
            await store.submit(session_id, asked(key=InputKey("m:1", b"two")), START)
        assert len(await entries_in(store, session_id, START, 9)) == 1

    async def test_what_was_written_before_is_recalled_and_nothing_is_written(
        self, store: SessionStore
    ) -> None:
        session_id, _ = await self.begin(store)
        key = InputKey("m:1", b"digest")
        assert await store.recall(session_id, LIFE, asked(key=key)) is None
        assert await store.recall(session_id, LIFE, asked()) is None
        first = await store.submit(session_id, asked(key=key), START)

        again = await store.recall(session_id, LIFE, asked(key=key))
        assert again is not None
        assert (again.seq, again.duplicate, again.entry) == (first.seq, True, None)
        assert await store.recall(session_id, LIFE, asked(key=InputKey("m:2", b"digest"))) is None
        with pytest.raises(MessageIdReused):
            await store.recall(session_id, LIFE, asked(key=InputKey("m:1", b"other")))
        with pytest.raises(SessionGone):
            await store.recall(session_id, NEXT_LIFE, asked(key=key))
        assert len(await entries_in(store, session_id, START, 9)) == 1

    async def test_inputs_without_a_key_are_all_written(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)
        for _ in range(2):
            await store.submit(session_id, asked(), START)

        assert len(await entries_in(store, session_id, START, 9)) == 2

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
            other_life = Fence(B, opened.fence.token, NEXT_LIFE)
            await self.write(store, session_id, other_life, mark("zombie"))
        await self.write(store, session_id, opened.fence, mark("owner"))
        assert flat(await entries_in(store, session_id, START, 9)) == [mark("owner")]

    async def test_who_reads_learns_whose_the_session_is(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        assert (await store.read(session_id, START, 9)).fence == fence

        opened = await store.acquire(session_id, B, seen=fence)
        assert (await store.read(session_id, START, 9)).fence == opened.fence
        await store.release(session_id, opened.fence)
        assert (await store.read(session_id, START, 9)).fence.node == NOBODY

    async def test_who_reads_learns_whether_it_is_told_of_what_happens(self, store: SessionStore) -> None:
        """A registration may be lost, or taken back late."""
        session_id, fence = await self.begin(store)
        assert not (await store.read(session_id, START, 9, node=B)).is_told
        await store.follow(session_id, C)
        await store.follow(session_id, B)
        assert (await store.read(session_id, START, 9, node=B)).is_told
        await self.write(store, session_id, fence, mark("a"))
        assert (await store.read(session_id, START, 9, node=B)).is_told
        await store.unfollow(session_id, B)
        assert not (await store.read(session_id, START, 9, node=B)).is_told
        assert (await store.read(session_id, START, 9, node=C)).is_told

    async def test_what_is_kept_is_as_it_was(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        other, _ = await self.begin(store)
        await self.write(store, session_id, fence, mark("a"))
        before = await store.inspect(session_id)
        await store.keep([session_id, new_session_id(), other])
        await store.keep([])

        assert await store.inspect(session_id) == before
        assert flat(await entries_in(store, session_id, START, 9)) == [mark("a")]

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
        (entry,) = await self.write(store, session_id, fence, mark("a"))

        with pytest.raises(LostTail):
            await self.write(store, session_id, fence, mark("b"), seen=2, nonce=entry.nonce)
        with pytest.raises(LostTail):
            await entries_in(store, session_id, Position(LIFE, 2, entry.nonce), 9)
        assert len(await entries_in(store, session_id, START, 9)) == 1

    async def test_another_branch_is_noticed_though_it_is_as_long(self, store: SessionStore) -> None:
        """The numbers of what was lost have been taken by other entries since."""
        session_id, fence = await self.begin(store)
        (entry,) = await self.write(store, session_id, fence, mark("a"))
        other = Nonce(entry.nonce ^ 1)
        await store.submit(session_id, asked(), START)

        with pytest.raises(LostTail):
            await self.write(store, session_id, fence, mark("b"), seen=1, nonce=other)
        with pytest.raises(LostTail):
            await entries_in(store, session_id, Position(LIFE, 1, other), 9)
        await self.write(store, session_id, fence, mark("c"), seen=1, nonce=entry.nonce)
        assert flat(await entries_in(store, session_id, behind([entry]), 9)) == [asked(), mark("c")]

    async def test_a_write_that_comes_late_is_not_written_twice(self, store: SessionStore) -> None:
        """Its owner took it for lost, and said the same again: of two alike, one is taken."""
        session_id, fence = await self.begin(store)
        (entry,) = await self.write(store, session_id, fence, mark("a"))
        await store.submit(session_id, asked(), START)
        append = Append(session_id, fence, 1, entry.nonce, 0, [mark("b")])
        await store.append([append])
        (late,) = await store.append([append])

        assert isinstance(late, Unseen)
        assert flat(await entries_in(store, session_id, START, 9)) == [mark("a"), asked(), mark("b")]
        assert (await store.inspect(session_id)).head == 3

    async def test_a_write_that_comes_after_others_took_its_place_is_not_written(
        self, store: SessionStore
    ) -> None:
        """Its owner went on alone meanwhile, and what it said then is there."""
        session_id, fence = await self.begin(store)
        written = await self.write(store, session_id, fence, mark("a"))
        late = Append(session_id, fence, 1, written[0].nonce, 0, [mark("b")])
        ring = [Entry(2, Nonce(5), mark("b")), Entry(3, Nonce(6), asked())]
        await store.rejoin(session_id, fence, behind(written), 0, ring)

        assert isinstance((await store.append([late]))[0], Unseen)
        await self.write(store, session_id, fence, mark("c"), seen=3, nonce=Nonce(6))
        assert flat(await entries_in(store, session_id, START, 9)) == [
            mark("a"),
            mark("b"),
            asked(),
            mark("c"),
        ]

    async def test_a_compaction_that_comes_late_does_nothing(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        entries = [(await self.write(store, session_id, fence, mark(name)))[0] for name in "abc"]
        await store.compact(session_id, fence, 3, Snapshot(3, entries[2].nonce, b"newer"))
        await store.compact(session_id, fence, 1, Snapshot(1, entries[0].nonce, b"older"))

        opened = await store.inspect(session_id)
        assert opened.floor == 3
        assert (await store.acquire(session_id, B, seen=fence)).snapshot == Snapshot(
            3, entries[2].nonce, b"newer"
        )

    async def test_the_last_answered_input_is_kept_for_the_next_owner(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        receipt = await store.submit(session_id, asked(), START)
        assert receipt.entry is not None
        await store.append([Append(session_id, fence, receipt.seq, receipt.entry.nonce, 1, [])])
        page = await store.read(session_id, START, 9)
        opened = await store.acquire(session_id, B, seen=fence)

        assert page.consumed == 1, "whoever follows knows it, too"
        assert opened.consumed == 1

    async def test_a_call_for_several_sessions_answers_for_each(self, store: SessionStore) -> None:
        one, fence_of_one = await self.begin(store)
        two, fence_of_two = await self.begin(store)
        void = Fence(C, 9, LIFE)

        good, fenced, gone = await store.append(
            [
                Append(one, fence_of_one, 0, NONE, 0, [mark("a")]),
                Append(two, void, 0, NONE, 0, [mark("b")]),
                Append(new_session_id(), fence_of_two, 0, NONE, 0, [mark("c")]),
            ]
        )

        assert not isinstance(good, StoreError)
        assert [entry.seq for entry in good] == [1]
        assert isinstance(fenced, Fenced)
        assert isinstance(gone, SessionGone)
        assert await entries_in(store, two, START, 9) == []

    async def test_compaction_moves_the_floor_and_keeps_the_snapshot(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        entries = [await self.write(store, session_id, fence, mark(name)) for name in "abc"]
        entry = entries[-1][0]
        await store.compact(session_id, fence, 2, Snapshot(3, entry.nonce, b"state"))

        with pytest.raises(SessionGone):
            await entries_in(store, session_id, behind(entries[0]), 9)
        assert flat(await entries_in(store, session_id, behind(entries[1]), 9)) == [mark("c")]
        opened = await store.acquire(session_id, B, seen=fence)
        assert (opened.floor, opened.head) == (2, 3)
        assert opened.snapshot is not None
        assert (opened.snapshot.seq, opened.snapshot.data) == (3, b"state")

    async def test_a_snapshot_of_what_the_log_does_not_hold_is_not_kept(self, store: SessionStore) -> None:
        """Of what was lost, or of another branch that is as long: nobody could go on from it."""
        session_id, fence = await self.begin(store)
        entries = [(await self.write(store, session_id, fence, mark(name)))[0] for name in "abc"]
        first, middle, last = [entry.nonce for entry in entries]
        await store.compact(session_id, fence, 1, Snapshot(1, first, b"state"))
        before = await store.inspect(session_id)

        for seq, nonce in (4, last), (99, last), (3, middle), (2, last), (1, last):
            with pytest.raises(LostTail):
                await store.compact(session_id, fence, seq, Snapshot(seq, nonce, b"lost"))
        assert await store.inspect(session_id) == before
        assert flat(await entries_in(store, session_id, behind(entries[:1]), 9)) == [mark("b"), mark("c")]

    async def test_a_snapshot_of_the_middle_of_an_entry_is_kept(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        (pieces,) = await self.write(store, session_id, fence, words("a", "b", "c"))
        await self.write(store, session_id, fence, mark("d"))
        await store.compact(session_id, fence, 0, Snapshot(2, pieces.nonce, b"state"))

        assert (await store.inspect(session_id)).snapshot == Snapshot(2, pieces.nonce, b"state")

    async def test_only_the_owner_compacts_and_deletes(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        (entry,) = await self.write(store, session_id, fence, mark("a"))
        await store.acquire(session_id, B, seen=fence)

        with pytest.raises(Fenced):
            await store.compact(session_id, fence, 1, Snapshot(1, entry.nonce, b""))
        with pytest.raises(Fenced):
            await store.delete(session_id, fence)
        assert len(await entries_in(store, session_id, START, 9)) == 1

    async def test_what_is_deleted_is_gone(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await store.delete(session_id, fence)
        await store.delete(session_id, fence)

        with pytest.raises(SessionGone):
            await entries_in(store, session_id, START, 9)
        with pytest.raises(SessionGone):
            await store.submit(session_id, asked(), START)
        with pytest.raises(SessionGone):
            await store.acquire(session_id, A)

    async def test_another_incarnation_is_another_session(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)

        with pytest.raises(SessionGone):
            await store.submit(session_id, asked(), start_of(NEXT_LIFE))
        with pytest.raises(SessionGone):
            await entries_in(store, session_id, START._replace(incarnation=NEXT_LIFE), 9)

    async def test_looking_at_a_session_changes_nothing(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await self.write(store, session_id, fence, mark("a"))

        assert (await store.inspect(session_id)).fence == fence
        assert (await store.inspect(session_id)).head == 1
        with pytest.raises(SessionGone):
            await store.inspect(new_session_id())
        await self.write(store, session_id, fence, mark("b"))

    async def test_following_a_session_shows_how_it_stands(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        (entry,) = await self.write(store, session_id, fence, mark("a"))
        await store.compact(session_id, fence, 1, Snapshot(1, entry.nonce, b"state"))

        for _ in range(2):
            opened = await store.follow(session_id, B)
            assert (opened.fence, opened.floor, opened.floor_nonce, opened.head) == (fence, 1, entry.nonce, 1)
            assert opened.snapshot == Snapshot(1, entry.nonce, b"state")
        await store.unfollow(session_id, B)
        await store.unfollow(session_id, C)
        with pytest.raises(SessionGone):
            await store.follow(new_session_id(), B)

    async def test_a_session_can_be_released_to_somebody(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await store.follow(session_id, B)
        await store.release(session_id, fence, to=B)

        with pytest.raises(Fenced):
            await store.acquire(session_id, C)
        opened = await store.acquire(session_id, B)
        assert opened.fence.node == B
        with pytest.raises(Fenced):
            await self.write(store, session_id, fence, mark("zombie"))
        await self.write(store, session_id, opened.fence, mark("owner"))

    async def test_who_follows_no_more_is_given_nothing(self, store: SessionStore) -> None:
        """It may have left meanwhile, and would own the session for ever."""
        session_id, fence = await self.begin(store)
        await store.follow(session_id, B)
        await store.unfollow(session_id, B)
        await store.release(session_id, fence, to=B)

        opened = await store.acquire(session_id, C)
        assert opened.fence.node == C

    async def test_what_was_released_is_nobodys(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await store.release(session_id, fence)

        seen = (await store.inspect(session_id)).fence
        assert seen.node == NOBODY
        assert (await store.acquire(session_id, C, seen=seen)).fence.node == C

    async def test_sessions_with_something_to_do_are_found_by_their_owner(self, store: SessionStore) -> None:
        owner = new_node_id()
        ids = []
        for _ in range(4):
            session_id = new_session_id()
            ids.append(session_id)
            await store.create(session_id, owner, LIFE)
        idle, running, asked_for, done = ids
        fence = Fence(owner, 1, LIFE)
        for session_id, is_busy in ((idle, False), (running, True), (done, True)):
            await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")], is_busy)])
        await store.submit(asked_for, asked(), START)
        receipt = await store.submit(done, asked(), START)
        assert receipt.entry is not None
        consumed = Append(done, fence, 2, receipt.entry.nonce, 2, [mark("b")], is_busy=False)
        await store.append([consumed])

        assert owner in await store.owners()
        found = await store.busy(owner, 9)
        assert sorted(found) == sorted([(running, fence), (asked_for, fence)])
        assert len(await store.busy(owner, 1)) == 1
        await store.follow(running, B)
        await store.release(running, fence, to=B)
        assert [each for each, _ in await store.busy(owner, 9)] == [asked_for]
        assert running in [each for each, _ in await store.busy(B, 999)]
        assert {owner, B} <= await store.owners()
        await store.delete(asked_for, fence)
        assert await store.busy(owner, 9) == []
        assert owner not in await store.owners()

    async def test_those_that_are_known_are_no_news(self, store: SessionStore) -> None:
        owner = new_node_id()
        ids = [new_session_id() for _ in range(3)]
        for session_id in ids:
            fence = await store.create(session_id, owner, LIFE)
            await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")])])
        found = await store.busy(owner, 1, known=set(ids[:2]))
        assert [each for each, _ in found] == [ids[2]]
        assert await store.busy(owner, 9, known=set(ids)) == []

    @pytest.mark.parametrize("is_busy", [True, False])
    async def test_what_was_answered_alone_has_nothing_to_do(
        self, store: SessionStore, is_busy: bool
    ) -> None:
        owner = new_node_id()
        for is_lost in (True, False):
            session_id = new_session_id()
            fence = await store.create(session_id, owner, LIFE)
            await store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")], is_busy=True)])
            if is_lost:
                snapshot = Snapshot(7, Nonce(77), b"state")
                await store.reseed(session_id, fence, NEXT_LIFE, snapshot, {}, is_busy=is_busy)
            else:
                place = (await entries_in(store, session_id, START, 9))[-1]
                after = Position(LIFE, place.last, place.nonce)
                await store.rejoin(session_id, fence, after, 0, [], is_busy=is_busy)
            assert (session_id in [each for each, _ in await store.busy(owner, 9)]) is is_busy

    async def test_a_log_that_was_lost_is_begun_anew(self, store: SessionStore) -> None:
        """By the owner, from its memory, whether the store still knows the session or not."""
        for is_known in (True, False):
            session_id = new_session_id()
            old = Fence(A, 1, LIFE)
            if is_known:
                old = await store.create(session_id, A, LIFE)
                await self.write(store, session_id, old, mark("a"))
            snapshot = Snapshot(7, Nonce(77), b"state")
            fence = await store.reseed(session_id, old, NEXT_LIFE, snapshot, {})

            assert (fence.node, fence.incarnation) == (A, NEXT_LIFE)
            opened = await store.inspect(session_id)
            assert (opened.floor, opened.floor_nonce, opened.head) == (7, 77, 7)
            assert opened.snapshot == snapshot
            (entry,) = await self.write(store, session_id, fence, mark("b"), seen=7, nonce=Nonce(77))
            assert entry.seq == 8
            with pytest.raises(SessionGone):
                await entries_in(store, session_id, START, 9)
            with pytest.raises(StoreError):
                await self.write(store, session_id, old, mark("zombie"), seen=7, nonce=Nonce(77))

    async def test_inputs_that_wait_in_the_snapshot_still_wait(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        fence = await store.reseed(session_id, fence, NEXT_LIFE, Snapshot(7, Nonce(77), b"state"), {})

        assert (await store.acquire(session_id, B, seen=fence)).consumed == 0

    async def test_an_input_is_taken_behind_what_its_sender_was_shown(self, store: SessionStore) -> None:
        """What it speaks of may be lost: then it isn't, but for one that was taken before."""
        session_id, fence = await self.begin(store)
        key = InputKey("m:1", b"digest")
        first = await store.submit(session_id, asked(key=key), START)
        assert first.entry is not None
        said = Append(session_id, fence, 1, first.entry.nonce, 0, [words("a", "b")])
        (entries,) = await store.append([said])
        assert not isinstance(entries, StoreError)
        written = entries[0].nonce
        for seen in (1, first.entry.nonce), (2, written), (3, written):
            assert not (await store.submit(session_id, asked(), Position(LIFE, *seen))).duplicate

        for seen in (3, Nonce(99)), (2, first.entry.nonce), (50, written):
            with pytest.raises(LostTail):
                await store.submit(session_id, asked(), Position(LIFE, *seen))
            assert (await store.submit(session_id, asked(key=key), Position(LIFE, *seen))).duplicate
        await store.compact(session_id, fence, 3, Snapshot(3, written, b"state"))
        assert not (await store.submit(session_id, asked(), Position(LIFE, 3, written))).duplicate
        with pytest.raises(LostTail):
            await store.submit(session_id, asked(), Position(LIFE, 2, written))

    async def test_keys_are_forgotten_with_a_log_if_that_is_said(self, store: SessionStore) -> None:
        for keeps_keys in (True, False):
            session_id, fence = await self.begin(store)
            key = InputKey("m:1", b"digest")
            await store.submit(session_id, asked(key=key), START)
            snapshot = Snapshot(7, Nonce(77), b"state")
            await store.reseed(session_id, fence, NEXT_LIFE, snapshot, {}, keeps_keys=keeps_keys)

            again = await store.submit(session_id, asked(key=key), Position(NEXT_LIFE, 7, Nonce(77)))
            assert again.duplicate is keeps_keys

    async def test_a_log_that_has_gone_on_is_not_begun_anew(self, store: SessionStore) -> None:
        """What has come is in neither log, and its name would be known."""
        session_id, fence = await self.begin(store)
        receipt = await store.submit(session_id, asked(key=InputKey("m:1", b"digest")), START)
        assert receipt.entry is not None
        snapshot = Snapshot(7, Nonce(77), b"state")
        for head in (START, Position(LIFE, 1, Nonce(99))):
            with pytest.raises(Unseen):
                await store.reseed(session_id, fence, NEXT_LIFE, snapshot, {}, head=head)
        assert (await store.inspect(session_id)).fence == fence

        head = Position(LIFE, 1, receipt.entry.nonce)
        await store.reseed(session_id, fence, NEXT_LIFE, snapshot, {}, head=head)
        assert (await store.inspect(session_id)).head == 7

    async def test_a_log_begun_anew_knows_what_was_said_before(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        snapshot = Snapshot(7, Nonce(77), b"state")
        key = InputKey("m:1", b"digest")
        await store.reseed(session_id, fence, NEXT_LIFE, snapshot, {3: key}, keeps_keys=False)

        receipt = await store.submit(session_id, asked(key=key), start_of(NEXT_LIFE))
        assert (receipt.seq, receipt.duplicate) == (3, True)
        with pytest.raises(MessageIdReused):
            await store.submit(session_id, asked(key=InputKey("m:1", b"other")), start_of(NEXT_LIFE))

    async def test_only_the_owner_begins_a_log_anew(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await store.acquire(session_id, B, seen=fence)

        with pytest.raises(Fenced):
            await store.reseed(session_id, fence, NEXT_LIFE, Snapshot(7, Nonce(77), b"state"), {})

    async def test_entries_from_elsewhere_are_taken_in_as_they_are(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        written = await self.write(store, session_id, fence, mark("a"))
        key = InputKey("m:1", b"digest")
        ring = [
            Entry(2, Nonce(5), words("x", "y")),
            Entry(4, Nonce(5), mark("b")),
            Entry(5, Nonce(6), asked(key=key)),
        ]
        await store.rejoin(session_id, fence, behind(written), 1, ring)

        assert await entries_in(store, session_id, behind(written), 9) == ring
        opened = await store.inspect(session_id)
        assert (opened.head, opened.consumed) == (5, 1)
        assert (await store.submit(session_id, asked(key=key), START)).seq == 5
        await self.write(store, session_id, fence, mark("c"), seen=5, nonce=Nonce(6))

    async def test_entries_from_elsewhere_fit_exactly_or_are_refused(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        written = await self.write(store, session_id, fence, mark("a"))
        ring = [Entry(2, Nonce(5), mark("b"))]

        other_branch = behind(written)._replace(nonce=Nonce(written[0].nonce ^ 1))
        with pytest.raises(LostTail):
            await store.rejoin(session_id, fence, other_branch, 0, ring)
        await store.submit(session_id, asked(), START)
        with pytest.raises(LostTail):
            await store.rejoin(session_id, fence, behind(written), 0, ring)
        with pytest.raises(SessionGone):
            await store.rejoin(new_session_id(), fence, START, 0, ring)
        await store.acquire(session_id, B, seen=fence)
        with pytest.raises(Fenced):
            await store.rejoin(session_id, fence, behind(written), 0, ring)
        assert flat(await entries_in(store, session_id, START, 9)) == [mark("a"), asked()]

    async def test_what_is_noted_of_a_session_is_what_its_log_says(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        other, _ = await self.begin(store)

        async def noted() -> list[object]:
            return list(await store.metadata([session_id, new_session_id(), other]))

        assert await noted() == [{}, None, {}]
        await self.write(store, session_id, fence, opened({"topic": "schöne Schuhe"}), mark("a"))
        assert await noted() == [{"topic": "schöne Schuhe"}, None, {}]
        await self.write(store, session_id, fence, changed({"a": "1"}), changed({"a": "2"}), mark("b"))
        assert await noted() == [{"a": "2"}, None, {}]
        await self.write(store, session_id, fence, words("x"))
        assert await noted() == [{"a": "2"}, None, {}]

        place = Position(LIFE, *await head_of(store, session_id))
        ring = [Entry(place.seq + 1, Nonce(5), changed({"b": ""})), Entry(place.seq + 2, Nonce(5), mark("c"))]
        await store.rejoin(session_id, fence, place, 0, ring)
        assert await noted() == [{"b": ""}, None, {}]
        snapshot = Snapshot(9, Nonce(77), b"{}")
        fence = await store.reseed(session_id, fence, NEXT_LIFE, snapshot, {}, metadata={"c": "d"})
        assert await noted() == [{"c": "d"}, None, {}]
        fence = await store.reseed(session_id, fence, LIFE, snapshot, {})
        assert await noted() == [{}, None, {}]
        assert await store.metadata([]) == []

    async def test_of_what_is_refused_nothing_is_noted(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        written = await self.write(store, session_id, fence, opened({"a": "b"}))
        append = Append(session_id, fence, 1, Nonce(written[0].nonce ^ 1), 0, [changed({"c": "d"})])
        assert isinstance(await self.put(store, append), LostTail)
        await store.acquire(session_id, B, seen=fence)
        assert isinstance(await self.put(store, replace(append, nonce=written[0].nonce)), Fenced)

        assert await store.metadata([session_id]) == [{"a": "b"}]
        await store.erase(session_id)
        assert await store.metadata([session_id]) == [None]

    async def test_many_are_asked_for_at_once(self, store: SessionStore) -> None:
        made = [await self.begin(store) for _ in range(20)]
        for number, (session_id, fence) in enumerate(made):
            await self.write(store, session_id, fence, opened({"n": str(number)}))

        found = await store.metadata([session_id for session_id, _ in made])
        assert found == [{"n": str(number)} for number in range(20)]

    async def test_a_session_is_created_once(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)

        with pytest.raises(StoreError):
            await store.create(session_id, B, LIFE)
        with pytest.raises(StoreError):
            await store.create(session_id, A, NEXT_LIFE)

    async def test_creating_a_session_may_be_repeated(self, store: SessionStore) -> None:
        """The answer to the first call may have been lost."""
        session_id, fence = await self.begin(store)
        await self.write(store, session_id, fence, mark("a"))

        assert await store.create(session_id, A, LIFE) == fence
        assert flat(await entries_in(store, session_id, START, 9)) == [mark("a")]

    # What was deleted.

    async def test_what_was_deleted_is_told_to_be_so_by_every_verb(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        (entry,) = await self.write(store, session_id, fence, mark("a"))
        key = InputKey("m:1", b"digest")
        await store.submit(session_id, asked(key=key), behind([entry]))

        await store.erase(session_id)

        place, snapshot = behind([entry]), Snapshot(1, entry.nonce, b"state")
        append = Append(session_id, fence, 1, entry.nonce, 0, [mark("b")])
        assert isinstance(await self.put(store, append), SessionDeleted)
        for refused in (
            store.create(session_id, A, LIFE),
            store.create(session_id, B, NEXT_LIFE),
            store.acquire(session_id, A),
            store.acquire(session_id, B, seen=fence),
            store.inspect(session_id),
            store.follow(session_id, B),
            store.submit(session_id, asked(), place),
            store.submit(session_id, asked(key=key), place),
            store.recall(session_id, LIFE, asked(key=key)),
            store.read(session_id, START, 10),
            store.compact(session_id, fence, 1, snapshot),
            store.reseed(session_id, fence, NEXT_LIFE, snapshot, {}),
            store.rejoin(session_id, fence, place, 0, [Entry(2, Nonce(7), mark("b"))]),
        ):
            with pytest.raises(SessionDeleted):
                await refused

    async def test_what_was_deleted_is_nobodys_work(self, store: SessionStore) -> None:
        session_id, fence = await self.begin(store)
        await self.write(store, session_id, fence, mark("a"))
        assert session_id in [named for named, _ in await store.busy(A, 99)]

        await store.erase(session_id)

        assert session_id not in [named for named, _ in await store.busy(A, 99)]
        await store.unfollow(session_id, A)  # as a probe does: harmless
        await store.keep([session_id])
        await store.delete(session_id, fence)
        with pytest.raises(Fenced):
            await store.release(session_id, fence)
        with pytest.raises(SessionDeleted):
            await store.inspect(session_id)

    async def test_what_a_store_never_had_can_be_deleted(self, store: SessionStore) -> None:
        """Somebody who was cut off may have it, and give it back."""
        session_id = new_session_id()
        fence = Fence(A, 1, LIFE)

        await store.erase(session_id)
        await store.erase(session_id)

        with pytest.raises(SessionDeleted):
            await store.create(session_id, A, LIFE)
        with pytest.raises(SessionDeleted):
            await store.reseed(session_id, fence, NEXT_LIFE, Snapshot(3, NONE, b"state"), {})

    async def test_deleting_leaves_other_sessions_alone(self, store: SessionStore) -> None:
        session_id, _ = await self.begin(store)
        other, fence = await self.begin(store)
        await self.write(store, other, fence, mark("a"))

        await store.erase(session_id)

        assert flat(await entries_in(store, other, START, 10)) == [mark("a")]
