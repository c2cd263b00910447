"""Conversations that are deleted, listed and erased on another node than the one that has them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from openai import APIStatusError, NotFoundError

from tests.fakes.valkey import Server
from tests.server.erasing.test_erasing import ALICE
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, eventually, serving
from unbroken.server.erasing.sessions import SessionEraser
from unbroken.server.protocols.conversation_names import session_named
from unbroken.sessions.backends.walk import Stretch
from unbroken.sessions.ids import SessionId, new_incarnation, new_session_id

pytestmark = pytest.mark.slow

NODE: dict[str, Any] = {"secret": "x" * 32, "release_after": 1}


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest_asyncio.fixture
async def nodes(valkey: Server) -> AsyncIterator[list[Served[ManualAgent]]]:
    valkey.command("FLUSHALL")
    async with contextlib.AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(serving(ManualAgent(), redis_url=valkey.url, **NODE))
            for _ in range(2)
        ]
        yield nodes
        for node in nodes:  # each looks in the end whether anything is left in the loop they share
            await node.hang_up()
        for node in nodes:
            await node.no_connections()


async def listed(client: Any) -> set[str]:
    page = await client.get("/conversations", cast_to=object)
    return {each["id"] for each in page["data"]}


async def until_listed(client: Any, *names: str) -> None:
    """Return when all of *names* are: the index is written beside."""
    async with asyncio.timeout(20):
        while not set(names) <= await listed(client):
            pass


async def test_listed_exported_and_deleted_elsewhere(nodes: list[Served[ManualAgent]]) -> None:
    here, there = nodes
    client: Any = await here.openai()
    other: Any = await there.openai()
    item = {"type": "message", "role": "user", "content": "hello"}
    made = await client.conversations.create(items=[item], metadata={"topic": "shoes"})
    await until_listed(other, made.id)

    assert (await other.conversations.retrieve(made.id)).metadata == {"topic": "shoes"}
    document = await other.get(f"/conversations/{made.id}/export", cast_to=object)
    assert [each["content"][0]["text"] for each in document["items"]] == ["hello"]

    await other.conversations.delete(made.id)
    for each in (client, other):
        with pytest.raises(NotFoundError):
            await each.conversations.retrieve(made.id)
        assert await listed(each) == set()


async def test_what_is_noted_elsewhere_is_listed_at_once(nodes: list[Served[ManualAgent]]) -> None:
    here, there = nodes
    client: Any = await here.openai()
    other: Any = await there.openai()
    made = await client.conversations.create(metadata={"topic": "shoes"})
    await until_listed(other, made.id)
    for number in range(5):
        await client.conversations.update(made.id, metadata={"n": str(number)})
        (row,) = (await other.get("/conversations", cast_to=object))["data"]
        assert (row["metadata"], row["created_at"]) == ({"n": str(number)}, made.created_at)


async def test_what_runs_elsewhere_is_cancelled_and_its_connections_are_told(
    nodes: list[Served[ManualAgent]],
) -> None:
    here, there = nodes
    realtime = await here.client()
    await realtime.ask("hi")
    turn = await here.agent.turn()
    turn.say("half")
    await realtime.said("half")
    other: Any = await there.openai()
    named = (realtime.session_id or "").replace("sess_", "conv_")

    await other.conversations.delete(named)

    await turn.closed.wait()
    assert turn.was_stopped
    assert (await realtime.done())["status"] == "cancelled"
    assert (await realtime.error())["code"] == "session_deleted"
    assert await realtime.closed() == 1008
    with pytest.raises(NotFoundError):
        await other.conversations.retrieve(named)


async def test_a_user_s_data_is_erased_wherever_it_runs(nodes: list[Served[ManualAgent]]) -> None:
    here, there = nodes
    client: Any = await here.openai()
    other: Any = await there.openai()
    running = await client.responses.create(model="default", input="hi", background=True)
    turn = await here.agent.turn()
    made = await other.conversations.create()
    await until_listed(client, made.id, running.conversation.id)

    report = await other.delete("/users/me/data", cast_to=object)

    assert report["deleted"] is True
    assert report["erased"]["conversations"] == 2
    await turn.closed.wait()
    assert turn.was_stopped
    for each in (client, other):
        assert await listed(each) == set()
        with pytest.raises(NotFoundError):
            await each.responses.retrieve(running.id)


async def test_a_walk_that_one_node_began_is_gone_on_with_by_another(
    nodes: list[Served[ManualAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the first has died of it: how far it was is in Redis, with what is to be erased."""
    here, there = nodes
    client: Any = await here.openai()
    made = await client.conversations.create()
    await until_listed(client, made.id)
    named = session_named(made.id)
    here.app.node.hub.clear(named)
    stored = there.app._stored
    await stored.index.drop(ALICE.id, [named])
    others = [new_session_id("bob") for _ in range(3000)]
    for each in others:
        await stored.store.create(each, there.app.node.id, new_incarnation())
    walks: list[list[SessionId]] = []

    def watch(served: Served[ManualAgent], *, is_cut_off: bool) -> None:
        (eraser,) = [each for each in served.app.erasure._erasers if isinstance(each, SessionEraser)]
        through = eraser._walk

        async def walk(place: str) -> AsyncGenerator[Stretch, None]:
            walks.append([])
            async for stretch in through(place):
                walks[-1] += stretch.session_ids
                yield stretch
                if is_cut_off:  # time is up
                    await asyncio.Event().wait()

        monkeypatch.setattr(eraser, "_walk", walk)

    watch(there, is_cut_off=True)
    watch(here, is_cut_off=False)
    with monkeypatch.context() as patched:
        patched.setattr("unbroken.server.erasing.base._PATIENCE", 3.0)
        begun = await there.app.erasure.erase(ALICE, is_thorough=True)
    assert (begun.left, begun.looked_at) == (("conversations",), len(walks[0]))
    ended = await here.app.erasure.erase(ALICE, is_thorough=True)

    assert ended.left == ()
    assert begun.erased.get("conversations", 0) + ended.erased["conversations"] == 1
    assert {*walks[0], *walks[1]} == {*others, named}
    assert len(walks[1]) < 3000, "not from the beginning"
    with pytest.raises(NotFoundError):
        await client.conversations.retrieve(made.id)


async def test_what_was_deleted_while_its_owner_was_cut_off_stays_deleted(
    valkey: Server, nodes: list[Served[ManualAgent]]
) -> None:
    """Redis stands still, and what its owner said meanwhile is to be given back."""
    here, there = nodes
    realtime = await here.client()
    await realtime.ask("hi")
    turn = await here.agent.turn()
    turn.say("one ")
    await realtime.said("one ")
    session_id = SessionId(realtime.session_id or "")
    outage = here.app.node._outages.of(session_id)
    valkey.freeze()
    turn.say("two ")
    await realtime.said("two ")  # alone, and in no store
    await eventually(lambda: outage.is_on)
    valkey.thaw()
    await there.app._stored.store.erase(
        session_id
    )  # before the owner has found out that it is back, or after

    assert (await realtime.error())["code"] == "session_deleted"
    assert await realtime.closed() == 1008
    client: Any = await here.openai()
    with pytest.raises(APIStatusError) as refused:
        await client.conversations.retrieve(session_id.replace("sess_", "conv_", 1))
    assert refused.value.status_code == 404


async def test_what_is_sent_again_to_another_node_is_done_once(nodes: list[Served[ManualAgent]]) -> None:
    clients: list[Any] = [await node.openai() for node in nodes]
    item = {"type": "message", "role": "user", "content": "hello"}
    begin = {"extra_headers": {"Idempotency-Key": "begin"}, "items": [item, item], "metadata": {"a": "b"}}
    made = [await client.conversations.create(**begin) for client in clients]
    assert made[0].id == made[1].id
    assert made[1].metadata == {"a": "b"}

    add = {"extra_headers": {"Idempotency-Key": "add"}, "items": [item, {**item, "content": "bye"}]}
    added = [await client.conversations.items.create(made[0].id, **add) for client in reversed(clients)]
    assert [each.id for each in added[0].data] == [each.id for each in added[1].data]
    for client in clients:
        found = [each async for each in client.conversations.items.list(made[0].id, order="asc")]
        assert [each.content[0].text for each in found] == ["hello", "hello", "hello", "bye"]

    with pytest.raises(APIStatusError) as refused:
        await clients[0].conversations.items.create(made[0].id, **{**add, "items": [item]})
    assert (refused.value.status_code, refused.value.code) == (409, "message_id_reused")
    with pytest.raises(APIStatusError) as refused:
        await clients[1].conversations.create(**{**begin, "metadata": {}})
    assert (refused.value.status_code, refused.value.code) == (409, "message_id_reused")


async def test_as_many_as_may_be_on_all_nodes(valkey: Server) -> None:
    valkey.command("FLUSHALL")
    async with contextlib.AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                serving(ManualAgent(), redis_url=valkey.url, sessions_per_user=4, **NODE)
            )
            for _ in range(2)
        ]
        clients: list[Any] = [await node.openai() for node in nodes]
        for client in clients:
            client.max_retries = 0
        asked = (clients[number % 2].conversations.create() for number in range(24))
        results = await asyncio.gather(*asked, return_exceptions=True)
        made = [each.id for each in results if not isinstance(each, BaseException)]
        assert len(made) == 4, "at once, too"
        await until_listed(clients[0], *made)
        for client in clients:
            with pytest.raises(APIStatusError) as refused:
                await client.conversations.create()
            assert (refused.value.status_code, refused.value.code) == (403, "too_many_stored_sessions")

        await clients[0].conversations.delete(made[0])
        await clients[1].conversations.create()
        for node in nodes:
            await node.hang_up()
        for node in nodes:
            await node.no_connections()
