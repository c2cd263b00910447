"""What a list of conversations reads, and how much of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import APIStatusError

from tests.server.erasing.test_erasing import ALICE
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.sessions.ids import new_session_id

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


@pytest.mark.parametrize("limit", [1, 20])
async def test_no_page_is_empty_because_many_have_expired(server: Served[ScriptedAgent], limit: int) -> None:
    client: Any = await server.openai()
    made = [(await client.conversations.create()).id for _ in range(3)]
    await server.idle()
    index = server.app._stored.index
    await index.note(ALICE.id, {new_session_id(ALICE.id): 1000 + number for number in range(1500)})

    seen: list[str] = []
    after = ""
    for _ in range(4):
        page = await page_of(client, f"?order=asc&limit={limit}{after}")
        assert page["data"]
        seen += [each["id"] for each in page["data"]]
        after = f"&after={page['last_id']}"
        if not page["has_more"]:
            break

    assert sorted(seen) == sorted(made)
    assert await index.count(ALICE.id) == len(made), "what has gone isn't looked at again"


async def test_two_who_look_through_the_same_that_has_expired(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    made = await client.conversations.create()
    await server.idle()
    await server.app._stored.index.note(
        ALICE.id, {new_session_id(ALICE.id): 1000 + number for number in range(1500)}
    )
    pages = await asyncio.gather(*(page_of(client, "?order=asc&limit=1") for _ in range(6)))
    assert [[each["id"] for each in page["data"]] for page in pages] == 6 * [[made.id]]


async def test_what_has_gone_since_its_page_says_how_to_go_on(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    for _ in range(2):
        await client.conversations.create()
    page = await page_of(client, "?limit=1")
    await client.conversations.delete(page["last_id"])
    with pytest.raises(APIStatusError) as refused:
        await page_of(client, f"?limit=1&after={page['last_id']}")
    assert (refused.value.status_code, refused.value.code) == (400, "invalid_request")
    assert "first page" in refused.value.message
