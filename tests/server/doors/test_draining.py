"""A node that drains: answers are stopped there, and what was said is read, whoever has the session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.fakes.valkey import Server
from tests.server.conftest import Serve
from tests.server.doors.door import Node, http_to
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually
from tests.server.two_nodes import two_nodes
from unbroken.server.auth.principal import Principal
from unbroken.server.errors import CloseCode

Nodes = tuple[Node, Node]
Stop = Callable[[httpx2.AsyncClient, str, str], Awaitable[httpx2.Response]]
"""Stops a response, in a conversation."""

CANCEL = "mutation($id: ID!) { cancel(responseId: $id) { status } }"
SEEN = """query($response: ID!, $session: ID!) {
  response(id: $response) { text } session(id: $session) { items { edges { node { text } } } }
}"""


async def by_responses(http: httpx2.AsyncClient, response: str, _: str) -> httpx2.Response:
    return await http.post(f"/v1/responses/{response}/cancel")


async def by_ui(http: httpx2.AsyncClient, _: str, conversation: str) -> httpx2.Response:
    return await http.post(f"/v1/ui/chat/{conversation}/stop")


async def by_agui(http: httpx2.AsyncClient, _: str, conversation: str) -> httpx2.Response:
    return await http.post(f"/v1/agui/{conversation}/stop")


async def by_graphql(http: httpx2.AsyncClient, response: str, _: str) -> httpx2.Response:
    return await http.post("/graphql", json={"query": CANCEL, "variables": {"id": response}})


async def by_deletion(http: httpx2.AsyncClient, _: str, conversation: str) -> httpx2.Response:
    return await http.delete(f"/v1/conversations/{conversation}")


STOPS: dict[str, Stop] = {
    "responses": by_responses,
    "ui": by_ui,
    "agui": by_agui,
    "graphql": by_graphql,
    "deletion": by_deletion,
}
every_stop = pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest_asyncio.fixture(
    params=[pytest.param(False, id="alone"), pytest.param(True, id="two", marks=pytest.mark.slow)]
)
async def nodes(request: pytest.FixtureRequest, serve: Serve) -> AsyncIterator[Nodes]:
    """The node that answers, and the one that will drain: the same, or another one."""
    if request.param:
        async with two_nodes(request.getfixturevalue("valkey"), graphql=True) as nodes:
            yield nodes[0], nodes[1]
    else:
        server: Served[ManualAgent] = await serve(ManualAgent(), graphql=True)
        yield server, server


async def asked(node: Node) -> tuple[str, str, HeldTurn]:
    """Return the names of a response that has begun on *node*, and of its conversation; and its turn."""
    async with http_to(node) as http:
        begun = (await http.post("/v1/responses", json={"input": "hi", "background": True})).json()
    turn = await node.agent.turn()
    turn.say("half")
    return begun["id"], begun["conversation"]["id"], turn


async def is_over(nodes: Nodes) -> None:
    """Wait until the node that drains has nothing left to do with anything: what rests goes, at the latest
    as it sweeps.
    """
    node = nodes[1].app.node
    await eventually(lambda: all(actor.is_idle for actor in node.hub))
    await node.sweep()
    await eventually(lambda: node.is_settled)


@every_stop
async def test_an_answer_is_stopped(nodes: Nodes, stop: Stop) -> None:
    here, there = nodes
    response, conversation, turn = await asked(here)
    there.app.begin_drain()
    async with http_to(there) as http:
        answer = await stop(http, response, conversation)
        assert answer.status_code == 200, answer.text

    await turn.closed.wait()
    assert turn.was_stopped
    assert "errors" not in answer.json()
    await is_over(nodes)


async def test_what_was_said_is_read_and_forgotten_and_nothing_new_is_taken(nodes: Nodes) -> None:
    here, there = nodes
    response, conversation, turn = await asked(here)
    there.app.begin_drain()
    session = conversation.replace("conv_", "sess_")
    async with http_to(there) as http:
        running = await read(http, f"/v1/responses/{response}")
        assert running["status"] == "in_progress"
        await refused(await http.get(f"/v1/responses/{response}", params={"stream": "true"}))
        await refused(await http.get(f"/v1/ui/chat/{conversation}/stream"))
        turn.end()
        await eventually(lambda: not here.app.node.hub.is_busy)
        whole = await read(http, f"/v1/responses/{response}")
        assert whole["output"][0]["content"][0]["text"] == "half"
        for path in (
            f"/v1/responses/{response}/input_items",
            f"/v1/conversations/{conversation}",
            f"/v1/conversations/{conversation}/items",
            f"/v1/conversations/{conversation}/export",
            f"/v1/ui/chat/{conversation}",
            f"/v1/agui/{conversation}",
        ):
            await read(http, path)
        variables = {"response": response, "session": session}
        seen = await http.post("/graphql", json={"query": SEEN, "variables": variables})
        assert seen.json()["data"]["response"] == {"text": "half"}
        assert (await http.get(f"/v1/ui/chat/{conversation}/stream")).status_code == 204
        told = await http.get(f"/v1/responses/{response}", params={"stream": "true"})
        assert "event: response.completed" in told.text
        news = await read(http, f"/v1/sessions/{session}/events?wait=20")
        assert [event["type"] for event in news["data"]].count("response.done") == 1
        news = await read(http, f"/v1/sessions/{session}/events?wait=20&after={news['after']}")
        assert len(news["data"]) == 1, "it isn't waited for more"

        message = {"role": "user", "content": "late"}
        for path, body in (
            ("/v1/responses", {"input": "more"}),
            ("/v1/responses", {"input": "more", "previous_response_id": response}),
            ("/v1/chat/completions", {"model": "default", "messages": [message]}),
            ("/v1/conversations", {}),
            (f"/v1/conversations/{conversation}/items", {"items": [message]}),
            (f"/v1/conversations/{conversation}", {"metadata": {"a": "b"}}),
        ):
            await refused(await http.post(path, json=body))
        await refused(await http.get(f"/v1/sessions/{session}/events"))

        assert (await http.delete(f"/v1/responses/{response}")).json()["deleted"]
        assert (await http.get(f"/v1/responses/{response}")).status_code == 404
    await is_over(nodes)


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/responses", "/graphql", "/v1/ui/ws"])
async def test_who_is_let_in_as_the_drain_begins_is_sent_away(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    server: Served[ManualAgent] = await serve(ManualAgent(), graphql=True)
    directory = server.app.auth.directory
    note, is_noted, goes_on = directory.note, asyncio.Event(), asyncio.Event()

    async def held(principal: Principal) -> None:
        is_noted.set()
        await goes_on.wait()
        await note(principal)

    monkeypatch.setattr(directory, "note", held)
    url = f"ws://127.0.0.1:{server.port}{path}"
    spoken = [Subprotocol("graphql-transport-ws")] if path == "/graphql" else None
    headers = {"Authorization": "Bearer alice"}
    connecting = asyncio.ensure_future(
        connect(
            url, additional_headers=headers, subprotocols=spoken, compression=None, proxy=None
        ).__aenter__()
    )
    async with asyncio.timeout(WAIT):
        await is_noted.wait()
        server.app.begin_drain()
        goes_on.set()
        try:
            ws = await connecting
        except InvalidStatus as exc:  # it is told before it is let in
            assert exc.response.status_code == 503
        else:
            await ws.wait_closed()
            assert ws.close_code == CloseCode.RESTART


async def read(http: httpx2.AsyncClient, path: str) -> Any:
    answer = await http.get(path)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


async def refused(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_draining"), answer.text
    assert int(answer.headers["retry-after"]) > 0
