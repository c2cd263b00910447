"""Actors as tests of them reach for them, and inputs, by whatever way they come."""

from __future__ import annotations

from typing import Final

import orjson
import pytest
from msgspec.structs import replace

from tests.fakes.store import DistantStore
from tests.sessions.conversation import Client, World
from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.entries import (
    Body,
    CreateItem,
    CreateResponse,
    Entry,
    InputKey,
    Submitted,
)
from unbroken.sessions.errors import (
    LostTail,
    SessionError,
    StoreError,
)
from unbroken.sessions.ids import ChainId, ItemId, ResponseId, SessionId
from unbroken.sessions.items import Message, ResponseRequest, Text

__all__ = [
    "ELSEWHERE",
    "SEEDS",
    "actor_of",
    "asked",
    "bodies_in",
    "item_event",
    "lose",
    "named",
    "post",
    "said",
    "stored",
    "submitted_by",
    "write_elsewhere",
]


ELSEWHERE: Final = ChainId("elsewhere")
SEEDS: Final = range(16)


def said(name: str, text: str = "hello") -> Submitted:
    return Submitted(CreateItem(Message(ItemId(name), "user", (Text(text),))), ELSEWHERE)


def named(submitted: Submitted, digest: bytes) -> Submitted:
    return replace(submitted, key=InputKey("i:u1", digest))


def asked(name: str) -> Submitted:
    return Submitted(CreateResponse(ResponseId(name), ResponseRequest()), ELSEWHERE)


def actor_of(world: World, client: Client) -> Actor:
    assert client.session_id is not None
    actor = world.node.hub.get(SessionId(client.session_id))
    assert actor is not None
    return actor


async def stored(store: SessionStore, actor: Actor) -> list[Entry]:
    return (await store.read(actor.session.id, actor.log.position(actor.log.floor), 10**6)).entries


async def bodies_in(store: SessionStore, actor: Actor) -> list[Body]:
    return [entry.body for entry in await stored(store, actor)]


async def post(client: Client, event: dict[str, object]) -> None:
    """Send an event without waiting for what comes of it."""
    assert client.attachment is not None
    await client.attachment.submit(submitted_by(client, event))


def submitted_by(client: Client, event: dict[str, object]) -> Submitted:
    assert client.connection is not None
    submitted = client.connection.receive(orjson.dumps(event).decode())
    assert isinstance(submitted, Submitted)
    return submitted


def item_event(name: str, text: str = "hello") -> dict[str, object]:
    item = {"id": name, "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return {"type": "conversation.item.create", "item": item}


async def write_elsewhere(world: World, actor: Actor, submitted: Submitted) -> None:
    """Submit an input through another node, which tells this one."""
    await world.store.submit(actor.session.id, submitted, actor.position)
    actor.look()


async def lose(world: World, client: Client, store: DistantStore, failure: StoreError | None = None) -> None:
    """Let the store turn against the owner in its next write."""
    store.fail_next_append(failure or LostTail("planted"))
    await client.send({"type": "session.update", "session": {"instructions": "again"}})
    with pytest.raises(SessionError):
        client.read()
    client.disconnect()
