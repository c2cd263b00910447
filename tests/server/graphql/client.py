"""A client of GraphQL that sees every answer, over HTTP, as server-sent events and over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.server.realtime.client import WAIT

__all__ = ["EVENTS", "SEND", "Caller", "Event", "Socket", "said"]

Event = dict[str, Any]

SEND = "mutation($in: SendInput!) { send(input: $in) { sessionId responseId resume } }"

EVENTS = """subscription($session: ID, $response: ID, $after: String) {
  events(sessionId: $session, responseId: $response, after: $after) {
    type cursor resumed responseId itemId delta kind item { type text } response { id status text }
    session { id items { edges { node { text } } } }
  }
}"""


def said(events: list[Event]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "DELTA" and event["kind"] == "TEXT")


class Caller:
    """One speaker."""

    def __init__(self, port: int, key: str | None = "alice") -> None:
        self.port = port
        self.key = key
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self.http = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=WAIT, trust_env=False
        )
        self._stack = AsyncExitStack()

    async def post(self, query: str, /, accept: str = "*/*", **variables: Any) -> httpx2.Response:
        """Send an operation, and return the answer to that."""
        body = {"query": query, "variables": variables}
        return await self.http.post("/graphql", json=body, headers={"accept": accept})

    async def ask(self, query: str, **variables: Any) -> Any:
        """Send an operation, and return its data: there are no errors."""
        response = await self.post(query, **variables)
        answer = response.json()
        assert response.status_code == 200 and "errors" not in answer, answer
        return answer["data"]

    async def refused(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send an operation, and return the one error."""
        answer = (await self.post(query, **variables)).json()
        assert answer.get("data") is None, answer
        (error,) = answer["errors"]
        return dict(error)

    async def send(self, text: str, **fields: Any) -> dict[str, str]:
        """Say something, and return what is told of it."""
        sent: dict[str, str] = (await self.ask(SEND, **{"in": {"text": text, **fields}}))["send"]
        return sent

    @asynccontextmanager
    async def listening(self, **variables: Any) -> AsyncIterator[AsyncIterator[Event]]:
        """Subscribe by server-sent events, and yield what comes."""
        body = {"query": EVENTS, "variables": variables}
        headers = {"accept": "text/event-stream"}
        async with self.http.stream("POST", "/graphql", json=body, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield _read(response)

    async def listen(self, **variables: Any) -> list[Event]:
        """Subscribe by server-sent events, and return all that comes."""
        async with self.listening(**variables) as events:
            return [event async for event in events]

    async def socket(self, *, payload: dict[str, Any] | None = None, **options: Any) -> Socket:
        """Return a connection that has begun."""
        socket = await self.raw_socket(**options)
        await socket.send("connection_init", **({} if payload is None else {"payload": payload}))
        assert await socket.next() == {"type": "connection_ack"}
        return socket

    async def raw_socket(self, *, query: str = "", **options: Any) -> Socket:
        """Return a connection that hasn't begun."""
        headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        ws = await connect(
            f"ws://127.0.0.1:{self.port}/graphql{query}",
            **{
                "additional_headers": headers,
                "subprotocols": [Subprotocol("graphql-transport-ws")],
                "compression": None,
                "proxy": None,
                **options,
            },
        )
        self._stack.push_async_callback(ws.close)
        return Socket(ws)

    async def aclose(self) -> None:
        await self._stack.aclose()
        await self.http.aclose()


class Socket:
    """A connection, and what came by it of each operation."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.events: dict[str, list[Event]] = {}
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.completed: set[str] = set()

    async def send(self, kind: str, **fields: Any) -> None:
        await self.ws.send(orjson.dumps({"type": kind, **fields}).decode())

    async def subscribe(self, name: str, query: str = EVENTS, **variables: Any) -> None:
        await self.send("subscribe", id=name, payload={"query": query, "variables": variables})

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT):
            message: dict[str, Any] = orjson.loads(await self.ws.recv())
        if message["type"] == "complete":
            self.completed.add(message["id"])
        if message["type"] == "next":
            answer = message["payload"]
            self.answers.setdefault(message["id"], []).append(answer)
            if "events" in (answer.get("data") or {}):
                self.events.setdefault(message["id"], []).append(answer["data"]["events"])
        return message

    async def until(self, kind: str, name: str) -> dict[str, Any]:
        while True:
            message = await self.next()
            if message["type"] == kind and message.get("id") == name:
                return message

    async def shows(self, name: str, text: str) -> None:
        while text not in said(self.events.get(name, [])):
            await self.next()

    async def closed(self) -> tuple[int, str]:
        """Return with what the server closes the connection."""
        try:
            while True:
                await self.next()
        except ConnectionClosed:
            return self.ws.close_code or 0, self.ws.close_reason or ""


async def _read(response: httpx2.Response) -> AsyncIterator[Event]:
    """Yield the events of a stream. It ends as it has to; errors are the test's failure."""
    kind = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: ") and kind == "next":
            answer = orjson.loads(line.removeprefix("data: "))
            assert "errors" not in answer, answer
            yield answer["data"]["events"]
    assert kind == "complete"
