"""``/v1/models`` as the official client sees it."""

from __future__ import annotations

from typing import Any

import pytest
from openai import NotFoundError

from tests.server.conftest import Serve
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
