from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.fakes.store import DistantStore
from tests.sessions.backends.store_contract import LIFE, START, A, StoreContract, asked
from tests.sessions.backends.walk_contract import WalkContract
from unbroken.sessions.backends.base import Append, Immediate, SessionStore
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.backends.walk import WalkThrough
from unbroken.sessions.entries import Entry, InputKey
from unbroken.sessions.errors import StoreError
from unbroken.sessions.ids import new_session_id


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> SessionStore:
        return MemoryStore()

    async def test_keys_are_remembered_up_to_the_window(self) -> None:
        store = MemoryStore(dedupe_window=2)
        session_id = new_session_id()
        await store.create(session_id, A, LIFE)
        for name in "abc":
            await store.submit(session_id, asked(key=InputKey(name, b"")), START)

        assert (await store.submit(session_id, asked(key=InputKey("c", b"")), START)).duplicate
        assert not (await store.submit(session_id, asked(key=InputKey("a", b"")), START)).duplicate


class TestMemoryWalk(WalkContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def walk(self, store: MemoryStore) -> WalkThrough:
        return store.walk


class TestMemoryStoreAtOnce(StoreContract):
    """What it writes without being waited for is written by the same rules."""

    @pytest.fixture
    def store(self) -> SessionStore:
        return MemoryStore()

    async def put(self, store: SessionStore, append: Append) -> Sequence[Entry] | StoreError:
        assert isinstance(store, Immediate)
        (result,) = store.append_now([append])
        return result


class TestDistantStore(StoreContract):
    """The fake that other tests rely on keeps the same promises."""

    @pytest.fixture
    def store(self) -> SessionStore:
        return DistantStore(MemoryStore(), seed=7)
