"""How many conversations somebody may have, and how fast they are begun."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import APIStatusError, PermissionDeniedError, RateLimitError

from tests.server.conftest import Serve
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.sessions.backends.memory_index import MemoryIndex

CODE = "too_many_stored_sessions"


@pytest.fixture
async def bounded(serve: Serve) -> Served[ScriptedAgent]:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), sessions_per_user=3)
    return served


async def listed(server: Served[ScriptedAgent], count: int) -> None:
    """Return when so many sessions are listed: the index is written beside."""
    index = server.app._stored.index
    assert isinstance(index, MemoryIndex)
    await eventually(lambda: len(index) == count)


async def test_as_many_as_may_be_through_whatever_door(bounded: Served[ScriptedAgent]) -> None:
    client: Any = await bounded.openai()
    made = await client.conversations.create()
    await client.responses.create(model="default", input="hi")
    realtime = await bounded.client()
    await realtime.ask("hi")
    await realtime.done()
    await listed(bounded, 3)

    for asked in (
        client.conversations.create(metadata={"a": "b"}),
        client.conversations.create(extra_headers={"Idempotency-Key": "one"}),
        client.responses.create(model="default", input="hi"),
    ):
        with pytest.raises(PermissionDeniedError) as refused:
            await asked
        assert refused.value.code == CODE
    other = await bounded.client()
    await other.say("hi")
    assert (await other.error())["code"] == CODE

    # What is there goes on, what isn't stored is none of it, and others have their own.
    await client.responses.create(model="default", input="hi", conversation=made.id)
    await client.conversations.items.create(
        made.id, items=[{"type": "message", "role": "user", "content": "and"}]
    )
    await client.responses.create(model="default", input="hi", store=False)
    await client.chat.completions.create(model="default", messages=[{"role": "user", "content": "hi"}])
    bob: Any = await bounded.openai("bob")
    await bob.conversations.create()

    await client.conversations.delete(made.id)
    await client.conversations.create(extra_headers={"Idempotency-Key": "one"})
    assert len((await client.get("/conversations", cast_to=object))["data"]) == 3


async def test_as_many_as_may_be_of_those_that_are_asked_for_at_once(bounded: Served[ScriptedAgent]) -> None:
    client: Any = await bounded.openai()

    async def is_made() -> bool:
        try:
            await client.conversations.create()
        except PermissionDeniedError as exc:
            assert exc.code == CODE
            return False
        return True

    assert sum(await asyncio.gather(*(is_made() for _ in range(20)))) == 3


async def test_a_plan_may_allow_fewer(serve: Serve) -> None:
    server = await serve(ScriptedAgent(), quotas={"default": {"sessions": 1}})
    client: Any = await server.openai()
    await client.conversations.create()
    await listed(server, 1)
    with pytest.raises(PermissionDeniedError) as refused:
        await client.conversations.create()
    assert refused.value.code == CODE


async def test_to_begin_one_is_a_request(serve: Serve) -> None:
    server = await serve(ScriptedAgent(), quotas={"default": {"requests_per_minute": 3, "turns": 1}})
    client: Any = await server.openai()
    named = {"extra_headers": {"Idempotency-Key": "one"}}
    first = await client.conversations.create(**named)
    for _ in range(3):  # which are the same one
        assert (await client.conversations.create(**named)).id == first.id
    await client.conversations.update(first.id, metadata={"a": "b"})
    await client.conversations.create()
    await client.responses.create(model="default", input="hi")

    for asked in (
        client.conversations.create(),
        client.responses.create(model="default", input="hi"),
    ):
        with pytest.raises(RateLimitError) as refused:
            await asked
        assert refused.value.code == "rate_limit_exceeded"
        assert int(refused.value.response.headers["retry-after"]) >= 1


async def test_what_can_not_be_begun_is_no_request(serve: Serve) -> None:
    server = await serve(ScriptedAgent(), quotas={"default": {"requests_per_minute": 1}})
    client: Any = await server.openai()
    output = {"type": "function_call_output", "call_id": "call_none", "output": "lost"}
    for _ in range(3):
        with pytest.raises(APIStatusError) as refused:
            await client.conversations.create(items=[output])
        assert refused.value.status_code in (400, 404)
    await client.conversations.create()
