"""Items of one request join as one input, whichever node dies of it, and however often it is sent."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import pytest

from tests.sessions.conversation import ALICE, settle
from tests.sessions.told import together
from tests.sessions.town import Town, actor_on, asked, go, move, open_town, tab_on, texts
from unbroken.sessions.entries import InputKey, ItemAdded, Submitted
from unbroken.sessions.errors import Refusal, SessionError
from unbroken.sessions.ids import ChainId, SessionId, new_chain_id
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.node import Attachment

SEEDS: Final = (None, 1, 2, 3)
MOMENTS: Final = range(0, 40, 3)
KEY: Final = InputKey("h:items:one", b"one")

pytestmark = pytest.mark.parametrize("seed", SEEDS)


def items() -> Submitted:
    return Submitted(together("u1", "u2", "u3"), ChainId("c"), key=KEY)


async def write(attachment: Attachment) -> None:
    receipt = await attachment.submit(items())
    await attachment.answered(receipt.seq)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_who_dies_of_it_leaves_all_of_it_or_nothing(seed: int | None, moment: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        one.responder.last.end()
        tab = await tab_on(two, client)
        attachment = await one.node.attach(SessionId(client.session_id or ""), ALICE, None, new_chain_id())
        writing = asyncio.create_task(write(attachment))
        for _ in range(moment):
            await asyncio.sleep(0)
        town.kill(one)
        writing.cancel()
        with suppress(asyncio.CancelledError, SessionError):
            await writing
        town.notice(one)
        await settle()
        town.poll()
        await settle()

        assert texts(two, tab)[2:] in ([], ["hello"] * 3)

        again = await two.node.attach(SessionId(client.session_id or ""), ALICE, None, new_chain_id())
        await write(again)
        assert texts(two, tab)[2:] == ["hello"] * 3
        assert len(added(town, tab)) == 1 + 3


def added(town: Town, client: object) -> list[ItemAdded]:
    """Return what the log that the store holds says of items that joined."""
    stored = town.stored(client)  # type: ignore[arg-type]
    bodies = (getattr(record, "body", None) for record in stored.log.read(stored.log.floor, 10**6))
    return [body for body in bodies if isinstance(body, ItemAdded)]


async def test_sent_again_on_another_node_it_adds_nothing(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        one.responder.last.end()
        session_id = SessionId(client.session_id or "")
        await write(await one.node.attach(session_id, ALICE, None, new_chain_id()))
        await move(client, two)
        there = await two.node.attach(session_id, ALICE, None, new_chain_id())
        assert await there.recall(items())
        await write(there)
        await settle()

        assert [item.id for item in actor_on(two, client).session.items()][-3:] == ["u1", "u2", "u3"]
        other = Submitted(together("u4"), ChainId("c"), key=InputKey(KEY.name, b"other"))
        with pytest.raises(Refusal) as refused:
            await there.submit(other)
        assert refused.value.code == "message_id_reused"


async def test_one_that_begins_with_items_begins_with_all_of_them(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        made = await one.node.create(ALICE, SessionConfig("m"), new_chain_id())
        await write(made)
        there = await two.node.attach(made.session.id, ALICE, None, new_chain_id())
        await write(there)

        assert [item.id for item in there.session.items()] == ["u1", "u2", "u3"]


async def test_a_session_that_is_followed_shows_them_as_one(seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        here = await two.node.attach(SessionId(client.session_id or ""), ALICE, None, new_chain_id())
        await write(here)  # while it answers on the other node
        one.responder.last.end()
        await settle()
        await go(tab, one)

        assert len(actor_on(one, tab).session.items()) == 5
