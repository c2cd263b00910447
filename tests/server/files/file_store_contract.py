"""What every file store must do, by the interface in ``unbroken.server.files.base``.

A test module makes a subclass named ``Test...`` that says how its store is made.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from tests.server.realtime.serving import eventually
from unbroken.server.files.base import (
    FileDetails,
    FileLimits,
    FileNotFound,
    FilesFull,
    FileStore,
    FilesUnavailable,
    FileTooLarge,
    StoredFile,
    TooManyFiles,
    is_file_id,
)
from unbroken.server.files.ledger import OVERHEAD
from unbroken.sessions.ids import PrincipalId

ALICE, BOB = PrincipalId("alice"), PrincipalId("bob")
DETAILS = FileDetails(name="a.txt", media_type="text/plain", purpose="user_data", lifetime=60.0)
LIMITS = FileLimits(
    file_bytes=100_000,
    principal_bytes=3 * OVERHEAD + 150_000,
    node_bytes=4 * OVERHEAD + 180_000,
    principal_files=3,
)


async def put(
    store: FileStore, content: bytes = b"hello", principal: PrincipalId = ALICE, **details: Any
) -> StoredFile:
    async with store.upload(principal) as upload:
        await upload.write(content)
        return await upload.commit(replace(DETAILS, **details))


async def content_of(store: FileStore, file_id: str, principal: PrincipalId = ALICE) -> bytes:
    return b"".join([piece async for piece in store.read(file_id, principal)])


class FileStoreContract(abc.ABC):
    @abc.abstractmethod
    def make(self, limits: FileLimits, clock: FakeClock) -> FileStore:
        """Return a store, not entered."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[FileStore]:
        async with self.make(LIMITS, clock) as store:
            yield store
        assert clock.pending == 0

    async def test_a_file_is_what_was_written(self, store: FileStore, clock: FakeClock) -> None:
        async with store.upload(ALICE) as upload:
            for piece in (b"hel", b"", b"lo" * 40_000):
                await upload.write(piece)
            file = await upload.commit(DETAILS)

        assert file == StoredFile(
            id=file.id,
            principal=ALICE,
            name="a.txt",
            media_type="text/plain",
            bytes=80_003,
            purpose="user_data",
            created_at=clock.time(),
            expires_at=clock.time() + 60,
        )
        assert await store.stat(file.id, ALICE) == file
        pieces = [piece async for piece in store.read(file.id, ALICE)]
        assert b"".join(pieces) == b"hel" + b"lo" * 40_000
        assert max(map(len, pieces)) <= 65536
        assert (store.count, store.size) == (1, 80_003 + OVERHEAD)

    async def test_ids_are_random(self, store: FileStore) -> None:
        ids = {(await put(store)).id for _ in range(3)}

        assert len(ids) == 3
        assert all(map(is_file_id, ids))

    async def test_anothers_file_is_as_one_that_never_was(self, store: FileStore) -> None:
        file = await put(store)
        said: set[tuple[type[BaseException], str]] = set()
        for file_id in (file.id, "file-" + "0" * 32, "", "../" + file.id, file.id + "\0"):
            with pytest.raises(FileNotFound) as stat:
                await store.stat(file_id, BOB)
            with pytest.raises(FileNotFound) as read:
                await content_of(store, file_id, BOB)
            with pytest.raises(FileNotFound) as delete:
                await store.delete(file_id, BOB)
            said |= {(error.type, str(error.value)) for error in (stat, read, delete)}

        assert len(said) == 1
        assert await store.of(BOB) == []
        assert await content_of(store, file.id) == b"hello"

    async def test_files_are_listed_in_order(self, store: FileStore) -> None:
        files = [await put(store), await put(store, principal=BOB), await put(store)]

        assert await store.of(ALICE) == [files[0], files[2]]
        assert await store.of(PrincipalId("nobody")) == []

    async def test_a_deleted_file_is_gone_and_its_room_free(self, store: FileStore) -> None:
        file = await put(store)
        await store.delete(file.id, ALICE)

        with pytest.raises(FileNotFound):
            await store.stat(file.id, ALICE)
        with pytest.raises(FileNotFound):
            await store.delete(file.id, ALICE)
        assert (store.count, store.size) == (0, 0)

    async def test_a_file_expires_at_its_time(self, store: FileStore, clock: FakeClock) -> None:
        early, late = await put(store), await put(store, lifetime=600.0)
        clock.advance(59.9)
        assert await content_of(store, early.id) == b"hello"

        clock.now += 0.1  # no timer has gone off yet
        with pytest.raises(FileNotFound):
            await store.stat(early.id, ALICE)
        with pytest.raises(FileNotFound):
            await content_of(store, early.id)
        with pytest.raises(FileNotFound):
            await store.delete(early.id, ALICE)
        assert await store.of(ALICE) == [late]

        clock.advance(2)
        assert (store.count, store.size) == (1, 5 + OVERHEAD)
        clock.advance(3600)
        assert (store.count, store.size) == (0, 0)

    async def test_one_that_expires_sooner_than_those_before_it_does(
        self, store: FileStore, clock: FakeClock
    ) -> None:
        await put(store, lifetime=10_000.0)
        await put(store, lifetime=5.0)
        clock.advance(7)

        assert store.count == 1

    async def test_a_reader_that_has_begun_reads_to_the_end(self, store: FileStore, clock: FakeClock) -> None:
        file = await put(store, b"x" * 99_999)
        async with aclosing(store.read(file.id, ALICE)) as pieces:
            first = await anext(pieces)
            await store.delete(file.id, ALICE)
            rest = [piece async for piece in pieces]

        assert len(first) + sum(map(len, rest)) == 99_999

    async def test_a_file_may_be_as_large_as_the_bound_and_no_larger(self, store: FileStore) -> None:
        file = await put(store, b"x" * 100_000)
        await store.delete(file.id, ALICE)

        async with store.upload(BOB) as upload:
            await upload.write(b"x" * 100_000)
            with pytest.raises(FileTooLarge, match="100000 bytes"):
                await upload.write(b"x")
        assert store.count == 0

    async def test_the_bound_of_a_principal_counts_uploads_that_run_at_once(self, store: FileStore) -> None:
        async with store.upload(ALICE) as one, store.upload(ALICE) as other:
            await one.write(b"x" * 80_000)
            with pytest.raises(TooManyFiles):
                await other.write(b"x" * (70_001 + OVERHEAD))
            await other.write(b"x" * 70_000)
            async with store.upload(BOB) as bobs:
                await bobs.write(b"x" * 20_000)
                await bobs.commit(DETAILS)

        assert store.count == 1
        assert store.size == 20_000 + OVERHEAD

    async def test_the_bound_of_the_node_holds_for_all_together(self, store: FileStore) -> None:
        async with store.upload(ALICE) as one, store.upload(BOB) as other:
            await one.write(b"x" * 100_000)
            with pytest.raises(FilesFull):
                await other.write(b"x" * (80_001 + 2 * OVERHEAD))
        assert store.size == 0

    async def test_the_number_of_files_is_bounded_with_those_being_uploaded(self, store: FileStore) -> None:
        await put(store)
        async with store.upload(ALICE), store.upload(ALICE):
            with pytest.raises(TooManyFiles):
                async with store.upload(ALICE):
                    pass
        await put(store)
        await put(store)
        with pytest.raises(TooManyFiles):
            await put(store)

        assert (await put(store, principal=BOB)).principal == BOB

    async def test_nothing_is_left_of_an_upload_that_is_not_committed(self, store: FileStore) -> None:
        async with store.upload(ALICE) as upload:
            await upload.write(b"x" * 50)
        with pytest.raises(ZeroDivisionError):
            async with store.upload(ALICE) as upload:
                await upload.write(b"x" * 50)
                raise ZeroDivisionError

        assert (store.count, store.size) == (0, 0)
        assert await store.of(ALICE) == []

    async def test_nothing_is_left_of_an_upload_that_is_cancelled_between_any_two_steps(
        self, store: FileStore
    ) -> None:
        for steps in range(60):
            task = asyncio.create_task(put(store, b"x" * 70_000))
            for _ in range(steps):
                await asyncio.sleep(0)
            is_early = task.cancel()
            await asyncio.wait((task,))
            for file in await store.of(ALICE):
                # It was whole before the cancellation came.
                assert await content_of(store, file.id) == b"x" * 70_000
                await store.delete(file.id, ALICE)
            assert is_early or not task.cancelled()
            await eventually(lambda: store.size == 0)

    async def test_an_upload_is_committed_once_and_not_written_after(self, store: FileStore) -> None:
        async with store.upload(ALICE) as upload:
            await upload.write(b"hello")
            file = await upload.commit(DETAILS)
            with pytest.raises(FilesUnavailable):
                await upload.write(b"more")
            with pytest.raises(FilesUnavailable):
                await upload.commit(DETAILS)

        assert await content_of(store, file.id) == b"hello"
        assert store.count == 1

    async def test_many_at_once_keep_their_own_content(self, store: FileStore) -> None:
        names = [PrincipalId(f"p{number}") for number in range(4)]
        files = await asyncio.gather(*(put(store, name.encode() * 1000, name) for name in names))

        for name, file in zip(names, files, strict=True):
            assert await content_of(store, file.id, name) == name.encode() * 1000
