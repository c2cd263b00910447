"""A tenant's plan, whatever its users' keys say, is the one that each policy goes by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.server.realtime.client import Client, Frame
from tests.server.realtime.serving import Served, serving
from tests.server.realtime.test_firewall import ATTACK
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.auth.key_store import new_key
from unbroken.server.quota.base import Scope

POLICIES: dict[str, Any] = {
    "quotas": {"default": {"requests_per_day": 100}, "strict": {"requests_per_day": 2}},
    "firewall": "default=off,strict=on",
    "cache": "default=off,strict=on",
    "cache_pace": 0,
    "cache_sample": 0,
    "leaks": "on",
    "leak_actions": ("email=ignore", "strict.email=redact"),
}


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Served[ScriptedAgent]]:
    """The plan ``strict`` is acme's; no key says so."""
    plans = ("acme=strict",)
    async with serving(ScriptedAgent(), key_store="memory", tenant_plans=plans, **POLICIES) as door:
        yield door


async def client(door: Served[ScriptedAgent], tenant: str, plan: str = "default") -> Client:
    assert door.app.auth.keyring is not None
    key, record = new_key("someone", tenant=tenant, plan=plan, now=1.0)
    await door.app.auth.keyring.store.add(record)
    return await door.client(key)


async def answered(client: Client, text: str) -> Frame:
    await client.ask(text)
    return await client.done()


async def test_quotas_are_those_of_the_tenant_s_plan(door: Served[ScriptedAgent]) -> None:
    acme, other = await client(door, "acme", "generous"), await client(door, "other")
    for one in (acme, other):
        for number in range(2):
            assert (await answered(one, f"/say {number}"))["status"] == "completed"
    await acme.ask("/say more")
    assert (await acme.error())["code"] == "quota_exceeded"
    assert (await answered(other, "/say more"))["status"] == "completed"

    assert door.app.gate is not None
    await door.app.gate.settled()
    counted = [await door.app.gate.ledger.look(tenant, [Scope("t")]) for tenant in ("acme", "other")]
    assert [rows[0]["rd"] for rows in counted] == [2, 3]


async def test_quotas_hold_or_not_by_the_tenant_s_plan() -> None:
    """Of a plan for which they are off nothing is counted, though there are limits for it."""
    quotas = {"default": {"requests_per_day": 1}}
    settings: dict[str, Any] = {"quotas": quotas, "quota_mode": "default=on,free=shadow,staff=off"}
    plans = ("ours=staff", "guests=free")
    async with serving(ScriptedAgent(), key_store="memory", tenant_plans=plans, **settings) as door:
        counted = []
        for tenant in ("ours", "guests", "other"):
            one = await client(door, tenant)
            await answered(one, "/say 1")
            await one.ask("/say 2")
            if tenant == "other":
                assert (await one.error())["code"] == "quota_exceeded"
            else:
                assert (await one.done())["status"] == "completed"
            assert door.app.gate is not None
            await door.app.gate.settled()
            counted.append((await door.app.gate.ledger.look(tenant, [Scope("t")]))[0]["rd"])

    assert counted == [0, 2, 1]


async def test_the_firewall_is_that_of_the_tenant_s_plan(door: Served[ScriptedAgent]) -> None:
    acme, other = await client(door, "acme"), await client(door, "other")
    await acme.say(ATTACK)
    assert (await acme.error())["code"] == "content_filter"
    assert (await answered(other, ATTACK))["status"] == "completed"


@pytest.mark.parametrize(("tenant", "calls"), [("acme", 1), ("other", 2)])
async def test_the_cache_is_that_of_the_tenant_s_plan(
    door: Served[ScriptedAgent], tenant: str, calls: int
) -> None:
    assert door.app.auth.keyring is not None
    key, record = new_key("someone", tenant=tenant, now=1.0)
    await door.app.auth.keyring.store.add(record)
    for _ in range(2):
        await answered(await door.client(key), "Why is the sky blue?")

    assert door.agent.calls == calls


@pytest.mark.parametrize(("tenant", "is_said"), [("acme", False), ("other", True)])
async def test_the_leak_filter_is_that_of_the_tenant_s_plan(
    door: Served[ScriptedAgent], tenant: str, is_said: bool
) -> None:
    one = await client(door, tenant)
    await answered(one, "/say Write to ada@example.com today.")

    assert ("ada@example.com" in one.text()) is is_said
