"""One user, connected by keys of several plans: each policy goes by the plan of the connection that asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Client
from tests.server.realtime.desk import at_desk, outputs_of
from tests.server.realtime.serving import Served, serving
from tests.server.realtime.test_firewall import ATTACK
from unbroken.server.agents.base import FunctionCallPiece
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.auth.key_store import new_key
from unbroken.server.quota.base import Scope

POLICIES: dict[str, Any] = {
    "firewall": "default=on,lax=off",
    "cache": "default=on,lax=off",
    "cache_pace": 0,
    "cache_sample": 0,
    "leaks": "default=on,lax=off",
    "leak_actions": ("email=redact",),
    "quotas": {"default": {"requests_per_day": 100, "tokens_per_day": 100_000}},
    "quota_mode": "default=on,lax=off",
}
WRITE = "/say Write to ada@example.com today."


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Served[ScriptedAgent]]:
    async with serving(ScriptedAgent(), key_store="memory", **POLICIES) as door:
        yield door


async def key_of(door: Served[Any], plan: str) -> str:
    """Return a key of alice's."""
    assert door.app.auth.keyring is not None
    key, record = new_key(plan, user="alice", plan=plan, now=1.0)
    await door.app.auth.keyring.store.add(record)
    return key


async def both(door: Served[Any]) -> tuple[Client, Client]:
    """Return alice's connections by both plans, the lax one opened last."""
    return await door.client(await key_of(door, "default")), await door.client(await key_of(door, "lax"))


async def test_the_firewall_is_that_of_the_connection(door: Served[ScriptedAgent]) -> None:
    strict, lax = await both(door)
    await strict.say(ATTACK)
    assert (await strict.error())["code"] == "content_filter"
    again = await door.client(await key_of(door, "default"))
    await again.say(ATTACK)
    assert (await again.error())["code"] == "content_filter"
    await lax.ask(ATTACK)
    assert (await lax.done())["status"] == "completed", "nor does the strict one come over the lax one"


async def test_a_tool_s_result_is_looked_at_by_the_plan_that_the_response_was_asked_by() -> None:
    policies = {"firewall": "default=on,lax=off", "tool_result_bytes": 4096}
    async with at_desk(ManualAgent(), key_store="memory", **policies) as (_, door):
        withheld = []
        for number, one in enumerate(await both(door)):
            await door.client(await key_of(door, "default" if number else "lax"))
            await one.ask("How is the weather?")
            turn = await door.agent.turn(2 * number)
            turn.say(FunctionCallPiece(0, json.dumps({"city": ATTACK}), name="weather"))
            turn.end()
            (await door.agent.turn(2 * number + 1)).end()
            (call,) = outputs_of(await one.done(), "mcp_call")
            withheld.append(call.get("error") is not None)

    assert withheld == [True, False]


async def test_the_leak_filter_is_that_of_the_connection(door: Served[ScriptedAgent]) -> None:
    strict, lax = await both(door)
    await strict.ask(WRITE)
    await strict.done()
    assert "ada@example.com" not in strict.text()
    await door.client(await key_of(door, "default"))
    await lax.ask(WRITE)
    await lax.done()
    assert "ada@example.com" in lax.text()


async def test_the_cache_is_that_of_the_connection(door: Served[ScriptedAgent]) -> None:
    first, lax = await both(door)
    second = await door.client(await key_of(door, "default"))
    other_lax = await door.client(await key_of(door, "lax"))
    calls = []
    for one in (first, second, lax, other_lax):
        await one.ask("Why is the sky blue?")
        await one.done()
        calls.append(door.agent.calls)

    assert calls == [1, 1, 2, 3]


async def test_quotas_are_those_of_the_connection(door: Served[ScriptedAgent]) -> None:
    used = 0
    strict = await door.client(await key_of(door, "default"))
    for _ in range(2):
        await strict.ask("/say one two three")
        used += (await strict.done())["usage"]["total_tokens"]
        lax = await door.client(await key_of(door, "lax"))
        await lax.ask("/say one two three")
        await lax.done()
    assert door.app.gate is not None
    await door.app.gate.settled()
    counted = (await door.app.gate.ledger.look("default", [Scope("t")]))[0]

    assert (counted["rd"], counted["td"]) == (2, used)


async def test_an_answer_whose_budget_runs_out_ends_though_a_connection_without_one_is_there() -> None:
    quotas = {"default": {"tokens_per_day": 900}}
    async with serving(
        ManualAgent(), key_store="memory", quotas=quotas, quota_mode="default=on,lax=off", firewall="off"
    ) as door:
        strict, reason = await door.client(await key_of(door, "default")), None
        for number in range(2):
            await strict.ask("Hello")
            turn = await door.agent.turn(number)
            for _ in range(100 * number):
                turn.say("word " * 20)
            turn.end()
            reason = (await strict.done()).get("unbroken", {}).get("reason")
            await door.client(await key_of(door, "lax"))

        assert reason == "quota_exceeded"


@pytest.mark.parametrize("concurrency", ["queue", "merge"])
async def test_in_one_session_each_answer_goes_by_the_plan_that_it_was_asked_by(concurrency: str) -> None:
    """Also one that begins when nobody is there any more who asked for it."""
    async with serving(ManualAgent(), key_store="memory", concurrency=concurrency, **POLICIES) as door:
        strict = await door.client(await key_of(door, "default"))
        lax = await door.tab(strict)
        lax.key = await key_of(door, "lax")
        await lax.resume()
        await lax.ask("Hello")
        await door.agent.turn()
        for one in (strict, lax):
            await one.send({"type": "response.create"})
            await one.sync()
        await strict.drop()
        for number in range(3):
            turn = await door.agent.turn(number)
            turn.say("Write to ada@example.com today.")
            turn.end()
            await lax.done()

        said = [text for _, text in lax.answers()]
        assert ["ada@example.com" in text for text in said] == [True, False, True]
