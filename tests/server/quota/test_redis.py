from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.clock import FakeClock
from tests.fakes.valkey import Server
from tests.server.quota.ledger_contract import SCOPES, TENANT, LedgerContract, record
from unbroken.server.quota.base import Amount, Ledger, record_fields
from unbroken.server.quota.redis import RedisLedger
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.errors import StoreBusy, StoreUnavailable


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest_asyncio.fixture
async def clients(valkey: Server) -> AsyncIterator[list[Client]]:
    clients = [connect(Address(valkey.url), name="test") for _ in range(4)]
    await clients[0].flushall()
    yield clients
    for client in clients:
        await client.aclose()


class TestRedisLedger(LedgerContract):
    @pytest.fixture
    def nodes(self, clients: list[Client], clock: FakeClock) -> list[Ledger]:
        return [RedisLedger(client, "test", now=clock.monotonic) for client in clients]


async def test_all_keys_of_a_tenant_are_in_one_slot_and_lapse(clients: list[Client]) -> None:
    ledger = RedisLedger(clients[0], "test")  # by the server's own clock
    for turn in ("a", "b"):
        await ledger.reserve("acme", turn, SCOPES, {"u": {"rm": 5}}, Amount(10, 10), lifetime=300)
    await ledger.settle("acme", "a", SCOPES, Amount(5, 5), record("a", 5))
    keys = [key async for key in clients[0].scan_iter("*")]

    assert len(keys) == 8  # tenant, user, two turns, what is open, records, whose these are, which are hers
    assert len({re.fullmatch(rb"test:\{(q:[0-9a-f]{32})\}:.+", key)[1] for key in keys}) == 1  # type: ignore[index]
    assert all([await clients[0].ttl(key) > 0 for key in keys])


async def test_a_server_that_has_forgotten_everything_counts_from_then_on(clients: list[Client]) -> None:
    """What is still running is settled in full, once."""
    clock = FakeClock()
    ledger = RedisLedger(clients[0], "test", now=clock.monotonic)
    await ledger.reserve("acme", "a", SCOPES, {}, Amount(100, 10), lifetime=300)
    await clients[0].flushall()
    await ledger.hold("acme", "a", SCOPES, {}, Amount(120, 12), lifetime=300)
    assert await ledger.settle("acme", "a", SCOPES, Amount(110, 11), record("a", 110))
    assert not await ledger.settle("acme", "a", SCOPES, Amount(110, 11), record("a", 110))

    looked = (await ledger.look("acme", SCOPES))[1]
    assert looked == {"rm": 0, "rd": 0, "tm": 110, "td": 110, "cd": 11, "turns": 0}


@pytest.mark.parametrize("end", ["settle", "release", "lapse"])
async def test_counts_that_were_lost_are_never_less_than_nothing(clients: list[Client], end: str) -> None:
    """A server that is short of memory may have been told to throw away some keys, and not others."""
    clock = FakeClock()
    ledger = RedisLedger(clients[0], "test", now=clock.monotonic)
    await ledger.reserve("acme", "a", SCOPES, {}, Amount(100, 10), lifetime=300)
    [account] = [key async for key in clients[0].scan_iter("*:u:alice")]
    await clients[0].delete(account)
    if end == "settle":
        await ledger.settle("acme", "a", SCOPES, Amount(), None)
    elif end == "release":
        await ledger.release("acme", "a")
    clock.advance(301)

    assert set((await ledger.look("acme", SCOPES))[1].values()) == {0}


async def test_so_many_lapse_with_one_decision_and_the_rest_with_the_next(clients: list[Client]) -> None:
    """A node has died that had very many: nobody else has to wait for the server meanwhile."""
    clock = FakeClock()
    ledger = RedisLedger(clients[0], "test", now=clock.monotonic)
    await asyncio.gather(
        *(ledger.reserve("acme", str(n), SCOPES, {}, Amount(1), lifetime=300) for n in range(450))
    )
    clock.advance(301)

    assert [(await ledger.look("acme", SCOPES))[0]["turns"] for _ in range(4)] == [250, 50, 0, 0]


async def test_clocks_of_nodes_do_not_matter(clients: list[Client]) -> None:
    """The server's does: nodes never say what time it is."""
    nodes = [RedisLedger(client, "test") for client in clients]
    decisions = await asyncio.gather(
        *(
            nodes[n % 4].reserve("acme", str(n), SCOPES, {"u": {"rm": 9}}, Amount(), lifetime=300)
            for n in range(40)
        )
    )

    assert sum(decision.denied is None for decision in decisions) == 9
    assert all(60 <= standing.reset <= 65 for each in decisions for standing in each.standings)


async def test_names_that_no_encoding_has_are_names(clients: list[Client]) -> None:
    ledger = RedisLedger(clients[0], "test")
    await ledger.settle("acme\ud800", "a", SCOPES, Amount(5), record("a", 5, "alice\ud800"))

    assert [each.user for each in await ledger.records("acme\ud800", 5)] == ["alice\ud800"]
    assert [each.user for each in await ledger.records("acme\ud800", 5, "alice\ud800")] == ["alice\ud800"]


async def test_whose_records_are_kept_is_as_bounded_as_these_are(
    clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has none any more is forgotten, and a user's that are gone aren't shown."""
    monkeypatch.setattr("unbroken.server.quota.redis.RECORDS", 3)
    ledger = RedisLedger(clients[0], "test")
    for number in range(250):
        user = f"user{number % 5}"
        await ledger.settle("acme", f"{number}", (TENANT,), Amount(5), record(f"{number}", 5, user))
    keys = [key async for key in clients[0].scan_iter("*:l*")]

    assert len(keys) == 1 + 1 + 3  # the records, whose these are, and which are whose
    assert len(await ledger.records("acme", 9, "user4")) in range(1, 10)
    assert await ledger.records("acme", 9, "user1") == []
    [stream] = [key async for key in clients[0].scan_iter("*:l")]
    await clients[0].xtrim(stream, maxlen=1, approximate=False)
    assert [each.response_id for each in await ledger.records("acme", 9, "user4")] == ["249"]
    assert await ledger.records("acme", 9, "user3") == []


async def test_records_are_kept_for_a_week(clients: list[Client]) -> None:
    """Also of a tenant that is never idle for so long."""
    ledger = RedisLedger(clients[0], "test")
    seconds, _ = await clients[0].time()
    stream = ledger._base("acme") + "l"
    for turn, age in (("old", 7 * 86_400 + 60), ("recent", 7 * 86_400 - 60)):
        data = json.dumps(record_fields(record(turn, 5)))
        await clients[0].xadd(stream, {"r": data}, id=f"{(seconds - age) * 1000}-0")
    await ledger.settle("acme", "a", SCOPES, Amount(5), record("a", 5))

    assert [each.response_id for each in await ledger.records("acme", 9)] == ["a", "recent"]


async def test_records_of_other_releases_are_read(clients: list[Client]) -> None:
    """Nodes of two releases may share a server: what one doesn't know yet, it leaves out."""
    ledger = RedisLedger(clients[0], "test")
    await ledger.settle("acme", "a", SCOPES, Amount(5), record("a", 5))
    [stream] = [key async for key in clients[0].scan_iter("*:l")]
    entries: Any = await clients[0].xrange(stream)
    newer = json.loads(entries[0][1][b"r"]) | {"region": "mars"}
    await clients[0].xadd(stream, {"r": json.dumps(newer)})

    assert [each.response_id for each in await ledger.records("acme", 5)] == ["a", "a"]


class HeldClient:
    """A client whose server answers when it *may_answer*, whatever it is asked."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.calls = 0

    async def evalsha(self, *_: Any) -> list[Any]:
        self.calls += 1
        await self.may_answer.wait()
        return [b"granted", 0, 0]


def held_ledger(client: Any, **patience: float) -> RedisLedger:
    return RedisLedger(client, "test", **patience)


async def test_a_node_that_asks_too_much_at_once_is_busy_and_its_server_is_there() -> None:
    """Who waits behind others is told so: that is no outage, and no reason to count alone."""
    client = HeldClient()
    ledger = held_ledger(client, patience=60.0, turn_patience=0.01)
    asked = [asyncio.create_task(ledger.release("acme", str(n))) for n in range(9)]
    for task in asked[4:]:
        with pytest.raises(StoreBusy):
            await task
    client.may_answer.set()
    await asyncio.gather(*asked[:4])

    assert client.calls == 4, "the others were not made"


async def test_who_has_waited_for_long_is_answered_all_the_same() -> None:
    """The time for an answer begins with one's turn."""
    client = HeldClient()
    ledger = held_ledger(client, patience=0.05, turn_patience=60.0)
    first = [asyncio.create_task(ledger.release("acme", str(n))) for n in range(4)]
    last = asyncio.create_task(ledger.release("acme", "last"))
    for task in first:
        with pytest.raises(StoreUnavailable) as caught:
            await task
        assert not isinstance(caught.value, StoreBusy)
    client.may_answer.set()
    await last


async def test_a_server_that_is_gone_is_told_as_such(valkey: Server) -> None:
    client = connect(Address(valkey.url.replace(str(valkey.port), "1")), name="test")
    ledger = RedisLedger(client, "test", patience=1.0)
    with pytest.raises(StoreUnavailable):
        await ledger.look("acme", SCOPES)
    with pytest.raises(StoreUnavailable):
        await ledger.records("acme", 1)
    await client.aclose()
