"""Official clients, unmodified, and our own, whose node goes in mid-answer: behind HAProxy another goes on.

The upstream keeps its answers, so that also a killed node's goes on at the very character.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import openai
import pytest
import pytest_asyncio

from tests.chaos.upstream import KeepingUpstream
from tests.chaos.words import answer_to, digest, prompt
from tests.conformance.node import node
from tests.conformance.served import Seen
from tests.conformance.test_graphql_python import connected, through
from tests.deploy.balanced import PATIENCE, Balanced, Nodes
from tests.deploy.test_haproxy import HAProxy
from tests.fakes.tls import Certificate, TlsProxy, make_certificate
from tests.fakes.valkey import Server
from tests.server.realtime.client import whole
from tests.server.realtime.official import speaking
from tests.server.realtime.serving import eventually
from tests.server.realtime.test_agents_sdk import run as agents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

ASKED = [prompt("drained", 100, 0.02), prompt("killed", 100, 0.02), prompt("last", 3, 0.0)]


def conversation(instructions: str = "") -> list[tuple[str, str]]:
    """Return how the answers are to end, and what they say: each knows what was said before it."""
    said = [("system", instructions)] if instructions else []
    for asked in ASKED:
        said.append(("user", asked))
        said.append(("assistant", answer_to(asked, digest(said))))
    return [("completed", text) for author, text in said if author == "assistant"]


ANSWERS = conversation()
CODES = [1012, 1006]
"""How a client learns that its node goes: by a farewell, and by nothing."""


@dataclass(frozen=True)
class Place:
    balanced: Balanced
    upstream: KeepingUpstream
    certificate: Certificate

    @contextlib.asynccontextmanager
    async def losing_owners(self) -> AsyncIterator[None]:
        """Have the first answer's node drained, and the second's killed, each once twenty words were said."""
        losing = asyncio.create_task(self._lose_owners())
        try:
            yield
            await losing
        finally:
            losing.cancel()
            await asyncio.wait([losing])
            self.upstream.dawdle = 0.0

    async def _lose_owners(self) -> None:
        drained = await self._owner_of(1)
        # The answer isn't to end before its client has been sent elsewhere; the balancer cuts off the silent.
        self.upstream.dawdle = 0.5
        self.balanced.nodes.terminate(drained)
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(self.balanced.nodes.measure, drained, "unbroken_connections"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        self.upstream.dawdle = 0.0
        await asyncio.to_thread(self.balanced.nodes.kill, await self._owner_of(2))

    @contextlib.asynccontextmanager
    async def killing_owner(self) -> AsyncIterator[None]:
        """Have the node of the answer after the first be killed once twenty words were said."""

        async def kill() -> None:
            await asyncio.to_thread(self.balanced.nodes.kill, await self._owner_of(2))

        killing = asyncio.create_task(kill())
        try:
            yield
            await killing
        finally:
            killing.cancel()
            await asyncio.wait([killing])

    async def _owner_of(self, answer: int) -> int:
        await eventually(lambda: len(self.upstream.begun) == answer)
        await asyncio.wait_for(self.upstream.has_said(20), PATIENCE)
        owner = await asyncio.to_thread(self.balanced.nodes.answering)
        assert owner is not None
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
            UNBROKEN_GRAPHQL="true",
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
async def test_openai_for_python_sees_whole_answers_and_goes_on(place: Place) -> None:
    client = openai.AsyncOpenAI(api_key="me", base_url=f"http://127.0.0.1:{place.balanced.port}/v1")
    async with place.losing_owners(), speaking(client, delay=0.2) as official:
        for asked in ASKED:
            await official.ask(asked)
            await official.done()

    assert official.reconnections == CODES
    assert official.answers() == ANSWERS
    assert place.asked() == ["drained", "killed", "last"]


@pytest.mark.client("openai-node", "node")
async def test_openai_for_node_sees_whole_answers_and_goes_on(place: Place) -> None:
    async with TlsProxy(place.balanced.port, place.certificate) as tls, place.losing_owners():
        address = f"https://127.0.0.1:{tls.port}/v1"
        told = await node("openai.mjs", "converse-again", address, *ASKED, certificate=place.certificate)
    seen = Seen(**told)

    assert seen.reconnections == CODES
    assert seen.answers() == ANSWERS
    assert seen.errors == []
    assert place.asked() == ["drained", "killed", "last"]


@pytest.mark.client("own-node", "node")
async def test_this_project_s_client_sees_whole_answers_and_goes_on(place: Place) -> None:
    async with place.losing_owners():
        told = await node("own.mjs", "converse", f"http://127.0.0.1:{place.balanced.port}", *ASKED)

    assert [(turn["status"], turn["text"]) for turn in told["turns"]] == ANSWERS
    assert ["".join(turn["pieces"]) for turn in told["turns"]] == [text for _, text in ANSWERS]
    assert [turn["restarts"] for turn in told["turns"]] == [0, 0, 0]
    assert [status["phase"] for status in told["statuses"]].count("waiting") >= len(CODES)
    assert told["errors"] == told["resets"] == []
    assert place.asked() == ["drained", "killed", "last"]


def spoken(asked: list[str]) -> list[tuple[str, str]]:
    """Return the conversation in which *asked* is said: each answer knows what was said before it."""
    said: list[tuple[str, str]] = []
    for text in asked:
        said.append(("user", text))
        said.append(("assistant", answer_to(text, digest(said))))
    return said


TOGETHER = "?affinity=mine"
"""What sends all requests of a client's to one node, which is then the one that answers."""
KILLED = [prompt("first", 3, 0.0), prompt("killed", 100, 0.02), prompt("last", 3, 0.0)]


@pytest.mark.client("tanstack-node", "node")
async def test_tanstacks_client_sees_whole_answers_and_goes_on(place: Place) -> None:
    """It gives up soon where it finds nobody: what it comes back to is there as soon as any node is."""
    async with place.killing_owner():
        address = f"http://127.0.0.1:{place.balanced.port}"
        told = await node("tanstack.mjs", "converse", "ws", address, *KILLED, QUERY=TOGETHER)

    assert [(each["role"], each["text"]) for each in told["messages"]] == spoken(KILLED)
    assert told["errors"] == []
    assert sum("offset=" in url for url in told["urls"]) >= 1
    assert place.asked() == ["first", "killed", "last"]


@pytest.mark.client("agui-node", "node")
async def test_ag_uis_client_sees_whole_answers_where_the_application_sends_runs_again(place: Place) -> None:
    async with place.killing_owner():
        address = f"http://127.0.0.1:{place.balanced.port}"
        # Another thread than others' tests have.
        told = await node("agui.mjs", "persist", address, *KILLED, THREAD="another", QUERY=TOGETHER)

    assert [(each["role"], each["content"]) for each in told["messages"]] == spoken(KILLED)
    assert told["errors"], "its connection was lost"
    assert place.asked() == ["first", "killed", "last"]


@pytest.mark.client("ai-node", "node")
@pytest.mark.parametrize("way", ["http", "ws"])
async def test_ais_chat_sees_whole_answers_where_the_application_comes_back(place: Place, way: str) -> None:
    async with place.killing_owner():
        address = f"http://127.0.0.1:{place.balanced.port}"
        told = await node("ui.mjs", "persist", way, address, *KILLED, CHAT=f"by-{way}", QUERY=TOGETHER)

    texts = [
        "".join(part["text"] for part in message["parts"] if part["type"] == "text")
        for message in told["messages"][0]
    ]
    assert texts == [text for _, text in spoken(KILLED)]
    assert len(told["finishes"]) > len(KILLED), "its connection was lost"
    assert place.asked() == ["first", "killed", "last"]


@pytest.mark.client("graphql-ws", "node")
@pytest.mark.client("graphql-sse", "node")
@pytest.mark.parametrize("way", ["ws", "sse"])
async def test_graphqls_clients_see_whole_answers_and_go_on(place: Place, way: str) -> None:
    async with place.killing_owner():
        address = f"http://127.0.0.1:{place.balanced.port}/graphql{TOGETHER}"
        told = await node("graphql.mjs", "converse", way, address, *KILLED)

    events = [answer["events"] for answer in told["answers"]]
    texts = ["".join(event["delta"] or "" for event in each) for each in events]
    assert texts == [text for author, text in spoken(KILLED) if author == "assistant"]
    assert [each[-1]["response"]["status"] for each in events] == ["COMPLETED"] * 3
    assert [event["type"] for event in events[1]].count("OPENED") >= 2, "its connection was lost"
    assert place.asked() == ["first", "killed", "last"]


@pytest.mark.client("gql-python", "node")
async def test_gql_for_python_sees_whole_answers_where_the_application_subscribes_again(place: Place) -> None:
    texts: list[str] = []
    names: dict[str, str] = {}
    async with place.killing_owner(), connected(place.balanced.port) as session:
        for asked in KILLED:
            names, said = await through(session, text=asked, sessionId=names.get("sessionId"))
            texts.append(said)

    assert texts == [text for author, text in spoken(KILLED) if author == "assistant"]
    assert place.asked() == ["first", "killed", "last"]


@pytest.mark.client("agents-node", "node")
async def test_the_agents_sdk_for_node_sees_whole_answers_where_the_application_connects_again(
    place: Place,
) -> None:
    async with place.losing_owners():
        address = f"ws://127.0.0.1:{place.balanced.port}/v1/realtime?model=default"
        told = await node("agents.mjs", "persist", address, *ASKED)

    assert whole(told["frames"]) == conversation("Be brief.")
    assert told["codes"][0] == 1012
    assert told["generic"] == told["errors"] == []
    assert place.asked() == ["drained", "killed", "last"]


@pytest.mark.client("agents-python", "node")
async def test_the_agents_sdk_for_python_sees_whole_answers_where_the_application_connects_again(
    place: Place,
) -> None:
    async with place.losing_owners():
        seen = await agents(place.balanced.port, "resume", *ASKED)

    assert seen.answers() == conversation("Be brief.")
    assert "1012" in seen.closed[0]
    assert place.asked() == ["drained", "killed", "last"]
