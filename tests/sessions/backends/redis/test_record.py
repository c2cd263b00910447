"""What format 1 keeps in Redis, recorded: this release and the next go on with it, keys, fields and all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.server.realtime.serving import eventually
from tests.sessions.backends.redis.rollout import Region
from tests.sessions.conversation import Client
from tests.sessions.next_format import new_release, old_release
from unbroken.sessions.format import Formats

RECORDED: Final = Path(__file__).parents[2] / "data" / "redis_v1.json"
"""All keys of a node that died in mid-answer: a session with a snapshot, a log that begins behind it, and the
name of an input. Never changed: later releases go on with it."""


@pytest_asyncio.fixture
async def region(valkey: Server) -> AsyncIterator[Region]:
    async with Region(valkey.url) as region:
        yield region


async def restore(region: Region) -> str:
    """Write what was recorded, and return the session's id. Of nodes, nobody is there any more."""
    found: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text())
    kept = {key: each for key, each in found.items() if "{nodes}" not in key or key.endswith(":formats")}
    for name, each in kept.items():
        key, value = name.replace("P:", "test:", 1), each["value"]
        if each["type"] == "hash":
            fields = {field: text.encode("latin-1") for field, text in value.items()}
            await region.redis.hset(key, mapping=fields)
        else:
            assert each["type"] == "stream"
            for number, fields in value:
                await region.redis.xadd(key, fields, id=number)
    (session_id,) = {key.split(":")[2] for key in kept if key.endswith(":m")}
    return session_id


@pytest.mark.parametrize("release", [old_release, new_release])
async def test_a_session_of_format_1_goes_on(region: Region, release: Callable[[], Formats]) -> None:
    session_id = await restore(region)
    place = await region.start(release())
    client = Client(place.world, session_id)
    await client.connect()
    # Its owner is found dead, and what ran is ended.
    await eventually(lambda: bool(client.read()) and client.statuses()[-1:] == ["failed"])
    shown = json.dumps(client.frames)
    assert "first question" in shown
    assert "".join(f"word{number} " for number in range(900)).strip() in shown
    assert "an answer" in shown

    # The same item is known again by its name, and the conversation goes on.
    inputs = len(client.of_type("conversation.item.added"))
    await client.say("named", id="item_named")
    await client.ask("third question")
    await eventually(lambda: len(place.world.responder.turns) == 1)
    place.world.responder.last.say("third answer")
    place.world.responder.last.end()
    await eventually(lambda: bool(client.read()) and client.statuses()[-1:] == ["completed"])
    added = client.of_type("conversation.item.added")[inputs:]
    assert [frame["item"]["id"] for frame in added].count("item_named") == 0
    assert client.errors() == []
    assert place.unreadable == 0
