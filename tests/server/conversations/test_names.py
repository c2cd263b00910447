"""What is begun by a name of its client's: the node that began it failed of it, or two begin it at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

import pytest
import pytest_asyncio
from openai import APIStatusError

from tests.fakes.valkey import Server
from tests.server.conversations.test_across_nodes import NODE
from tests.server.erasing.test_erasing import ALICE
from tests.server.realtime.serving import Served, eventually, serving
from tests.server.ui.client import Page, user
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.sessions.backends.base import Append
from unbroken.sessions.entries import Entry, SessionOpened
from unbroken.sessions.errors import StoreError, StoreUnavailable
from unbroken.sessions.ids import NodeId, SessionId, new_incarnation, new_session_id

pytestmark = pytest.mark.slow

Node = Served[ScriptedAgent]
Begin = Callable[[Node, str], Awaitable[str]]

HELLO: Final = {"type": "message", "role": "user", "content": "hello"}


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest_asyncio.fixture
async def nodes(valkey: Server) -> AsyncIterator[list[Node]]:
    valkey.command("FLUSHALL")
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(serving(ScriptedAgent(), redis_url=valkey.url, **NODE))
            for _ in range(2)
        ]
        yield nodes
        for node in nodes:
            await node.hang_up()
        for node in nodes:
            await node.no_connections()


async def begin_conversation(node: Node, name: str) -> str:
    client: Any = await node.openai()
    client.max_retries = 0
    named = {"extra_headers": {"Idempotency-Key": name}}
    made = await client.conversations.create(items=[HELLO], metadata={"a": "b"}, **named)
    items = [each async for each in client.conversations.items.list(made.id)]
    assert (made.metadata, len(items)) == ({"a": "b"}, 1)
    return str(made.id).replace("conv_", "sess_")


async def begin_response(node: Node, name: str) -> str:
    client: Any = await node.openai()
    client.max_retries = 0
    named = {"extra_headers": {"Idempotency-Key": name}}
    made = await client.responses.create(model="default", input="hello", **named)
    assert made.output_text == "You said: hello"
    return str(made.conversation.id).replace("conv_", "sess_")


async def begin_chat(node: Node, name: str) -> str:
    async with aclosing(Page(node.port, chat=name)) as page:
        response = await page.post(user("hello"))
        if response.status_code != 200:
            raise APIStatusError(response.text, response=response, body=None)
        assert [each["role"] for each in await page.messages()] == ["user", "assistant"]
    return new_session_id(ALICE.id, seed=f"ui:{name}")


WAYS: Final[dict[str, Begin]] = {
    "conversation": begin_conversation,
    "response": begin_response,
    "ui": begin_chat,
}
by_each_way = pytest.mark.parametrize("way", WAYS)
on_each_node = pytest.mark.parametrize("number", [0, 1], ids=["same node", "other node"])


def named(way: str, name: str = "one") -> SessionId:
    return new_session_id(ALICE.id, seed=f"{way}:{name}")


@by_each_way
@on_each_node
async def test_an_empty_log_of_a_node_that_failed_is_begun_anew(
    nodes: list[Node], way: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node has it in memory still, or not any more."""
    store = nodes[0].app._stored.store
    append = store.append

    async def fail(appends: list[Append]) -> list[list[Entry] | StoreError]:
        if any(isinstance(body, SessionOpened) for each in appends for body in each.bodies):
            raise StoreUnavailable
        return await append(appends)  # type: ignore[return-value]

    with monkeypatch.context() as patched:
        patched.setattr(store, "append", fail)
        with pytest.raises(APIStatusError) as refused:
            await WAYS[way](nodes[0], "one")
        assert refused.value.status_code == 503
    assert not (await store.inspect(named(way))).head
    outage = nodes[0].app.node._outages.of(named(way))
    await eventually(lambda: not outage.is_on)

    assert await WAYS[way](nodes[number], "one") == named(way)
    assert await WAYS[way](nodes[1 - number], "one") == named(way)


@by_each_way
@on_each_node
async def test_an_empty_log_that_nobody_remembers_is_begun_anew(
    nodes: list[Node], way: str, number: int
) -> None:
    await nodes[0].app._stored.store.create(named(way), nodes[0].app.node.id, new_incarnation())
    assert await WAYS[way](nodes[number], "one") == named(way)
    assert await WAYS[way](nodes[1 - number], "one") == named(way)


@by_each_way
async def test_an_empty_log_of_a_node_that_has_died_is_begun_anew(nodes: list[Node], way: str) -> None:
    await nodes[0].app._stored.store.create(named(way), NodeId("node_gone"), new_incarnation())
    assert await WAYS[way](nodes[0], "one") == named(way)


@by_each_way
async def test_what_two_nodes_begin_at_once_is_begun_once(nodes: list[Node], way: str) -> None:
    for number in range(12):
        ids = await asyncio.gather(*(WAYS[way](node, f"key-{number}") for node in (*nodes, *nodes)))
        assert set(ids) == {named(way, f"key-{number}")}
