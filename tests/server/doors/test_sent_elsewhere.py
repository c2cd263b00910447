"""Connections whose node lets go of an answer that goes on elsewhere: they are sent there, with no error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import orjson
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.fakes.valkey import Server
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually
from tests.server.two_nodes import two_nodes

pytestmark = pytest.mark.slow

Nodes = list[Served[ManualAgent]]

_MESSAGE: Final = {"id": "u1", "role": "user"}
_ASKED: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "responses": ("responses", {"type": "response.create", "model": "default", "input": "hi"}),
    "ui": (
        "ui/ws",
        {
            "type": "send",
            "requestId": "r1",
            "id": "chat-1",
            "trigger": "submit-message",
            "messages": [{**_MESSAGE, "parts": [{"type": "text", "text": "hi"}]}],
        },
    ),
    "agui": (
        "agui/ws",
        {
            "threadId": "thread-1",
            "runId": "run-1",
            "state": {},
            "messages": [{**_MESSAGE, "content": "hi"}],
            "tools": [],
            "context": [],
            "forwardedProps": {},
        },
    ),
    "deep-chat": ("widget/deepchat", {"messages": [{"role": "user", "text": "hi"}]}),
}
"""By each door: where it is, and what is sent there."""


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey") / "data").running() as server:
        yield server


@pytest_asyncio.fixture
async def nodes(valkey: Server) -> AsyncIterator[Nodes]:
    async with two_nodes(valkey, turn_attempts=2) as nodes:
        yield nodes


@pytest.mark.parametrize("door", _ASKED)
async def test_who_is_in_mid_answer_as_the_deadline_passes_is_sent_there(nodes: Nodes, door: str) -> None:
    here, there = nodes
    path, asked = _ASKED[door]
    url = f"ws://127.0.0.1:{here.port}/v1/{path}"
    frames: list[str] = []
    async with connect(url, additional_headers={"Authorization": "Bearer alice"}, compression=None) as ws:
        await ws.send(orjson.dumps(asked).decode())
        (await here.agent.turn()).say("half")
        async with asyncio.timeout(WAIT):
            while not frames or "half" not in frames[-1]:
                frames.append(str(await ws.recv()))
            here.app.begin_drain()
            await eventually(lambda: here.app.node.is_handing_over)
            await here.app.drained(0)
            with pytest.raises(ConnectionClosed) as caught:
                while True:
                    frames.append(str(await ws.recv()))
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1012
    assert not [frame for frame in frames if "server_draining" in frame or "restarting" in frame]
    (await there.agent.turn()).end()
