from __future__ import annotations

import asyncio
import hashlib
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.fakes.clock import FakeClock
from unbroken.server.auth.pins import Pins
from unbroken.server.auth.principal import STRANGERS, Principal
from unbroken.server.auth.redis.connection import Redis
from unbroken.server.auth.redis.secrets import RedisSecretStore
from unbroken.server.auth.secret_pools import SecretBounds, SecretRecord
from unbroken.server.auth.secret_store import (
    Held,
    MemorySecretStore,
    PoolFull,
    SecretsFull,
    SecretStore,
)
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import SessionId
from unbroken.sessions.items import Concurrency, FunctionTool, NamedTool

PINS = Pins(
    model="m",
    instructions="Be brief.",
    max_output_tokens=5,
    tools=(FunctionTool("f", "does", {"type": "object"}),),
    tool_choice=NamedTool("f"),
    parallel_tool_calls=False,
    concurrency=Concurrency.QUEUE,
    reasoning=True,
)
RECORD = SecretRecord(
    "user:ann", "acme", "pro", ("realtime",), 1_900_000_000.5, "key_1", "https://a.example", PINS
)
LARGE = replace(RECORD, pins=replace(PINS, instructions="Be brief. " * 100))
ONE, TWO = SessionId("sess_1"), SessionId("sess_2")


def settled(instructions: str) -> Pins:
    return replace(PINS, instructions=instructions)


def stranger(number: int, address: str, instructions: str = "Be brief.") -> SecretRecord:
    """Return a key of somebody whom nobody can be again, asked for from *address*."""
    return replace(
        RECORD,
        user=f"anon:{number}",
        tenant=STRANGERS,
        key_id=None,
        pins=settled(instructions),
        address=address,
    )


class SecretStoreContract:
    """Run over each implementation: ``stores`` are two views of one."""

    async def test_what_is_kept_is_found_whole(self, stores: tuple[SecretStore, SecretStore]) -> None:
        here, there = stores
        await here.put("d1", RECORD, uses=1, lifetime=60)

        held = await there.look("d1")
        assert held == Held(RECORD, 1, frozenset())
        assert held is not None
        assert held.record.principal == Principal(
            "user:ann", "acme", "pro", frozenset({"realtime"}), 1_900_000_000.5
        )
        assert await there.look("d2") is None

    async def test_one_use_is_one(self, stores: tuple[SecretStore, SecretStore]) -> None:
        here, there = stores
        await here.put("d1", RECORD, uses=1, lifetime=60)

        assert await there.spend("d1", RECORD, ONE, kept=600)
        assert not await here.spend("d1", RECORD, TWO, kept=600)
        assert not await there.spend("d1", RECORD, ONE, kept=600)
        assert await here.look("d1") == Held(RECORD, 0, frozenset({ONE}))

    async def test_nobody_takes_the_places_of_others(self, stores: tuple[SecretStore, SecretStore]) -> None:
        """Nor by keys that were used, and that are kept for their sessions."""
        here, there = stores
        for number in range(200):
            await here.put(f"d{number}", RECORD, uses=1, lifetime=60)
            if number % 2:
                assert await there.spend(f"d{number}", RECORD, SessionId(f"s{number}"), kept=600)
        with pytest.raises(PoolFull, match="this user"):
            await there.put("d200", RECORD, uses=1, lifetime=60)

        await there.put("d201", replace(RECORD, user="user:bob"), uses=1, lifetime=60)
        await there.put("d202", replace(RECORD, user="anon:1"), uses=1, lifetime=60)
        await there.put("d203", replace(RECORD, user="anon:1", tenant=STRANGERS), uses=1, lifetime=60)
        assert await here.look("d200") is None
        for number in range(1, 200, 2):
            assert await here.look(f"d{number}") == Held(RECORD, 0, frozenset({f"s{number}"})), (
                "all are known"
            )

    async def test_nor_does_anybody_with_few_large_ones(
        self, stores: tuple[SecretStore, SecretStore]
    ) -> None:
        here, there = stores
        large = [replace(RECORD, pins=settled(f"{number}" * 500_000)) for number in range(5)]
        for number, record in enumerate(large[:4]):
            await here.put(f"d{number}", record, uses=1, lifetime=60)
            assert await here.spend(f"d{number}", record, SessionId(f"s{number}"), kept=600)
        with pytest.raises(PoolFull):
            await there.put("d4", large[4], uses=1, lifetime=60)

        await there.put("d5", RECORD, uses=1, lifetime=60)
        await there.put("d6", replace(large[4], user="user:bob"), uses=1, lifetime=60)

    async def test_what_many_keys_settle_alike_counts_once(
        self, stores: tuple[SecretStore, SecretStore]
    ) -> None:
        """A backend whose sessions all begin alike isn't bounded by how much that is."""
        here, there = stores
        large = replace(RECORD, pins=settled("x" * 900_000))
        for number in range(20):
            await stores[number % 2].put(f"d{number}", large, uses=1, lifetime=60)
            assert await there.spend(f"d{number}", large, SessionId(f"s{number}"), kept=600)
        await there.put("e0", replace(RECORD, pins=settled("y" * 900_000)), uses=1, lifetime=60)
        with pytest.raises(PoolFull):
            await here.put("e1", replace(RECORD, pins=settled("z" * 900_000)), uses=1, lifetime=60)

        for number in range(20):
            assert await here.look(f"d{number}") == Held(large, 0, frozenset({f"s{number}"}))

    async def test_a_backend_is_bounded_whomever_it_makes_them_for(
        self, stores: tuple[SecretStore, SecretStore]
    ) -> None:
        """Each use that may be made of one counts, too."""
        here, there = stores
        made = replace(RECORD, maker="key:backend")
        users = [replace(made, user=f"user:{number}") for number in range(20)]
        for number, record in enumerate(users[:16]):
            await here.put(f"d{number}", record, uses=20_000, lifetime=60)
        for attempt in range(3):
            with pytest.raises(PoolFull, match="this API key"):
                await there.put(f"e{attempt}", users[17], uses=20_000, lifetime=60)

        await here.put("f0", replace(users[17], maker=""), uses=20_000, lifetime=60)
        await here.put("f1", replace(users[18], maker="key:other"), uses=20_000, lifetime=60)
        await here.put("f2", replace(users[18], maker="key:backend", tenant="else"), uses=1, lifetime=60)

    async def test_strangers_from_one_address_do_not_take_the_places_of_all(
        self, stores: tuple[SecretStore, SecretStore]
    ) -> None:
        """Each is somebody else, and their keys are kept once they are used."""
        here, there = stores
        for number in range(1000):
            await here.put(f"d{number}", stranger(number, "cb007107"), uses=1, lifetime=60)
            if number % 100 == 0:
                used = stranger(number, "cb007107")
                assert await there.spend(f"d{number}", used, SessionId(f"s{number}"), kept=600)
        with pytest.raises(PoolFull, match="this address"):
            await there.put("d1000", stranger(1000, "cb007107"), uses=1, lifetime=60)

        await there.put("e0", stranger(0, "cb007108"), uses=1, lifetime=60)
        await there.put("e1", stranger(1, ""), uses=1, lifetime=60)
        await there.put("e2", replace(RECORD, user="user:ann", address="cb007107"), uses=1, lifetime=60)
        assert await here.look("d1000") is None
        for number in range(0, 1000, 100):
            held = await here.look(f"d{number}")
            assert held == Held(stranger(number, "cb007107"), 0, frozenset({f"s{number}"})), "all are known"

    async def test_nor_do_they_with_few_large_ones(self, stores: tuple[SecretStore, SecretStore]) -> None:
        here, there = stores
        for number in range(4):
            large = stranger(number, "cb007107", f"{number}" * 500_000)
            await here.put(f"d{number}", large, uses=1, lifetime=60)
        with pytest.raises(PoolFull, match="this address"):
            await there.put("d4", stranger(4, "cb007107", "4" * 500_000), uses=1, lifetime=60)

        await there.put("d5", stranger(4, "cb007108", "4" * 500_000), uses=1, lifetime=60)

    async def test_several_uses_are_so_many(self, stores: tuple[SecretStore, SecretStore]) -> None:
        here, there = stores
        await here.put("d1", RECORD, uses=2, lifetime=60)

        spent = [
            await each.spend("d1", RECORD, SessionId(f"s{n}"), kept=600) for n in range(3) for each in stores
        ]
        assert spent == [True, True, False, False, False, False]
        assert await there.look("d1") == Held(RECORD, 0, frozenset({"s0"})), "one session, used twice"

    async def test_what_was_never_kept_can_not_be_used(self, stores: tuple[SecretStore, SecretStore]) -> None:
        assert not await stores[0].spend("d1", RECORD, ONE, kept=600)
        assert await stores[0].look("d1") is None, "and nothing came of trying"

    async def test_of_many_who_use_the_last_one_exactly_one_does(
        self, stores: tuple[SecretStore, SecretStore]
    ) -> None:
        for attempt in range(20):
            digest = f"d{attempt}"
            await stores[0].put(digest, RECORD, uses=1, lifetime=60)
            sessions = [SessionId(f"s{number}") for number in range(10)]
            spent = await asyncio.gather(
                *(stores[n % 2].spend(digest, RECORD, session, kept=60) for n, session in enumerate(sessions))
            )

            assert spent.count(True) == 1
            held = await stores[1].look(digest)
            assert held == Held(RECORD, 0, frozenset({sessions[spent.index(True)]}))


class TestMemory(SecretStoreContract):
    @pytest.fixture
    def stores(self) -> tuple[SecretStore, SecretStore]:
        store = MemorySecretStore(FakeClock())
        return store, store


class TestRedis(SecretStoreContract):
    @pytest.fixture
    def stores(self, redis: Redis) -> tuple[SecretStore, SecretStore]:
        return RedisSecretStore(redis), RedisSecretStore(redis)


async def test_all_that_redis_keeps_of_it_has_an_end(redis: Redis) -> None:
    store = RedisSecretStore(redis)
    await store.put("d1", RECORD, uses=1, lifetime=60)
    ends = [await redis.command("PTTL", f"test:{{s:d1}}:{part}") for part in "ur"]
    assert all(59_000 < end <= 60_000 for end in ends)
    await store.spend("d1", RECORD, ONE, kept=600)

    assert await redis.command("EXISTS", "test:{s:d1}:u") == 0
    assert 599_000 < await redis.command("PTTL", "test:{s:d1}:r") <= 600_000


async def test_a_use_never_shortens_what_another_needs(redis: Redis) -> None:
    store = RedisSecretStore(redis)
    await store.put("d1", RECORD, uses=2, lifetime=60)
    await store.spend("d1", RECORD, ONE, kept=600)
    await store.spend("d1", RECORD, TWO, kept=1)

    assert await redis.command("PTTL", "test:{s:d1}:r") > 500_000


async def test_one_that_was_not_used_in_time_is_gone() -> None:
    clock = FakeClock()
    store = MemorySecretStore(clock)
    await store.put("d1", RECORD, uses=1, lifetime=60)
    clock.advance(60)

    assert not await store.spend("d1", RECORD, ONE, kept=600)
    assert await store.look("d1") is None


async def test_one_that_was_used_is_known_as_long_as_was_said_then() -> None:
    clock = FakeClock()
    store = MemorySecretStore(clock)
    await store.put("d1", RECORD, uses=2, lifetime=60)
    clock.advance(50)
    await store.spend("d1", RECORD, ONE, kept=600)
    clock.advance(599)
    assert await store.look("d1") == Held(RECORD, 0, frozenset({ONE})), "the second use isn't any more"
    assert not await store.spend("d1", RECORD, TWO, kept=600)
    clock.advance(1)

    assert await store.look("d1") is None


async def test_a_node_holds_so_many_and_forgets_the_old_ones_first() -> None:
    clock = FakeClock()
    store = MemorySecretStore(clock, SecretBounds(node=2))
    await store.put("d1", RECORD, uses=1, lifetime=60)
    await store.put("d2", RECORD, uses=1, lifetime=120)
    with pytest.raises(SecretsFull):
        await store.put("d3", RECORD, uses=1, lifetime=60)
    clock.advance(60)
    await store.put("d3", RECORD, uses=1, lifetime=60)

    assert len(store) == 2


async def test_without_redis_nobody_can_say(nobody: Redis) -> None:
    store = RedisSecretStore(nobody)

    for call in (
        store.look("d"),
        store.spend("d", RECORD, ONE, kept=1),
        store.put("d", RECORD, uses=1, lifetime=1),
    ):
        with pytest.raises(StoreUnavailable):
            await call


@pytest.mark.parametrize("seed", range(25))
async def test_redis_gives_as_many_uses_as_memory_whatever_comes_in_which_order(
    redis: Redis, seed: int
) -> None:
    """Two nodes, a few keys, replays among them; time stands still."""
    chance = random.Random(seed)
    nodes, model = [RedisSecretStore(redis), RedisSecretStore(redis)], MemorySecretStore(FakeClock())
    for _ in range(40):
        node, digest = chance.choice(nodes), f"d{chance.randrange(3)}"
        session = SessionId(f"s{chance.randrange(3)}")
        if chance.random() < 0.2 and await model.look(digest) is None:
            uses = chance.randint(1, 4)
            await node.put(digest, RECORD, uses=uses, lifetime=60)
            await model.put(digest, RECORD, uses=uses, lifetime=60)
        else:
            used = await node.spend(digest, RECORD, session, kept=600)
            assert used == await model.spend(digest, RECORD, session, kept=600)
        for each in nodes:
            assert await each.look(digest) == await model.look(digest)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 2), st.integers(1, 3), st.sampled_from([10.0, 60.0])),
        st.tuples(st.just("spend"), st.integers(0, 2), st.integers(0, 3), st.sampled_from([5.0, 100.0])),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 9.0, 10.0, 51.0]), st.none(), st.none()),
    ),
    max_size=30,
)


@given(STEPS)
def test_nobody_ever_gets_more_uses_than_were_made(steps: list[tuple[Any, ...]]) -> None:
    """Replays, in any order and at any time: each is used as often as it was made for, in its time."""

    async def walk() -> None:
        clock = FakeClock()
        store = MemorySecretStore(clock)
        left: dict[str, tuple[int, float]] = {}
        for number, (what, *args) in enumerate(steps):
            match what:
                case "put":
                    digest = f"d{args[0]}-{number}"
                    left = {name: value for name, value in left.items() if name[:2] != digest[:2]}
                    left[digest] = args[1], clock.now + args[2]
                    await store.put(digest, RECORD, uses=args[1], lifetime=args[2])
                case "spend":
                    for digest, (uses, until) in list(left.items()):
                        if digest.startswith(f"d{args[0]}"):
                            may = uses > 0 and clock.now < until
                            assert (
                                await store.spend(digest, RECORD, SessionId(f"s{args[1]}"), kept=args[2])
                                == may
                            )
                            left[digest] = uses - may, until
                case _:
                    clock.advance(args[0])

    asyncio.run(walk())


async def test_a_node_holds_so_many_bytes_of_them() -> None:
    clock = FakeClock()
    store = MemorySecretStore(clock, SecretBounds(node_bytes=1_000_000))
    large = [replace(RECORD, user="anon:1", pins=settled(f"{number}" * 200_000)) for number in range(6)]
    for number, record in enumerate(large[:4]):
        await store.put(f"d{number}", record, uses=1, lifetime=60)
    await store.put("d4", large[0], uses=1, lifetime=60)
    with pytest.raises(SecretsFull):
        await store.put("d5", large[5], uses=1, lifetime=60)
    clock.advance(61)
    await store.put("d6", large[5], uses=1, lifetime=60)
    assert len(store) == 1


async def test_places_of_a_user_are_free_again_once_nobody_can_come_with_the_keys() -> None:
    clock = FakeClock()
    store = MemorySecretStore(clock)
    for number in range(200):
        await store.put(f"d{number}", RECORD, uses=1, lifetime=60)
    for number in range(3):
        assert await store.spend(f"d{number}", RECORD, ONE, kept=600)
    clock.advance(60)
    for number in range(200, 397):
        await store.put(f"d{number}", RECORD, uses=1, lifetime=3600)
    with pytest.raises(PoolFull):
        await store.put("d397", RECORD, uses=1, lifetime=60)
    clock.advance(540)
    await store.put("d397", RECORD, uses=1, lifetime=60)
    clock.advance(3600)
    await store.put("d398", RECORD, uses=1, lifetime=60)
    assert len(store) == 1


async def test_in_redis_places_are_free_again_too(redis: Redis) -> None:
    store = RedisSecretStore(redis)
    for number in range(200):
        await store.put(f"d{number}", LARGE, uses=1, lifetime=60)
    pool = pool_of(redis, "user\0acme\0user:ann")
    assert await redis.command("ZCARD", pool) == 200
    bytes_of = pool[:-1] + "c"
    (each,) = {await redis.command("HGET", bytes_of, f"d{number}") for number in range(200)}
    own, apart, size = each.decode().split(":")
    assert int(await redis.command("HGET", bytes_of, "all")) == 200 * int(own) + int(size)
    assert int(await redis.command("HGET", bytes_of, f"n:{apart}")) == 200
    for number in range(3):
        await redis.command("ZADD", pool, 1, f"d{number}")  # as if its time were over
    await store.put("d200", LARGE, uses=1, lifetime=60)

    assert await redis.command("ZCARD", pool) == 198
    assert await redis.command("HLEN", bytes_of) == 200
    assert int(await redis.command("HGET", bytes_of, "all")) == 198 * int(own) + int(size)
    assert int(await redis.command("HGET", bytes_of, f"n:{apart}")) == 198
    for number in range(201):
        await redis.command("ZADD", pool, "XX", 1, f"d{number}")
    await store.put("d201", RECORD, uses=1, lifetime=60)
    left = await redis.command("HGET", bytes_of, "d201")
    assert await redis.command("HGET", bytes_of, "all") == left.split(b":")[0]


async def test_in_redis_a_place_is_kept_as_long_as_its_key(redis: Redis) -> None:
    store = RedisSecretStore(redis)
    await store.put("d1", RECORD, uses=2, lifetime=60)
    pool = pool_of(redis, "user\0acme\0user:ann")
    begun = float(await redis.command("ZSCORE", pool, "d1"))
    await store.spend("d1", RECORD, ONE, kept=600)
    spent = float(await redis.command("ZSCORE", pool, "d1"))
    await store.spend("d1", RECORD, TWO, kept=1)

    assert spent - begun >= 540_000
    assert float(await redis.command("ZSCORE", pool, "d1")) == spent
    for key in (pool, pool[:-1] + "c"):
        assert await redis.command("PTTL", key) > 600_000


async def test_in_redis_a_place_that_came_to_nothing_is_given_back(redis: Redis) -> None:
    store = RedisSecretStore(redis)
    large = replace(RECORD, maker="key:backend")
    for number in range(16):
        await store.put(f"d{number}", replace(large, user=f"user:{number}"), uses=20_000, lifetime=60)
    with pytest.raises(PoolFull):
        await store.put("d16", large, uses=20_000, lifetime=60)

    assert await redis.command("EXISTS", pool_of(redis, "user\0acme\0user:ann")) == 0


async def test_in_redis_a_place_of_an_address_that_came_to_nothing_is_given_back(redis: Redis) -> None:
    store = RedisSecretStore(redis, SecretBounds(strangers=1))
    await store.put("d1", stranger(1, "cb007107"), uses=1, lifetime=60)
    with pytest.raises(PoolFull, match="strangers"):
        await store.put("d2", stranger(2, "cb007108"), uses=1, lifetime=60)

    assert await redis.command("EXISTS", pool_of(redis, "address cb007108")) == 0
    assert await redis.command("ZRANGE", pool_of(redis, "address cb007107"), 0, -1) == [b"d1"]


async def test_in_redis_bytes_whose_keys_are_gone_count_no_more(redis: Redis) -> None:
    """As where it had to throw something away."""
    store = RedisSecretStore(redis)
    await store.put("d1", RECORD, uses=20_000, lifetime=60)
    await redis.command("DEL", pool_of(redis, "user\0acme\0user:ann"))

    await store.put("d2", RECORD, uses=20_000, lifetime=60)


async def test_in_redis_a_place_whose_bytes_are_gone_is_given_back_and_blocks_nobody(redis: Redis) -> None:
    store = RedisSecretStore(redis)
    pool = pool_of(redis, "user\0acme\0user:ann")
    await store.put("d1", RECORD, uses=1, lifetime=60)
    await store.put("d2", RECORD, uses=1, lifetime=60)
    await redis.command("DEL", pool[:-1] + "c")
    await redis.command("ZADD", pool, 1, "d1")  # as if its time were over

    await store.put("d3", RECORD, uses=1, lifetime=60)
    await store.put("d4", RECORD, uses=1, lifetime=60)
    assert await redis.command("ZRANGE", pool, 0, -1) == [b"d2", b"d3", b"d4"]


async def test_in_redis_what_is_settled_lasts_as_long_as_the_last_of_its_keys(redis: Redis) -> None:
    store = RedisSecretStore(redis)
    await store.put("d1", LARGE, uses=1, lifetime=60)
    (key,) = [each for each in await redis.command("KEYS", "*") if b"{sa:" in each]
    await store.spend("d1", LARGE, ONE, kept=600)
    await store.put("d2", LARGE, uses=1, lifetime=60)
    assert await redis.command("PTTL", key) > 600_000


async def test_in_redis_a_key_whose_settled_part_is_gone_is_good_for_nothing_rather_than_for_more(
    redis: Redis,
) -> None:
    """As where it had to throw something away. Another that settles the same brings it back."""
    store = RedisSecretStore(redis)
    await store.put("d1", LARGE, uses=1, lifetime=60)
    (key,) = [each for each in await redis.command("KEYS", "*") if b"{sa:" in each]
    await redis.command("DEL", key)
    assert await store.look("d1") is None

    await store.put("d2", LARGE, uses=1, lifetime=60)
    assert await store.look("d1") == Held(LARGE, 1, frozenset())


async def test_in_redis_a_key_of_an_earlier_release_is_good_still(redis: Redis) -> None:
    """It has everything in one place."""
    await redis.command("HSET", "test:{s:d1}:u", "n", 1)
    await redis.command("HSET", "test:{s:d1}:r", "record", msgspec.json.encode(RECORD))
    store = RedisSecretStore(redis)
    assert await store.look("d1") == Held(RECORD, 1, frozenset())
    assert await store.spend("d1", RECORD, ONE, kept=60)
    assert await store.look("d1") == Held(RECORD, 0, frozenset({ONE}))


@pytest.mark.parametrize("number", range(4))
async def test_bounds_can_be_set(number: int) -> None:
    which, strangers, size = (
        (RECORD, 1, 3000),
        (replace(RECORD, user="anon:1"), 1, 3000),
        (replace(RECORD, user="anon:1", tenant=STRANGERS), 1, 3000),
        (stranger(1, "cb007107"), 9, 9000),
    )[number]
    for bounds in (
        SecretBounds(user=1, key=1, address=1, strangers=strangers),
        SecretBounds(user_bytes=3000, key_bytes=3000, address_bytes=3000, strangers_bytes=size),
    ):
        store = MemorySecretStore(FakeClock(), bounds)
        await store.put("d1", which, uses=1, lifetime=60)
        with pytest.raises(PoolFull):
            await store.put("d2", replace(which, pins=settled("x" * 1000)), uses=1, lifetime=60)


def pool_of(redis: Redis, name: str) -> str:
    return f"test:{{sp:{hashlib.sha256(name.encode()).hexdigest()[:32]}}}:m"
