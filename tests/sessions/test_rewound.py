"""A store that goes back to where it was, and on from there with something else, beside calls under way.

What such a call says is of the store's log, and need not fit behind what is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
import pytest

from tests.sessions.conversation import Client, World, settle
from tests.sessions.town import Town, actor_on, asked, distant, open_town, polls, tab_on, texts
from unbroken.sessions.entries import Submitted

pytestmark = pytest.mark.parametrize("seed", [1, 2, 3, 4])


def held(monkeypatch: pytest.MonkeyPatch, world: World, name: str) -> asyncio.Event:
    """Have the next call of that name wait on its way there, until what is returned is set."""
    store = distant(world)
    call: Callable[..., Coroutine[Any, Any, Any]] = getattr(store, name)
    free = asyncio.Event()

    async def wait(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(store, name, call)
        await free.wait()
        return await call(*args, **options)

    monkeypatch.setattr(store, name, wait)
    return free


async def come_to_rest(town: Town, world: World) -> None:
    for _ in range(3):
        await town.store_is_back()
        await polls(town, 1)
    for turn in world.responder.open:
        turn.end()
    await settle()


async def check(town: Town, world: World, client: Client) -> None:
    """The store's log is the owner's, and who loads it sees the same."""
    stored, log = town.stored(client).log, actor_on(world, client).log
    assert (stored.incarnation, stored.head, stored.head_nonce) == (log.incarnation, log.head, log.head_nonce)
    third = await town.node()
    tab = await tab_on(third, client)
    assert texts(third, tab) == texts(world, client)


def send(client: Client, text: str) -> asyncio.Task[Any]:
    """Have a client send a message, and don't wait until it is taken."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    assert client.connection is not None
    assert client.attachment is not None
    event = orjson.dumps({"type": "conversation.item.create", "item": item}).decode()
    submitted = client.connection.receive(event)
    assert isinstance(submitted, Submitted)
    return asyncio.create_task(client.attachment.submit(submitted))


async def test_an_input_s_answer_is_not_put_behind_what_the_store_has_lost(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        town.is_silent = True  # the other one hears of nothing
        copied = town.copy()
        free = held(monkeypatch, one, "submit")
        first = send(client, "first")
        await settle()
        one.responder.last.say("c")  # which the owner knows to be written
        await settle()
        town.lose(copied)
        await send(tab, "second")  # in its place
        free.set()
        await first
        await settle()
        town.is_silent = False
        await come_to_rest(town, one)

        assert set(texts(one, client)) == {"hello", "abc", "first", "second"}
        await check(town, one, client)


async def test_an_output_s_answer_is_not_put_behind_what_the_store_has_lost(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        town.is_silent = True
        copied = town.copy()
        free = held(monkeypatch, one, "append")
        one.responder.last.say("c")
        await settle()
        await send(client, "first")  # which the owner knows to be written
        await settle()
        town.lose(copied)
        await send(tab, "second")  # in its place
        free.set()
        await settle()
        town.is_silent = False
        await come_to_rest(town, one)

        assert set(texts(one, client)) == {"hello", "abc", "first", "second"}
        await check(town, one, client)
