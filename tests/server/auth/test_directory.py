from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.valkey_cluster import ValkeyCluster
from tests.server.auth.directory_contract import ANN, BEN, DirectoryContract
from unbroken.server.auth.directory import Directory, MemoryDirectory
from unbroken.server.auth.principal import Principal
from unbroken.server.auth.redis.connection import Redis
from unbroken.server.auth.redis.directory import RedisDirectory
from unbroken.sessions.backends.redis.connection import Address, connect
from unbroken.sessions.errors import StoreUnavailable


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


class TestRedis(DirectoryContract):
    @pytest.fixture
    def nodes(self, redis: Redis) -> tuple[Directory, Directory]:
        return RedisDirectory(redis, FakeClock()), RedisDirectory(redis, FakeClock())


async def test_what_one_begins_to_write_others_rely_on_also_if_the_first_is_cut_off(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many who come with one key, the first is gone before Redis has been asked."""
    command, is_asked, go_on, is_written = redis.command, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def late(*words: object) -> object:
        is_asked.set()
        await go_on.wait()
        answer = await command(*words)
        is_written.set()
        return answer

    monkeypatch.setattr(redis, "command", late)
    directory = RedisDirectory(redis, FakeClock())
    first = asyncio.create_task(directory.note(ANN))
    await is_asked.wait()
    await directory.note(ANN)
    first.cancel()
    await asyncio.wait([first])
    go_on.set()
    async with asyncio.timeout(10):
        await is_written.wait()

    assert first.cancelled()
    assert await RedisDirectory(redis, FakeClock()).find(ANN.id) == ANN


async def test_what_is_shared_of_a_principal_has_an_end(redis: Redis) -> None:
    await RedisDirectory(redis, FakeClock()).note(ANN)

    assert await redis.command("TTL", f"test:p:{ANN.id}") > 86_400


@pytest.mark.parametrize(("left", "kept"), [(3600, 9000), (-60, 5400), (8 * 86_400, 7 * 86_400)])
async def test_who_expires_is_kept_as_long_as_a_session_of_theirs_may_be(
    redis: Redis, left: int, kept: int
) -> None:
    """Each stranger is somebody else, and there may be very many: an hour isn't a week of memory."""
    clock = FakeClock()
    stranger = replace(ANN, expires_at=clock.time() + left)
    await RedisDirectory(redis, clock, idle=1800).note(stranger)

    assert kept - 10 <= await redis.command("TTL", f"test:p:{ANN.id}") <= kept


async def test_another_node_sees_what_has_changed_within_a_minute(redis: Redis) -> None:
    clock = FakeClock()
    here, there = RedisDirectory(redis, clock), RedisDirectory(redis, clock)
    await here.note(ANN)
    assert await there.find(ANN.id) == ANN
    later = replace(ANN, plan="enterprise")
    await here.note(later)

    clock.advance(60)
    assert await there.find(ANN.id) == later


async def test_who_comes_again_costs_no_call(redis: Redis) -> None:
    directory = RedisDirectory(redis, FakeClock())
    await directory.note(ANN)
    await redis.command("DEL", f"test:p:{ANN.id}")
    await directory.note(ANN)

    assert await redis.command("EXISTS", f"test:p:{ANN.id}") == 0


async def test_without_the_others_a_node_knows_its_own(nobody: Redis) -> None:
    directory = RedisDirectory(nobody, FakeClock())
    await directory.note(ANN)

    assert await directory.find(ANN.id) == ANN
    with pytest.raises(StoreUnavailable):
        await directory.find(BEN.id)
    assert await directory.known(ANN.id) == ANN
    assert await directory.known(BEN.id) is None, "nobody waits for it, and nothing fails"


async def test_who_could_not_be_told_of_is_told_of_the_next_time(redis: Redis, nobody: Redis) -> None:
    clock = FakeClock()
    directory = RedisDirectory(nobody, clock)
    await directory.note(ANN)
    directory._redis = redis
    await directory.note(ANN)
    assert await RedisDirectory(redis, clock).find(ANN.id) is None, "nobody waits for it again at once"
    clock.advance(5)
    await directory.note(ANN)

    assert await RedisDirectory(redis, FakeClock()).find(ANN.id) == ANN


async def test_a_node_remembers_so_many_that_others_have_noted(redis: Redis) -> None:
    directory = RedisDirectory(redis, FakeClock(), remembered=2)
    for number in range(5):
        await directory.note(Principal(f"user:{number}"))

    assert len(directory) == 2
    assert await directory.find(Principal("user:0").id) == Principal("user:0"), "it asks"


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_server_of_a_cluster_that_is_gone_has_only_its_own_principals_wait(tmp_path: Path) -> None:
    with ValkeyCluster(tmp_path, "--cluster-require-full-coverage", "no").running() as servers:
        client = connect(Address(servers.url, timeout=5.0), name="test")
        redis, clock, lost = Redis(client, "test", patience=5.0), FakeClock(), servers.servers[0]
        here, there = RedisDirectory(redis, clock), RedisDirectory(redis, clock)
        people = [Principal(f"user:{number}") for number in range(30)]
        theirs = [each for each in people if servers.server_of(f"test:p:{each.id}") is lost]
        others = [each for each in people if each not in theirs]
        await here.note(others[0])
        lost.freeze()
        try:
            waiting = [asyncio.create_task(there.find(each.id)) for each in theirs]
            await here.note(others[1])
            assert await there.find(others[1].id) == others[1]
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            lost.kill()
            await here.note(theirs[0])
            await here.note(others[2])
            assert await there.find(others[2].id) == others[2], "told of at once"
        finally:
            await client.aclose()
