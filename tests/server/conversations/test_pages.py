"""What a list of conversations reads, and how much of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent

HELLO = {"type": "message", "role": "user", "content": "hello"}


async def page_of(client: Any, query: str = "") -> Any:
    return await client.get(f"/conversations{query}", cast_to=object)


async def test_a_list_reads_no_session(
    server: Served[ScriptedAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = await server.openai()
    made = [await client.conversations.create(items=[HELLO], metadata={"n": str(n)}) for n in range(3)]
    await client.conversations.update(made[1].id, metadata={"n": "other"})
    await server.idle()
    store = server.app._stored.store

    async def untouched(*_: Any, **__: Any) -> Any:
        raise AssertionError("a session is read")

    monkeypatch.setattr(store, "inspect", untouched)
    monkeypatch.setattr(store, "read", untouched)

    page = await page_of(client, "?order=asc")

    assert {each["id"]: each["metadata"]["n"] for each in page["data"]} == {
        made[0].id: "0",
        made[1].id: "other",
        made[2].id: "2",
    }
    shown = {each["id"]: each["created_at"] for each in page["data"]}
    assert shown == {each.id: each.created_at for each in made}


async def test_a_page_is_bounded_in_bytes(server: Served[ScriptedAgent]) -> None:
    """What is noted may be long; the rest is had by asking for what follows."""
    client: Any = await server.openai()
    long = {f"key-{number}": 512 * "ü" for number in range(16)}
    made = [(await client.conversations.create(metadata=long)).id for _ in range(90)]

    page = await page_of(client, "?limit=100&order=asc")
    assert 10 < len(page["data"]) < 90
    assert page["has_more"]
    seen = [each["id"] for each in page["data"]]
    rest = await page_of(client, f"?limit=100&order=asc&after={seen[-1]}")
    seen += [each["id"] for each in rest["data"]]

    assert not rest["has_more"]
    assert sorted(seen) == sorted(made)
