from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from unbroken.server.auth import key_store as key_store_module
from unbroken.server.auth.key_file import FileKeyStore
from unbroken.server.auth.key_store import (
    KeyRecord,
    KeyStore,
    KeyStoreFull,
    KeyStoreUnusable,
    MemoryKeyStore,
    new_key,
)
from unbroken.server.auth.keys import digest_of
from unbroken.server.auth.principal import ALL_SCOPES, Principal
from unbroken.server.auth.redis import keys as redis_keys
from unbroken.server.auth.redis.connection import Redis
from unbroken.server.auth.redis.keys import RedisKeyStore
from unbroken.sessions.errors import StoreUnavailable

NOW = 1_800_000_000.0


def made(name: str, at: float = NOW, **more: object) -> KeyRecord:
    return new_key(name, now=at, **more)[1]  # type: ignore[arg-type]


class KeyStoreContract:
    """Run over each implementation: ``stores`` are two views of one."""

    async def test_what_one_adds_the_other_finds(self, stores: tuple[KeyStore, KeyStore]) -> None:
        here, there = stores
        key, record = new_key(
            "ci",
            now=NOW,
            tenant="acme",
            user="ann",
            plan="pro",
            scopes=frozenset({"files"}),
            expires_at=NOW + 9.5,
        )
        await here.add(record)

        found = await there.find(digest_of(key).hex())
        assert found == record
        assert found is not None
        assert found.principal == Principal("user:ann", "acme", "pro", frozenset({"files"}), NOW + 9.5)
        assert await there.find(digest_of(key + "x").hex()) is None

    async def test_a_revoked_key_is_gone_for_all(self, stores: tuple[KeyStore, KeyStore]) -> None:
        here, there = stores
        one, other = made("one"), made("other")
        await here.add(one)
        await here.add(other)
        assert await there.find(one.digest) == one

        assert await there.revoke(one.id)
        assert not await here.revoke(one.id), "once"
        assert await here.find(one.digest) is None
        assert [record for record, _ in await here.all()] == [other]

    async def test_the_version_changes_with_the_keys(self, stores: tuple[KeyStore, KeyStore]) -> None:
        here, there = stores
        record = made("one")
        versions = [await there.version()]
        await here.add(record)
        versions.append(await there.version())
        assert await there.version() == versions[-1]
        await here.revoke(record.id)
        versions.append(await there.version())

        assert len(set(versions)) == 3

    async def test_all_are_listed_with_their_last_use(self, stores: tuple[KeyStore, KeyStore]) -> None:
        here, there = stores
        records = [made(f"key{number}", NOW + number) for number in (2, 0, 1)]
        for record in records:
            await here.add(record)
        await here.note_uses({records[0].id: NOW + 60.25, "key_of_nobody": NOW})

        listed = await there.all()
        assert [record.name for record, _ in listed] == ["key0", "key1", "key2"]
        assert [used for _, used in listed] == [None, None, NOW + 60.25]
        await here.revoke(records[0].id)
        await here.note_uses({records[0].id: NOW + 61})
        await here.note_uses({})
        assert [used for _, used in await there.all()] == [None, None]

    async def test_there_are_so_many_and_no_more(
        self, stores: tuple[KeyStore, KeyStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from unbroken.server.auth import key_file

        for module in (key_store_module, redis_keys, key_file):
            monkeypatch.setattr(module, "MOST_KEYS", 2)
        here, _ = stores
        first = made("first")
        await here.add(first)
        await here.add(made("second"))
        with pytest.raises(KeyStoreFull):
            await here.add(made("third"))

        await here.revoke(first.id)
        await here.add(made("third"))


class TestMemory(KeyStoreContract):
    @pytest.fixture
    def stores(self) -> tuple[KeyStore, KeyStore]:
        store = MemoryKeyStore()
        return store, store


class TestFile(KeyStoreContract):
    @pytest.fixture
    def stores(self, tmp_path: Path) -> tuple[KeyStore, KeyStore]:
        return FileKeyStore(tmp_path / "keys.json"), FileKeyStore(tmp_path / "keys.json")


class TestRedis(KeyStoreContract):
    @pytest.fixture
    def stores(self, redis: Redis) -> tuple[KeyStore, KeyStore]:
        return RedisKeyStore(redis), RedisKeyStore(redis)


def test_a_key_is_long_and_its_record_does_not_hold_it() -> None:
    key, record = new_key("ci", now=NOW)

    assert key.startswith("ub_")
    assert len(key) >= 46, "256 bits"
    assert key not in repr(record)
    assert key.removeprefix("ub_") not in repr(record)
    assert record.principal == Principal(f"key:{record.id}", scopes=ALL_SCOPES)
    assert len({new_key("ci", now=NOW)[0] for _ in range(100)}) == 100


def test_a_file_of_keys_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    asyncio.run(FileKeyStore(path).add(made("one")))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["keys.json", "keys.json.lock"], (
        "nothing is left lying about"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": [1], "used": {}}'])
async def test_a_file_that_is_none_of_keys_is_said_to_be_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    store = FileKeyStore(path)

    with pytest.raises(KeyStoreUnusable, match=r"keys\.json, can't be used: it is no file of keys"):
        await store.all()
    with pytest.raises(KeyStoreUnusable):
        await store.add(made("one"))
    assert path.read_text() == text, "and not written over"


async def test_a_file_that_can_not_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "nowhere" / "keys.json")

    with pytest.raises(KeyStoreUnusable, match="No such file or directory"):
        await store.add(made("one"))


async def test_a_redis_out_of_reach_is_unavailable(nobody: Redis) -> None:
    store = RedisKeyStore(nobody)

    for call in (store.find("x"), store.all(), store.version(), store.revoke("x"), store.add(made("one"))):
        with pytest.raises(StoreUnavailable):
            await call


async def test_a_record_of_a_later_version_is_no_traceback(redis: Redis) -> None:
    await redis.command("HSET", "test:{auth}:keys", "x", "later")

    with pytest.raises(KeyStoreUnusable, match="Update this node"):
        await RedisKeyStore(redis).find("x")
