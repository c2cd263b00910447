"""A client of AG-UI that sees every byte, and holds what comes against the protocol's rules."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

__all__ = ["Event", "Events", "Rules", "Thread", "said", "types", "user"]

Event = dict[str, Any]

_FIELDS = {
    "RUN_STARTED": ("threadId", "runId", "protocolVersion", "metadata"),
    "RUN_FINISHED": ("threadId", "runId", "outcome", "metadata", "usage"),
    "RUN_ERROR": ("message", "code", "metadata", "usage"),
    "TEXT_MESSAGE_START": ("messageId", "role"),
    "TEXT_MESSAGE_CONTENT": ("messageId", "delta"),
    "TEXT_MESSAGE_END": ("messageId",),
    "REASONING_START": ("messageId",),
    "REASONING_MESSAGE_START": ("messageId", "role"),
    "REASONING_MESSAGE_CONTENT": ("messageId", "delta"),
    "REASONING_MESSAGE_END": ("messageId",),
    "REASONING_END": ("messageId",),
    "TOOL_CALL_START": ("toolCallId", "toolCallName", "parentMessageId"),
    "TOOL_CALL_ARGS": ("toolCallId", "delta"),
    "TOOL_CALL_END": ("toolCallId",),
    "TOOL_CALL_RESULT": ("messageId", "toolCallId", "content", "role"),
    "CUSTOM": ("name", "value"),
}
"""What each event may have beside its type: more would be cut out by strict readers."""

_PAIRS = {
    "TEXT_MESSAGE": ("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"),
    "REASONING": ("REASONING_START", "", "REASONING_END"),
    "REASONING_MESSAGE": (
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
    ),
    "TOOL_CALL": ("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"),
}


class Rules:
    """The rules that clients verify a run by: what has begun ends, and the run ends once."""

    def __init__(self) -> None:
        self._open: set[tuple[str, str]] = set()
        self._is_begun = self._is_over = False

    def take(self, event: Event) -> None:
        kind = event["type"]
        assert set(event) - {"type"} <= set(_FIELDS[kind]), event
        assert not _has_null(event), event
        assert not self._is_over, f"{kind} behind the run's end"
        assert self._is_begun or kind in ("RUN_STARTED", "RUN_ERROR"), f"{kind} ahead of the run"
        match kind:
            case "RUN_STARTED":
                assert not self._is_begun, "a run begins once"
                self._is_begun = True
            case "RUN_FINISHED" | "RUN_ERROR":
                assert not self._open or kind == "RUN_ERROR", self._open
                self._is_over = True
        named = str(event.get("toolCallId", event.get("messageId", "")))
        for what, (start, content, end) in _PAIRS.items():
            if kind == start:
                assert (what, named) not in self._open, f"{named} is in progress"
                self._open.add((what, named))
            elif kind in (content, end):
                assert (what, named) in self._open, f"{kind} of {named}, which hasn't begun"
                if kind == end:
                    self._open.discard((what, named))

    def finish(self) -> None:
        assert self._is_over, "the run has no end"
        assert not self._open, self._open


def _has_null(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return value is None or (isinstance(value, list) and any(map(_has_null, value)))


class Events(list[Event]):
    """All events of a run, checked; and their offsets."""

    def __init__(self, text: str, *, is_whole: bool = True) -> None:
        super().__init__()
        self.ids: list[str] = []
        rules = Rules()
        events = text.split("\n\n")
        assert events.pop() == ""
        for each in events:
            *head, data = each.split("\n")
            self.ids += [line.removeprefix("id: ") for line in head]
            self.append(json.loads(data.removeprefix("data: ")))
            if is_whole:
                rules.take(self[-1])
        if is_whole:
            rules.finish()


def user(text: str, message_id: str = "m1") -> dict[str, Any]:
    return {"id": message_id, "role": "user", "content": text}


def said(events: list[Event]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")


def types(events: list[Event]) -> list[str]:
    return [event["type"] for event in events]


class Thread:
    """One user's page, with one thread."""

    def __init__(self, port: int, key: str = "alice", thread: str = "thread-1") -> None:
        self.id = thread
        self.url = f"http://127.0.0.1:{port}/v1/agui"
        self.http = httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=20)

    def body(self, *messages: Any, run: str = "run-1", **fields: Any) -> dict[str, Any]:
        return {
            "threadId": self.id,
            "runId": run,
            "protocolVersion": "1.0",
            "messages": messages,
            "state": {},
            "tools": [],
            "context": [],
            "forwardedProps": {},
            **fields,
        }

    async def post(self, *messages: Any, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        """Send the messages, and return the answer to that, whole."""
        return await self.http.post(self.url, json=self.body(*messages, **fields), headers=headers)

    async def run(self, *messages: Any, **fields: Any) -> Events:
        """Send the messages, and return all events of the run."""
        response = await self.post(*messages, **fields)
        assert response.status_code == 200, response.text
        return Events(response.text)

    @asynccontextmanager
    async def running(self, *messages: Any, **fields: Any) -> AsyncIterator[AsyncIterator[Event]]:
        """Send the messages, and yield the events as they come."""
        body = self.body(*messages, **fields)
        async with self.http.stream("POST", self.url, json=body) as response:
            assert response.status_code == 200, await response.aread()
            yield _read(response)

    @asynccontextmanager
    async def resuming(self, **fields: str) -> AsyncIterator[AsyncIterator[Event]]:
        url = f"{self.url}/{self.id}/stream"
        async with self.http.stream("GET", url, params=fields) as response:
            assert response.status_code == 200, await response.aread()
            yield _read(response)

    async def resume(self, **fields: str) -> Events | None:
        """Return the events of a run; None: nothing runs."""
        response = await self.http.get(f"{self.url}/{self.id}/stream", params=fields)
        if response.status_code == 204:
            assert not response.content
            return None
        assert response.status_code == 200, response.text
        return Events(response.text, is_whole="offset" not in fields)

    async def stop(self) -> bool:
        response = await self.http.post(f"{self.url}/{self.id}/stop")
        assert response.status_code == 200, response.text
        stopped: bool = response.json()["stopped"]
        return stopped

    async def look(self) -> dict[str, Any]:
        response = await self.http.get(f"{self.url}/{self.id}")
        assert response.status_code == 200, response.text
        fields: dict[str, Any] = response.json()
        assert fields["threadId"] == self.id
        return fields

    async def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = (await self.look())["messages"]
        return messages

    async def aclose(self) -> None:
        await self.http.aclose()


async def _read(response: httpx2.Response) -> AsyncIterator[Event]:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
