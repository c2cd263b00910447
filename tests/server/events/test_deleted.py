"""What was deleted isn't shown any more by who replays the log: wherever it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.fakes.valkey import Server
from tests.server.realtime.serving import Served, eventually, serving
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.protocols.conversation_names import session_named
from unbroken.sessions.backends.memory import MemoryStore

SECRET = "pomegranate"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.sessions.stored._FORGOTTEN_AFTER", 0.05)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


async def replayed(node: Served[Any], conversation: str) -> str:
    """Return all that is shown to whoever watches from what the log holds first."""
    shown, after = "", ""
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{node.port}", headers={"authorization": "Bearer alice"}
    ) as client:
        while True:
            answer = await client.get(f"/v1/sessions/{conversation}/events?wait=0{after}")
            page = answer.json()
            if after and len(page["data"]) == 1:  # the session itself
                return shown
            shown += answer.text
            after = f"&after={page['after']}"


async def until_forgotten(node: Served[Any], conversation: str) -> None:
    """Return when the node's log holds nothing of what was deleted, or it has let the session go."""

    def is_forgotten() -> bool:
        actor = node.app.node.hub.get(session_named(conversation))
        return actor is None or actor.log.deleted_at <= actor.log.floor

    await eventually(is_forgotten)


async def test_what_a_deleted_response_said_leaves_the_log() -> None:
    async with serving(ScriptedAgent()) as served:
        client: Any = await served.openai()
        response = await client.responses.create(model="default", input=SECRET)
        conversation = response.conversation.id
        assert SECRET in response.output_text
        assert response.output_text in await replayed(served, conversation)

        await client.responses.delete(response.id)
        await until_forgotten(served, conversation)
        actor = served.app.node.hub.get(session_named(conversation))
        assert actor is not None
        assert 0 < actor.log.deleted_at <= actor.log.floor

        assert response.output_text not in await replayed(served, conversation)
        store = served.app._stored.store
        assert isinstance(store, MemoryStore)
        kept = store._sessions[session_named(conversation)]
        await eventually(lambda: kept.log.floor >= kept.log.deleted_at > 0)
        more = await client.responses.create(model="default", input="more", conversation=conversation)
        assert more.output_text == "You said: more"
        assert more.output_text in await replayed(served, conversation)


@pytest.mark.slow
async def test_on_all_nodes_and_in_the_store(valkey: Server) -> None:
    valkey.command("FLUSHALL")
    settings: dict[str, Any] = {"redis_url": valkey.url, "secret": "x" * 32}
    async with serving(ScriptedAgent(), **settings) as one, serving(ScriptedAgent(), **settings) as two:
        here: Any = await one.openai()
        there: Any = await two.openai()
        response = await here.responses.create(model="default", input=SECRET)
        conversation = response.conversation.id
        assert response.output_text in await replayed(two, conversation), "it follows now"
        (item,) = [
            each for each in (await here.conversations.items.list(conversation)).data if each.role == "user"
        ]

        await there.responses.delete(response.id)
        await there.conversations.items.delete(item.id, conversation_id=conversation)

        for node in (one, two):
            await until_forgotten(node, conversation)
            assert SECRET not in await replayed(node, conversation)
        walk = one.app._stored.walk.__self__  # type: ignore[attr-defined]
        _, log, *_ = walk._keys._session(session_named(conversation))

        async def stored() -> bytes:
            return repr(await walk._client.xrange(log)).encode()

        while SECRET.encode() in await stored():
            pass
        for node in (one, two):
            await node.hang_up()
        for node in (one, two):
            await node.no_connections()
