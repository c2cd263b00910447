"""``/v1/models`` as the official client sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import NotFoundError, PermissionDeniedError

from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.test_client_secrets import KEYS, TOOL, issued
from unbroken.server.agents.scripted import ScriptedAgent


async def test_models_are_listed_and_found_by_their_names(serve: Serve) -> None:
    served = await serve(ScriptedAgent(), models=("org/other",))
    client: Any = await served.openai()

    listed = [model.id async for model in client.models.list()]
    one = await client.models.retrieve("org/other")

    assert listed == ["scripted", "default", "org/other"]
    assert (one.id, one.object, one.owned_by) == ("org/other", "model", "unbroken")
    assert one.created > 1_700_000_000
    with pytest.raises(NotFoundError) as caught:
        await client.models.retrieve("another")
    assert caught.value.code == "model_not_found"


async def test_with_a_short_lived_key_there_is_what_that_settles(serve: Serve) -> None:
    """In answers, too: functions that it settles are there, though the request says nothing of them."""
    served = await serve(ManualAgent(), models=("other",), api_keys=KEYS)
    key = await issued(served, {"session": {"type": "realtime", "model": "other", "tools": [TOOL]}})
    realtime = await served.client(key, model="other")
    client: Any = await served.openai(key)
    client = client.with_options(default_query={"resume": realtime.token})
    here = {"unbroken": {"session": realtime.session_id}}  # and nowhere else: it was for this session

    listed = [model.id async for model in client.models.list()]
    asking = asyncio.create_task(
        client.chat.completions.create(
            model="other", messages=[{"role": "user", "content": "hi"}], extra_body=here
        )
    )
    turn = await served.agent.turn()
    turn.end()
    await asking

    assert listed == ["other"]
    assert (turn.given.model, [tool.name for tool in turn.given.tools]) == ("other", ["search"])
    with pytest.raises(NotFoundError):
        await client.models.retrieve("manual")
    another = {"type": "function", "function": {"name": "another"}}
    with pytest.raises(PermissionDeniedError) as caught:
        await client.chat.completions.create(
            model="other",
            messages=[{"role": "user", "content": "hi"}],
            tools=[another],
            extra_body=here,
        )
    assert caught.value.code == "session_pinned"
    with pytest.raises(PermissionDeniedError) as caught:
        await client.chat.completions.create(model="other", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "session_pinned"
