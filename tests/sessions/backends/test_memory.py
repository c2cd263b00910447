from __future__ import annotations

import pytest

from tests.fakes.store import DistantStore
from tests.sessions.backends.store_contract import LIFE, A, StoreContract, asked
from unbroken.sessions.backends.base import InputKey, SessionStore
from unbroken.sessions.backends.memory import MemoryStore
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
            await store.submit(session_id, LIFE, InputKey(name, b""), asked())

        assert (await store.submit(session_id, LIFE, InputKey("c", b""), asked())).duplicate
        assert not (await store.submit(session_id, LIFE, InputKey("a", b""), asked())).duplicate


class TestDistantStore(StoreContract):
    """The fake that other tests rely on keeps the same promises."""

    @pytest.fixture
    def store(self) -> SessionStore:
        return DistantStore(MemoryStore(), seed=7)
