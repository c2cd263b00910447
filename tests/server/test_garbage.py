"""What has ended is freed at once: the collector looks by a count of objects, be they bytes or megabytes."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from openai import APIError

from tests.fakes.upstream import FakeUpstream, Wire
from tests.server.agents.upstream_contract import KEY, made
from tests.server.chat.asking import create, is_at_rest, stream
from tests.server.conftest import Serve
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.scripted import ScriptedAgent


@contextmanager
def nothing_is_left() -> Iterator[None]:
    """See that what is done meanwhile leaves nothing of the server's for the collector to find."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
        ours = {name: count for name, count in found.items() if name.startswith("unbroken.")}
        assert ours == {}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def settled(served: Served[Any]) -> None:
    """Wait until nobody is connected over HTTP, and what they caused is forgotten."""
    for node in (served.app.node, served.app.transient):
        for session_id in [actor.session.id for actor in node.hub]:
            await node.erase(session_id)
    await eventually(lambda: is_at_rest(served))
    await eventually(lambda: not served.server.server_state.connections)
    for _ in range(3):
        await asyncio.sleep(0)


async def test_nothing_is_left_of_a_lone_question(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    await stream(client, "/tokens 3")
    with nothing_is_left():
        for _ in range(3):
            await stream(client, "/tokens 3")
            await create(client, "hello")
            await client.responses.create(model="default", input="hello", store=False)
        await client.close()
        await settled(server)


async def test_nothing_is_left_of_an_upstreams_answer(serve: Serve) -> None:
    def bad_chunk(after: int) -> None:
        async def script(wire: Wire) -> None:
            await wire.begin()
            for _ in range(after):
                await wire.text("word")
            wire._transport.write(b"zz\r\n")
            await wire.request.disconnected.wait()

        upstream.script(script)

    async with FakeUpstream() as upstream:
        agent = made(OpenAIAgent, model="m", base_url=upstream.base_url, api_key=KEY)
        served: Served[OpenAIAgent] = await serve(agent)
        client: Any = await served.openai()
        await stream(client, "hello")
        with nothing_is_left():
            for _ in range(3):
                await stream(client, "hello")
                for spoil in (upstream.cut_after, bad_chunk):
                    spoil(2)
                    with pytest.raises(APIError):
                        await stream(client, "hello")
            await client.close()
            await settled(served)


async def test_nothing_is_left_of_a_stored_session(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    with nothing_is_left():
        for _ in range(3):
            await client.responses.create(model="default", input="hello")
            talk = await server.client()
            await talk.say("hello")
            await talk.close()
        await client.close()
        await settled(server)


async def test_nothing_is_left_of_what_is_erased_under_its_clients(server: Served[ScriptedAgent]) -> None:
    with nothing_is_left():
        for _ in range(3):
            watched = await server.client()
            await watched.ask("/tokens 500 20")
            await watched.until("response.output_text.delta")
            idle = await server.client()
            await idle.ask("hello")
            await idle.done()
            for session_id in [actor.session.id for actor in server.app.node.hub]:
                await server.app.node.erase(session_id)
            await watched.closed()
            await idle.closed()
        await settled(server)


async def test_nothing_is_left_of_a_session_with_a_deleted_item(server: Served[ScriptedAgent]) -> None:
    with nothing_is_left():
        client = await server.client()
        await client.ask("hello")
        await client.done()
        await client.say("not this")
        added = await client.until("conversation.item.added")
        await client.send({"type": "conversation.item.delete", "item_id": added["item"]["id"]})
        await client.until("conversation.item.deleted")
        await client.close()
        await settled(server)
