"""A door by which an answer begins, and what there is to speak to one with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import orjson
from websockets.asyncio.client import ClientConnection, connect

from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served

__all__ = ["SAYS", "Begun", "Door", "Frames", "Node", "dialled", "http_to", "messages", "send", "sent_events"]

Node = Served[ManualAgent]
Frames = list[Any]
Beginning = Callable[[Node], AbstractAsyncContextManager["Begun"]]

SAYS: Final = "hi"
"""What is asked."""

_KEY: Final = {"Authorization": "Bearer alice"}


@dataclass(frozen=True)
class Begun:
    """An answer that has begun.

    Attributes:
        response: Its id.
        resume: What its session is joined with. None: there is no such session.
        frames: What the door tells whoever asked, from here to the answer's end.

    """

    response: str
    resume: str | None
    frames: AsyncIterator[Any]


@dataclass(frozen=True)
class Door:
    """One door.

    Attributes:
        begin: Asks there for an answer.
        said: The text in what the door tells.
        end: The end in what the door tells.
        completed: What that end is, of an answer that is whole.
        cancelled: What it is of one that was stopped.
        unsaid: What it is of one that was stopped before its first word, where that is something else.

    """

    begin: Beginning
    said: Callable[[Frames], str]
    end: Callable[[Frames], Any]
    completed: Any
    cancelled: Any
    unsaid: Any = None


def http_to(node: Node) -> httpx2.AsyncClient:
    base_url = f"http://127.0.0.1:{node.port}"
    return httpx2.AsyncClient(base_url=base_url, headers=_KEY, timeout=WAIT, trust_env=False)


@asynccontextmanager
async def dialled(node: Node, path: str) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{node.port}{path}"
    async with connect(url, additional_headers=_KEY, compression=None, proxy=None) as ws:
        yield ws


async def send(ws: ClientConnection, message: dict[str, Any]) -> None:
    await ws.send(orjson.dumps(message).decode())


async def messages(ws: ClientConnection, is_last: Callable[[Any], bool]) -> AsyncIterator[Any]:
    """Yield what comes, up to the last message."""
    while True:
        async with asyncio.timeout(WAIT):
            message = orjson.loads(await ws.recv())
        yield message
        if is_last(message):
            return


async def sent_events(response: httpx2.Response, last: str | None = None) -> AsyncIterator[Any]:
    """Yield the data of a stream of events, which ends with *last*, if there is such a thing."""
    data = ""
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            if data != last:
                yield orjson.loads(data)
    assert last in (None, data)
