"""Quotas that several servers share, over real doors and one Valkey; and servers that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.deploy.balanced import Nodes
from tests.fakes.valkey import Server
from tests.server.realtime.client import WAIT, Client, Frame
from tests.server.realtime.serving import Served, eventually, serving
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.quota.base import Scope, UsageRecord
from unbroken.server.quota.gate import Gate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

Doors = list[Served[ScriptedAgent]]

NODES = 4
ASKERS = 200
TENANT = Scope("t")


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@contextlib.asynccontextmanager
async def opened(valkey: Server, quota: dict[str, Any], **settings: Any) -> AsyncIterator[Doors]:
    """Start servers that share their sessions and their quotas."""
    valkey.command("FLUSHALL")
    chosen = {
        "redis_url": valkey.url,
        "secret": "x" * 32,
        "quotas": {"default": quota},
        "connections_per_principal": 1000,
        "connections_per_address": 1000,
        "firewall": "off",  # which on a busy machine has no time for 200 in one loop, and says so
        **settings,
    }
    async with contextlib.AsyncExitStack() as stack:
        doors = [await stack.enter_async_context(serving(ScriptedAgent(), **chosen)) for _ in range(NODES)]
        try:
            yield doors
        finally:
            for door in doors:  # whose clients may have gone to others
                await door.hang_up()
            for door in doors:  # before the first is closed, which looks for what is left
                await door.idle()


def gate(door: Served[ScriptedAgent]) -> Gate:
    assert door.app.gate is not None
    return door.app.gate


async def counted(doors: Doors) -> tuple[dict[str, int], list[UsageRecord]]:
    """Return what the tenant has used, and the records of that, once everything is settled."""
    for door in doors:
        await gate(door).settled()
    ledger = gate(doors[0]).ledger
    return dict((await ledger.look("default", [TENANT]))[0]), await ledger.records("default", 10_000)


async def asked(client: Client) -> str | None:
    """Ask, and return why that was refused; None: it wasn't."""
    await client.send({"type": "response.create"})
    frame = await client.until("response.created", "error")
    return frame["error"]["code"] if frame["type"] == "error" else None


@pytest_asyncio.fixture
async def doors(valkey: Server) -> AsyncIterator[Doors]:
    limits = {"tenant_turns": 37, "requests_per_day": 20 * 37 + 19}
    async with opened(valkey, limits) as doors:
        yield doors


async def test_of_200_at_once_on_four_nodes_exactly_the_limit_is_let_in(doors: Doors) -> None:
    """F1, F8: twenty times in a row, turns at once; then of a day's requests, what is left of them."""
    clients = [await doors[n % NODES].client() for n in range(ASKERS)]
    for client in clients:
        await client.say("/stall after 1")
    for _ in range(20):
        refusals = await asyncio.gather(*map(asked, clients))
        assert [code for code in refusals if code] == ["too_many_responses"] * (ASKERS - 37)
        running = [client for client, code in zip(clients, refusals, strict=True) if code is None]
        await asyncio.gather(*(client.cancel() for client in running))
        await asyncio.gather(*(client.done() for client in running))
        used, _ = await counted(doors)
        assert used["turns"] == 0
    refusals = await asyncio.gather(*map(asked, clients))
    assert refusals.count(None) == 19
    assert refusals.count("quota_exceeded") + refusals.count("too_many_responses") == ASKERS - 19
    for client in [client for client, code in zip(clients, refusals, strict=True) if code is None]:
        await client.cancel()
        await client.done()

    used, records = await counted(doors)
    assert used["rd"] == len(records) == 20 * 37 + 19


async def test_records_sum_to_counters_and_to_the_log(valkey: Server) -> None:
    """F2, F6, F7: answers that end in all ways, on four nodes; some were given before, some go to two."""
    limits = {"tenant_tokens_per_day": 10**9, "cost_per_day": "1000"}
    prices = {"scripted": {"input": "1", "output": "2.5", "cached": "0.1"}}
    settings = {"prices": prices, "cache": "on", "cache_pace": 0, "cache_sample": 0, "cache_scope": "tenant"}
    script = random.Random(5)
    questions = ("Why?", "How many?", "/tokens 60 1", "/fail after 3", "/crash", "/length 4", "/empty")
    async with opened(valkey, limits, **settings) as doors:
        clients = [await doors[n % NODES].client(f"user {n % 5}") for n in range(20)]
        dones: list[Frame] = []

        async def converse(client: Client) -> None:
            for _ in range(6):
                await client.say(script.choice(questions))
                request = {"type": "response.create", "event_id": f"ask{script.random()}"}
                await client.send(request)
                await client.until("response.created")
                if script.random() < 0.3:
                    await client.cancel()
                if script.random() < 0.3:
                    await client.drop()
                    client.port = script.choice(doors).port
                    await client.resume()
                    await client.send(request)  # as clients do that don't know
                dones.append(await client.done())

        await asyncio.gather(*map(converse, clients))
        for door in doors:
            client = await door.client("late")
            await client.ask("Is that all?")
            dones.append(await client.done())
        used, records = await counted(doors)

    by_id = {record.response_id: record for record in records}
    assert len(by_id) == len(records) == used["rd"] == 120 + NODES
    assert by_id.keys() == {done["id"] for done in dones}
    for done in dones:
        record = by_id[done["id"]]
        assert record.status == done["status"]
        tier = done.get("unbroken", {}).get("cache", {}).get("tier", "")
        if "usage" in done:
            told = done["usage"]
            assert (record.input_tokens, record.output_tokens) == (
                told["input_tokens"],
                told["output_tokens"],
            )
            assert not record.is_estimate
            # Of one that was cancelled, its end says nothing of what it took: the record does.
            assert record.reused == tier
    assert {record.status for record in records} == {"completed", "cancelled", "failed", "incomplete"}
    assert sum(record.reused == "exact" for record in records) >= NODES - 1
    assert all(record.tokens == record.cost == 0 for record in records if record.reused)
    assert used["td"] == sum(record.tokens for record in records) > 0
    assert used["cd"] == sum(record.cost for record in records) > 0
    assert used["turns"] == 0


async def test_nobody_s_turn_is_lost_to_an_outage(tmp_path: Path) -> None:
    """Redis goes and comes back, empty: what was used meanwhile counts, and each record is there once."""
    with Server(tmp_path / "data").running() as valkey:
        async with opened(valkey, {"requests_per_day": 1000}, store_patience=0) as doors:
            clients = [await door.client() for door in doors]
            for client in clients:
                await client.ask("before")
                await client.done()
            await counted(doors)
            valkey.kill()
            for client in clients:
                await client.ask("meanwhile")
                await client.done()
            valkey.start()
            ledgers: list[Any] = [gate(door).ledger for door in doors]
            await eventually(lambda: not any(ledger.unsettled for ledger in ledgers))
            used, records = await counted(doors)

    assert used["rd"] == len(records) == len({record.response_id for record in records}) == NODES
    assert used["td"] == sum(record.tokens for record in records)


async def test_while_nobody_can_be_asked_a_strict_server_refuses(tmp_path: Path) -> None:
    with Server(tmp_path / "data").running() as valkey:
        async with opened(valkey, {"turns": 5}, store_patience=0, quota_strict=True) as doors:
            client = await doors[0].client()
            await client.ask("before")
            await client.done()
            valkey.kill()
            await client.ask("meanwhile")
            assert (await client.error())["code"] == "store_unavailable"
            valkey.start()


QUOTA = {"default": {"requests_per_day": 10, "tokens_per_day": 100_000, "turns": 1}}


@pytest.fixture
def nodes(valkey: Server, tmp_path: Path) -> Iterator[Nodes]:
    """Two processes: they can be killed."""
    valkey.command("FLUSHALL")
    nodes = Nodes(
        tmp_path,
        valkey.url,
        2,
        UNBROKEN_QUOTAS=json.dumps(QUOTA),
        UNBROKEN_TURN_ATTEMPTS="2",
        UNBROKEN_MODEL="scripted",
    )
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


async def test_a_turn_whose_node_is_killed_is_paid_once(nodes: Nodes) -> None:
    """F6, F9, F10: its first attempt costs nothing, and its second is no request more."""
    client = Client(nodes.ports[0], "alice", None)
    await client.connect()
    await client.ask("/tokens 300 10")
    await client.until("response.output_text.delta")
    nodes.kill(0)
    client.port = nodes.ports[1]
    while True:
        with contextlib.suppress(OSError, AssertionError):
            await client.resume()
            break
    while (done := await client.done())["status"] != "completed":
        assert done["unbroken"]["status"] == "interrupted"
    async with asyncio.timeout(WAIT):
        while (report := await usage(nodes.ports[1]))["usage"]["turns"]["used"]:
            pass

    told = done["usage"]["total_tokens"]
    assert told >= 300
    assert [(each["status"], each["input_tokens"] + each["output_tokens"]) for each in report["data"]] == [
        ("completed", told),
        ("interrupted", 0),
    ]
    assert report["usage"]["requests_per_day"]["used"] == 1
    assert report["usage"]["tokens_per_day"]["used"] == told
    await client.ask("hello")
    assert (await client.done())["status"] == "completed"
    await client.close()


async def usage(port: int) -> Any:
    """Return what the official client is told of what alice has used."""
    async with AsyncOpenAI(api_key="alice", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0) as openai:
        return await openai.get("/usage", cast_to=object, options={})
