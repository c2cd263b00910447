from __future__ import annotations

import pytest

from tests.sessions.backends.index_contract import ANN, BEN, LISTED, IndexContract, ids_of, named
from unbroken.sessions.backends.memory_index import MemoryIndex
from unbroken.sessions.ids import PrincipalId


class TestMemoryIndex(IndexContract):
    @pytest.fixture
    def index(self) -> MemoryIndex:
        return MemoryIndex(listed=LISTED)


async def test_there_is_a_bound_on_all_and_who_was_here_longest_ago_goes() -> None:
    index = MemoryIndex(most=10)
    await index.note(ANN, {named(number): number for number in range(6)})
    for person in range(4):
        await index.note(PrincipalId(f"p{person}"), {named(100 + person): 1})
    assert len(index) == 10
    await index.note(BEN, {named(200): 1})

    assert len(index) == 5
    assert await ids_of(index, ANN) == []
    assert await ids_of(index, BEN) == [named(200)]
