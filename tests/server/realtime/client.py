"""A client on the wire, over one connection after another. It keeps what a real client keeps."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

__all__ = ["WAIT", "Client", "Frame", "user_item", "whole"]

WAIT: Final = 45.0
"""Seconds after which what is waited for will never come."""

Frame = dict[str, Any]


class Client:
    """One speaker.

    Attributes:
        frames: All it was shown of its conversation, over all its connections. Begun anew when the
            server told it to start over.
        last_id: The id that came last.
        resumed: What the latest ``session.created`` said; None: nothing.

    """

    def __init__(self, port: int, key: str, token: str | None) -> None:
        self.port = port
        self.key = key
        self.token = token
        self.session_id: str | None = None
        self.frames: list[Frame] = []
        self.last_id: str | None = None
        self.resumed: bool | None = None
        self.connections = 0
        self._syncs = 0
        self._ws: ClientConnection | None = None

    # Connections.

    async def open(self, *, headers: Mapping[str, str] | None = None, **query: str) -> None:
        """Open a connection, and read nothing from it."""
        await self.close()
        given = {"Authorization": f"Bearer {self.key}"} if headers is None else headers
        self._ws = await connect(
            f"ws://127.0.0.1:{self.port}/v1/realtime?{urlencode(query)}",
            additional_headers=given,
            compression=None,
            max_size=None,
            max_queue=None,
            ping_interval=None,
            proxy=None,
            open_timeout=WAIT,
        )
        self.connections += 1

    async def connect(self, *, headers: Mapping[str, str] | None = None, **query: str) -> Frame:
        """Open a connection and return its ``session.created``."""
        await self.open(headers=headers, **query)
        frame = await self.next()
        assert frame["type"] == "session.created", frame
        return frame

    async def resume(self, **query: str) -> Frame:
        """Connect again, from the last id seen."""
        assert self.token is not None
        if self.last_id is not None:
            query.setdefault("after", self.last_id)
        return await self.connect(headers=None, resume=self.token, **query)

    async def drop(self) -> None:
        """Lose the connection, and what was on the wire with it."""
        ws, self._ws = self._ws, None
        if ws is not None:
            ws.transport.abort()
            await ws.wait_closed()

    async def close(self) -> None:
        """Close the connection properly, if there is one."""
        ws, self._ws = self._ws, None
        if ws is not None:
            await ws.close()

    @property
    def ws(self) -> ClientConnection:
        assert self._ws is not None
        return self._ws

    # What it says.

    async def send(self, *events: Frame | str | bytes) -> None:
        for event in events:
            await self.ws.send(json.dumps(event) if isinstance(event, dict) else event)

    async def say(self, text: str, **extra: Any) -> None:
        """Add a message."""
        item = user_item(text, extra.pop("id", None))
        await self.send({"type": "conversation.item.create", "item": item, **extra})

    async def ask(self, text: str, **response: Any) -> None:
        """Add a message and want it answered."""
        await self.say(text)
        await self.send({"type": "response.create", "response": response})

    async def cancel(self, response_id: str | None = None) -> None:
        named = {} if response_id is None else {"response_id": response_id}
        await self.send({"type": "response.cancel", **named})

    # What it is shown.

    async def next(self) -> Frame:
        """Return the next frame.

        Raises:
            ConnectionClosed: There is none.

        """
        async with asyncio.timeout(WAIT):
            data = await self.ws.recv()
        frame: Frame = json.loads(data)
        if frame["type"] == "session.created":
            extension = frame["session"]["unbroken"]
            self.token, self.session_id = extension["resume"], frame["session"]["id"]
            self.resumed = extension.get("resumed")
            if self.resumed is False:
                self.frames.clear()
        self.last_id = frame["event_id"]
        self.frames.append(frame)
        return frame

    async def see(self, count: int) -> list[Frame]:
        """Return the next *count* frames."""
        return [await self.next() for _ in range(count)]

    async def until(self, *kinds: str, **fields: Any) -> Frame:
        """Return the next frame of one of these types, with these fields."""
        while True:
            frame = await self.next()
            if frame["type"] in kinds and all(frame.get(name) == value for name, value in fields.items()):
                return frame

    async def done(self) -> Frame:
        """Return the response that ends next."""
        response: Frame = (await self.until("response.done"))["response"]
        return response

    async def error(self) -> Frame:
        """Return what the next error says."""
        error: Frame = (await self.until("error"))["error"]
        return error

    async def said(self, text: str) -> None:
        """Return once the deltas end in *text*."""
        while not self.text().endswith(text):
            await self.until("response.output_text.delta")

    async def closed(self) -> int:
        """Read to the end, and return the close code; 1006: there was none."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.next()
        code = self.ws.close_code
        return 1006 if code is None else code

    async def sync(self) -> None:
        """Return once everything sent so far was taken, and what it caused at once has come.

        It asks for what is refused, in its turn: the refusal is shown to this client alone.
        """
        self._syncs += 1
        name = f"sync-{self.connections}-{self._syncs}-{id(self):x}"
        await self.send({"type": "conversation.item.delete", "item_id": "no-such-item", "event_id": name})
        while (await self.error()).get("event_id") != name:
            pass

    def of(self, kind: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == kind]

    def types(self) -> list[str]:
        """Return the types of all frames but those that begin a connection."""
        return [frame["type"] for frame in self.frames if frame["type"] != "session.created"]

    def text(self) -> str:
        """Return all deltas, joined."""
        return "".join(frame["delta"] for frame in self.of("response.output_text.delta"))

    def errors(self) -> list[str]:
        return [frame["error"]["code"] for frame in self.of("error")]

    def answers(self) -> list[tuple[str, str]]:
        """Return each response's status and text, having checked that the frames are whole."""
        return whole(self.frames)


def user_item(text: str, item_id: str | None = None) -> Frame:
    item: Frame = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return item if item_id is None else {"id": item_id, **item}


def whole(frames: Iterable[Frame]) -> list[tuple[str, str]]:
    """Return the status and the text of each response, in the order in which they ended.

    Nothing may be missing, doubled or out of place: every response begins and ends once, its deltas
    make its final text, and items begin and end once.
    """
    said: dict[str, dict[str, str]] = {}  # of each response, by item
    arguments: dict[str, str] = {}  # of calls, by their item
    finals: dict[str, str] = {}  # by item
    answers: list[tuple[str, str]] = []
    running: set[str] = set()
    ended: set[str] = set()
    items: dict[str, list[str]] = {}
    ids: set[str] = set()
    for frame in frames:
        assert frame["event_id"] not in ids, f"twice: {frame}"
        ids.add(frame["event_id"])
        kind = frame["type"]
        if kind == "response.created":
            name = frame["response"]["id"]
            assert name not in running | ended, f"begun twice: {frame}"
            running.add(name)
        elif kind == "response.done":
            name = frame["response"]["id"]
            assert name in running, f"ended twice or never begun: {frame}"
            running.remove(name)
            ended.add(name)
            items_said = frame["response"]["output"]
            output = [
                part["text"] for item in items_said if item["type"] == "message" for part in item["content"]
            ]
            calls = {item["id"]: item["arguments"] for item in items_said if "arguments" in item}
            assert calls.items() <= arguments.items(), frame
            texts = said.get(name, {})
            assert output == [text for text in texts.values() if text], frame
            assert all(finals[item_id] == text for item_id, text in texts.items()), frame
            answers.append((frame["response"]["status"], "".join(output)))
        elif kind.startswith("response.mcp_call."):
            assert running, f"outside any response: {frame}"
        elif kind.startswith("response."):
            assert frame["response_id"] in running, f"outside its response: {frame}"
            if kind == "response.output_text.delta":
                texts = said.setdefault(frame["response_id"], {})
                texts[frame["item_id"]] = texts.get(frame["item_id"], "") + frame["delta"]
            elif kind == "response.output_item.added" and "arguments" in frame["item"]:
                arguments[frame["item"]["id"]] = frame["item"]["arguments"]
            elif kind in ("response.function_call_arguments.delta", "response.mcp_call_arguments.delta"):
                arguments[frame["item_id"]] += frame["delta"]
            elif kind in ("response.function_call_arguments.done", "response.mcp_call_arguments.done"):
                assert arguments[frame["item_id"]] == frame["arguments"], frame
            elif kind == "response.output_text.done":
                finals[frame["item_id"]] = frame["text"]
        elif kind in ("conversation.item.added", "conversation.item.done"):
            items.setdefault(frame["item"]["id"], []).append(kind.rpartition(".")[2])
    assert running == set(), "not ended"
    assert {name: kinds for name, kinds in items.items() if kinds != ["added", "done"]} == {}
    return answers
