from __future__ import annotations

import pytest

from tests.fakes.clock import FakeClock
from tests.server.auth.directory_contract import ANN, BEN, DirectoryContract
from unbroken.server.auth.directory import Directory, MemoryDirectory
from unbroken.server.auth.principal import Principal


class TestMemory(DirectoryContract):
    @pytest.fixture
    def nodes(self) -> tuple[Directory, Directory]:
        directory = MemoryDirectory(FakeClock())
        return directory, directory


async def test_one_who_has_not_come_for_long_is_forgotten() -> None:
    clock = FakeClock()
    directory = MemoryDirectory(clock, lifetime=10)
    await directory.note(ANN)
    clock.advance(6)
    await directory.note(BEN)
    clock.advance(6)

    assert await directory.find(ANN.id) is None
    assert await directory.find(BEN.id) == BEN
    await directory.note(BEN)
    assert len(directory) == 1, "not only unseen, but gone"


async def test_it_remembers_so_many_and_no_more() -> None:
    directory = MemoryDirectory(FakeClock(), remembered=2)
    people = [Principal(f"user:{number}") for number in range(3)]
    await directory.note(people[0])
    await directory.note(people[1])
    await directory.note(people[0])
    await directory.note(people[2])

    assert [await directory.find(each.id) is not None for each in people] == [True, False, True]
