"""Official clients, and our own, whose node goes in mid-answer: another one behind HAProxy goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import openai
import pytest
import pytest_asyncio

from tests.conformance.node import node
from tests.conformance.served import Seen
from tests.conformance.test_graphql_python import connected, through
from tests.deploy.losing import ANSWERS, ASKED, CODES, Place, conversation, losing, spoken
from tests.fakes.proxy import Proxy
from tests.fakes.tls import TlsProxy
from tests.server.realtime.client import whole
from tests.server.realtime.official import speaking
from tests.server.realtime.test_agents_sdk import run as agents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

TOGETHER: Final = "?affinity=mine"
"""What sends all requests of a client's to one node, which is then the one that answers."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with losing(tmp_path_factory.mktemp("official"), UNBROKEN_GRAPHQL="true") as place:
        yield place


@pytest_asyncio.fixture(loop_scope="module")
async def place(running: Place) -> Place:
    await running.mend()
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


@pytest.mark.client("tanstack-node", "node")
async def test_tanstacks_client_sees_whole_answers_and_goes_on(place: Place) -> None:
    """It gives up soon where it finds nobody: what it comes back to is there as soon as any node is."""
    async with place.losing_owners():
        address = f"http://127.0.0.1:{place.balanced.port}"
        told = await node("tanstack.mjs", "converse", "ws", address, *ASKED, QUERY=TOGETHER)

    assert [(each["role"], each["text"]) for each in told["messages"]] == spoken(ASKED)
    assert told["errors"] == []
    assert sum("offset=" in url for url in told["urls"]) >= 1
    assert place.asked() == ["drained", "killed", "last"]


@pytest.mark.client("agui-node", "node")
async def test_ag_uis_client_sees_whole_answers_where_the_application_sends_runs_again(place: Place) -> None:
    async with place.losing_owners():
        address = f"http://127.0.0.1:{place.balanced.port}"
        # Another thread than others' tests have.
        told = await node("agui.mjs", "persist", address, *ASKED, THREAD="another", QUERY=TOGETHER)

    assert [(each["role"], each["content"]) for each in told["messages"]] == spoken(ASKED)
    assert told["errors"], "its connection was lost"
    assert place.asked() == ["drained", "killed", "last"]


@pytest.mark.client("ai-node", "node")
@pytest.mark.parametrize("way", ["http", "ws"])
async def test_ais_chat_sees_whole_answers_where_the_application_comes_back(place: Place, way: str) -> None:
    async with place.losing_owners():
        address = f"http://127.0.0.1:{place.balanced.port}"
        told = await node("ui.mjs", "persist", way, address, *ASKED, CHAT=f"by-{way}", QUERY=TOGETHER)

    texts = [
        "".join(part["text"] for part in message["parts"] if part["type"] == "text")
        for message in told["messages"][0]
    ]
    assert texts == [text for _, text in spoken(ASKED)]
    # What is answered over HTTP when its node is drained is answered to its end there.
    losses = 1 if way == "http" else 2
    assert len(told["finishes"]) >= len(ASKED) + losses, "its connection was lost"
    assert place.asked() == ["drained", "killed", "last"]


@pytest.mark.client("graphql-ws", "node")
@pytest.mark.client("graphql-sse", "node")
@pytest.mark.parametrize("way", ["ws", "sse"])
async def test_graphqls_clients_see_whole_answers_and_go_on(place: Place, way: str) -> None:
    async with place.losing_owners():
        address = f"http://127.0.0.1:{place.balanced.port}/graphql{TOGETHER}"
        told = await node("graphql.mjs", "converse", way, address, *ASKED)

    events = [answer["events"] for answer in told["answers"]]
    texts = ["".join(event["delta"] or "" for event in each) for each in events]
    assert texts == [text for author, text in spoken(ASKED) if author == "assistant"]
    assert [each[-1]["response"]["status"] for each in events] == ["COMPLETED"] * 3
    for lost in events[:2]:
        assert [event["type"] for event in lost].count("OPENED") >= 2, "its connection was lost"
    assert place.asked() == ["drained", "killed", "last"]


@pytest.mark.client("gql-python", "node")
async def test_gql_for_python_sees_whole_answers_where_the_application_subscribes_again(place: Place) -> None:
    texts: list[str] = []
    names: dict[str, str] = {}
    async with (
        place.losing_owners(),
        Proxy(place.balanced.port) as network,
        connected(network.port, TOGETHER) as session,
    ):
        for asked in ASKED:
            names, said = await through(session, text=asked, sessionId=names.get("sessionId"))
            texts.append(said)

    assert texts == [text for author, text in spoken(ASKED) if author == "assistant"]
    assert network.accepted >= 3, "its connection was lost twice"
    assert place.asked() == ["drained", "killed", "last"]


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
