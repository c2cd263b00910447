"""Official clients, unmodified, whose node goes in mid-answer: behind HAProxy they resume on another one.

The upstream keeps its answers, so that also a killed node's goes on at the very character.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import openai
import pytest
import pytest_asyncio

from tests.chaos.upstream import KeepingUpstream
from tests.chaos.words import answer_to, prompt
from tests.conformance.node import node
from tests.conformance.served import Seen
from tests.deploy.balanced import PATIENCE, Balanced, Nodes
from tests.deploy.test_haproxy import HAProxy
from tests.fakes.tls import Certificate, TlsProxy, make_certificate
from tests.fakes.valkey import Server
from tests.server.realtime.official import speaking
from tests.server.realtime.serving import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

FIRST = prompt("first", 100, 0.02)
SECOND = prompt("second", 3, 0.0)
ANSWERS = [("completed", answer_to(FIRST)), ("completed", answer_to(SECOND))]
GOINGS = {"killed": 1006, "drained": 1012}
"""How a node goes, and the close code by which its clients learn of it."""


@dataclass(frozen=True)
class Place:
    balanced: Balanced
    upstream: KeepingUpstream
    certificate: Certificate

    async def lose_owner(self, how: str) -> int:
        """Have the node go that answers, once twenty words were said, and return which it was."""
        await eventually(lambda: bool(self.upstream.begun))
        await asyncio.wait_for(self.upstream.has_said(20), PATIENCE)
        owner = await asyncio.to_thread(self.balanced.nodes.answering)
        assert owner is not None
        go: dict[str, Callable[[int], object]] = {
            "killed": self.balanced.nodes.kill,
            "drained": self.balanced.nodes.terminate,
        }
        await asyncio.to_thread(go[how], owner)
        return owner

    def asked(self) -> list[str]:
        """Return what the upstream was asked for, by turn: each costs."""
        return [key for _, key in self.upstream.begun]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("official")
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(KeepingUpstream())
        valkey = stack.enter_context(Server(folder / "valkey").running())
        nodes = Nodes(
            folder,
            valkey.url,
            3,
            UNBROKEN_AGENT="openai",
            UNBROKEN_OPENAI_API="responses",
            UNBROKEN_OPENAI_BACKGROUND="true",
            UNBROKEN_OPENAI_BASE_URL=upstream.base_url,
            UNBROKEN_OPENAI_API_KEY="none",
            UNBROKEN_MODEL="fake",
        )
        stack.callback(nodes.stop)
        await asyncio.to_thread(nodes.start)
        port, log = stack.enter_context(HAProxy().running(folder, nodes.ports))
        yield Place(Balanced(nodes, port, log), upstream, make_certificate(folder))


@pytest_asyncio.fixture(loop_scope="module")
async def place(running: Place) -> Place:
    await asyncio.to_thread(running.balanced.nodes.mend)
    await running.balanced.all_serve()
    running.upstream.begun.clear()
    return running


@pytest.mark.client("openai-python", "node")
@pytest.mark.parametrize("how", GOINGS)
async def test_openai_for_python_sees_the_whole_answer_and_goes_on(place: Place, how: str) -> None:
    address = f"http://127.0.0.1:{place.balanced.port}/v1"
    client = openai.AsyncOpenAI(api_key="me", base_url=address)
    async with speaking(client) as official:
        await official.ask(FIRST)
        losing = asyncio.create_task(place.lose_owner(how))
        await official.done()
        await losing
        await official.ask(SECOND)
        await official.done()

    assert official.reconnections == [GOINGS[how]]
    assert official.answers() == ANSWERS
    assert place.asked() == ["first", "second"]


@pytest.mark.client("openai-node", "node")
@pytest.mark.parametrize("how", GOINGS)
async def test_openai_for_node_sees_the_whole_answer_and_goes_on(place: Place, how: str) -> None:
    async with TlsProxy(place.balanced.port, place.certificate) as tls:
        address = f"https://127.0.0.1:{tls.port}/v1"
        talking = asyncio.create_task(
            node("openai.mjs", "converse-again", address, FIRST, SECOND, certificate=place.certificate)
        )
        await place.lose_owner(how)
        seen = Seen(**await talking)

    assert seen.reconnections == [GOINGS[how]]
    assert seen.answers() == ANSWERS
    assert seen.errors == []
    assert place.asked() == ["first", "second"]
