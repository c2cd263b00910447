from __future__ import annotations

from contextlib import closing

import pytest

from tests.fakes.clock import FakeClock
from tests.server.files.file_store_contract import ALICE, BOB, put
from unbroken.server.files.base import FileLimits, FileNotFound, FileStore, StoredFile
from unbroken.server.files.memory import MemoryFiles
from unbroken.server.files.reading import FileReading, NoFiles, ReadingBusy, TooMuchToRead
from unbroken.sessions.items import File


def part(file: StoredFile) -> File:
    return File(file.id, file.media_type, file.bytes, file.name)


@pytest.fixture
def store() -> FileStore:
    return MemoryFiles(FileLimits(), FakeClock())


async def test_a_turn_reads_its_principals_files(store: FileStore) -> None:
    reading = FileReading(store, turn_bytes=100, node_bytes=100)
    file = await put(store)
    with closing(reading.for_turn(ALICE)) as files:
        assert await files.read(part(file)) == b"hello"
        assert reading.held == 5
    with closing(reading.for_turn(BOB)) as files, pytest.raises(FileNotFound):
        await files.read(part(file))
    assert reading.held == 0


async def test_a_turn_reads_so_much_and_no_more(store: FileStore) -> None:
    reading = FileReading(store, turn_bytes=9, node_bytes=100)
    file, another = part(await put(store)), part(await put(store))
    with closing(reading.for_turn(ALICE)) as files:
        await files.read(file)
        with pytest.raises(TooMuchToRead):
            await files.read(another)
        assert reading.held == 5


async def test_a_file_counts_once_however_many_rounds_of_a_turn_read_it(store: FileStore) -> None:
    reading = FileReading(store, turn_bytes=9, node_bytes=9)
    file = part(await put(store))
    with closing(reading.for_turn(ALICE)) as files:
        for _ in range(3):
            assert await files.read(file) == b"hello"
        assert reading.held == 5
    assert reading.held == 0


async def test_all_turns_together_hold_so_much_and_no_more(store: FileStore) -> None:
    reading = FileReading(store, turn_bytes=9, node_bytes=9)
    file = part(await put(store))
    with closing(reading.for_turn(ALICE)) as files:
        with closing(reading.for_turn(ALICE)) as others:
            await files.read(file)
            with pytest.raises(ReadingBusy):
                await others.read(file)
        files.close()
        with closing(reading.for_turn(ALICE)) as others:
            assert await others.read(file) == b"hello"
    assert reading.held == 0


async def test_after_its_end_a_turn_reads_nothing(store: FileStore) -> None:
    reading = FileReading(store, turn_bytes=9, node_bytes=9)
    file = part(await put(store))
    files = reading.for_turn(ALICE)
    files.close()
    with pytest.raises(FileNotFound):
        await files.read(file)


async def test_where_there_are_no_files_none_is_found() -> None:
    with pytest.raises(FileNotFound):
        await FileReading(None, turn_bytes=9, node_bytes=9).for_turn(ALICE).read(File("file-1"))
    with pytest.raises(FileNotFound):
        await NoFiles().read(File("file-1"))
