"""A client of UI message streams that sees every byte, and a message as a page would have it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

__all__ = ["Chunk", "Page", "said", "types", "user"]

Chunk = dict[str, Any]


def user(text: str, message_id: str = "u1", **fields: Any) -> dict[str, Any]:
    return {"id": message_id, "role": "user", "parts": [{"type": "text", "text": text}], **fields}


def said(chunks: list[Chunk]) -> str:
    return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")


def types(chunks: list[Chunk]) -> list[str]:
    """Return the types of all chunks but those that are this server's own."""
    return [chunk["type"] for chunk in chunks if chunk["type"] != "data-unbroken"]


class Page:
    """One user's page, with one chat."""

    def __init__(self, port: int, key: str = "alice", chat: str = "chat-1") -> None:
        self.chat = chat
        self.url = f"http://127.0.0.1:{port}/v1/ui/chat"
        self._http = httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=20)

    async def post(self, *messages: dict[str, Any], **fields: Any) -> httpx2.Response:
        """Send the messages, and return the answer to that, whole."""
        body = {"id": self.chat, "messages": messages, "trigger": "submit-message", **fields}
        return await self._http.post(self.url, json=body)

    async def ask(self, *messages: dict[str, Any], **fields: Any) -> list[Chunk]:
        """Send the messages, and return all chunks of the stream."""
        response = await self.post(*messages, **fields)
        assert response.status_code == 200, response.text
        assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
        return chunks_of(response.text)

    @asynccontextmanager
    async def asking(self, *messages: dict[str, Any], **fields: Any) -> AsyncIterator[AsyncIterator[Chunk]]:
        """Send the messages, and yield the chunks as they come."""
        body = {"id": self.chat, "messages": messages, "trigger": "submit-message", **fields}
        async with self._http.stream("POST", self.url, json=body) as response:
            assert response.status_code == 200, await response.aread()
            yield _read(response)

    async def resume(self) -> list[Chunk] | None:
        """Return all chunks of the stream that runs; None: there is none."""
        response = await self._http.get(f"{self.url}/{self.chat}/stream")
        if response.status_code == 204:
            assert not response.content
            return None
        assert response.status_code == 200, response.text
        return chunks_of(response.text)

    @asynccontextmanager
    async def resuming(self) -> AsyncIterator[AsyncIterator[Chunk]]:
        async with self._http.stream("GET", f"{self.url}/{self.chat}/stream") as response:
            assert response.status_code == 200
            yield _read(response)

    async def stop(self) -> bool:
        response = await self._http.post(f"{self.url}/{self.chat}/stop")
        assert response.status_code == 200, response.text
        stopped: bool = response.json()["stopped"]
        return stopped

    async def messages(self) -> list[dict[str, Any]]:
        response = await self._http.get(f"{self.url}/{self.chat}")
        assert response.status_code == 200, response.text
        messages: list[dict[str, Any]] = response.json()["messages"]
        return messages

    async def aclose(self) -> None:
        await self._http.aclose()


async def _read(response: httpx2.Response) -> AsyncIterator[Chunk]:
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def chunks_of(text: str) -> list[Chunk]:
    """Return the chunks of a whole stream, which ends as it has to."""
    events = text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: ") and "\n" not in event for event in events[:-1])
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
