"""What is reserved before a response is written, and what becomes of that where nobody knows if it was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.server.quota.gating import ALICE, RESPONSE, World
from unbroken.server.quota.base import Scope
from unbroken.sessions.entries import CreateResponse
from unbroken.sessions.errors import Refusal, StoreUnavailable
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.items import ResponseRequest
from unbroken.sessions.responder import Working


async def test_who_is_cut_off_while_a_budget_is_reserved_has_none() -> None:
    world = World()
    waits, goes_on = asyncio.Event(), asyncio.Event()
    reserve = world.ledger.reserve

    async def late(*args: Any, **kwargs: Any) -> Any:
        decision = await reserve(*args, **kwargs)
        waits.set()
        await goes_on.wait()
        return decision

    world.ledger.reserve = late  # type: ignore[method-assign]
    task = asyncio.create_task(world.reserve())
    await waits.wait()
    assert (await world.used())["turns"] == 1
    task.cancel()
    await asyncio.wait({task})
    await world.gate.settled()

    assert set((await world.used()).values()) == {0}


async def test_where_nobody_can_be_asked_a_strict_gate_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    async def gone(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("redis://user:password@host")

    monkeypatch.setattr(world.ledger, "reserve", gone)
    with pytest.raises(Refusal, match="Send this again") as refused:
        await world.reserve()
    assert refused.value.code == "store_unavailable"
    assert "password" not in refused.value.message
    await world.gate.settled()


async def test_what_nobody_knows_was_written_is_held_for_a_moment() -> None:
    """Its client was cut off meanwhile: if it was, its run holds it; else it is not in anybody's way."""
    world = World(turns=1)
    await world.reserve()
    asker = world.gate.asker(ALICE, None)
    assert asker is not None
    asker.loosen(world.session, CreateResponse(RESPONSE, ResponseRequest()))
    await world.gate.settled()
    assert (await world.used())["turns"] == 1
    world.clock.advance(61)
    assert (await world.used())["turns"] == 0


async def test_what_waits_and_was_written_while_its_connection_broke_is_held_like_all_others() -> None:
    """Nobody knew at first whether it was: it was held for a minute only."""
    world = World(turns=2)
    await world.reserve()
    answer = world.metered([Working()] * 20)
    await anext(answer)
    late = CreateResponse(ResponseId("resp_2"), ResponseRequest())
    await world.reserve(response_id=late.response_id)
    world.waiting = [late.response_id]
    asker = world.gate.asker(ALICE, None)
    assert asker is not None
    asker.loosen(world.session, late)
    for _ in range(12):
        world.clock.advance(10)
        await anext(answer)
        await world.gate.settled()

    assert (await world.ledger.look(ALICE.tenant, [Scope("u", ALICE.id)]))[0]["turns"] == 2
