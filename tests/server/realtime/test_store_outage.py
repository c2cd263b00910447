"""What clients see of a store that is out of reach."""

from __future__ import annotations

import pytest

from tests.fakes.store import DistantStore
from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Client
from tests.server.realtime.serving import Served, eventually
from unbroken.server import store_selection
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.sessions.backends.memory import MemoryStore


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> DistantStore:
    distant = DistantStore(MemoryStore(), 3)
    monkeypatch.setattr(store_selection, "MemoryStore", lambda **_: distant)
    return distant


def durable(client: Client) -> list[bool]:
    """Return what a client was told of whether what is said is saved."""
    sessions = [frame["session"] for frame in client.of("session.created") + client.of("session.updated")]
    return [each["unbroken"]["durable"] for each in sessions if "durable" in each["unbroken"]]


async def test_a_request_is_not_answered_without_the_item_before_it(
    serve: Serve, store: DistantStore
) -> None:
    """Both are sent in one breath, and the store is back between them. Sent again, both are taken."""
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), store_strict=True)
    client = await served.client()
    await client.ask("first")
    await client.done()
    store.is_out = True
    await client.say("second", id="item_2")
    assert (await client.error())["code"] == "store_unavailable"
    store.is_out = False
    await client.send({"type": "response.create", "event_id": "mine"})
    error = await client.error()
    assert (error["code"], error["event_id"]) == ("store_unavailable", "mine")

    await client.say("second", id="item_2")
    await client.send({"type": "response.create"})
    await client.done()
    assert served.agent.calls == 2


async def test_a_request_that_is_sent_once_more_without_the_item_is_meant(
    serve: Serve, store: DistantStore
) -> None:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), store_strict=True)
    client = await served.client()
    await client.say("first")
    await client.sync()
    store.is_out = True
    await client.say("second")
    assert (await client.error())["code"] == "store_unavailable"
    store.is_out = False
    await client.send({"type": "response.create"}, {"type": "response.create"})
    assert (await client.error())["code"] == "store_unavailable"

    await client.done()


async def test_clients_are_told_what_is_not_saved_and_when_it_is(serve: Serve, store: DistantStore) -> None:
    served: Served[ManualAgent] = await serve(ManualAgent(), store_patience=0)
    client = await served.client()
    await client.ask("hello")
    turn = await served.agent.turn()
    turn.say("one ")
    await client.said("one ")
    assert durable(client) == []
    store.is_out = True
    turn.say("two ")
    await client.said("two ")
    (actor,) = served.app.node.hub
    await eventually(lambda: not actor.feed.is_durable)
    tab = await served.tab(client)
    await client.sync()
    assert (durable(client), durable(tab)) == ([False], [False])

    store.is_out = False
    turn.end()
    await eventually(lambda: actor.feed.is_durable)
    await client.done()
    await client.sync()
    await tab.done()
    await tab.sync()
    assert (durable(client), durable(tab)) == ([False, True], [False, True])
    late = await served.tab(client)
    assert durable(late) == []
