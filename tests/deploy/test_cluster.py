"""``make cluster`` as a person uses it: a question, a killed node, the same conversation."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import websockets
from websockets.asyncio.client import ClientConnection

from tests.fakes.valkey import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


class Running:
    """The script, started."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def line(self, beginning: str) -> str:
        """Return the next line that begins so."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stdout.readline()).decode():
                if line.startswith(beginning):
                    return line
        raise AssertionError(f"it ended without saying {beginning!r}")

    async def press(self, key: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(key.encode() + b"\n")
        await self.process.stdin.drain()


class Talk:
    """One conversation through the balancer, whatever becomes of its connections."""

    def __init__(self, port: int) -> None:
        self.text = ""
        self.endings: list[str] = []
        self.codes: list[int | None] = []
        self._port = port
        self._token = self._last = ""
        self._socket: ClientConnection | None = None

    async def connect(self) -> None:
        query = f"?resume={self._token}&after={self._last}" if self._token else ""
        for _ in range(600):
            try:
                self._socket = await websockets.connect(
                    f"ws://127.0.0.1:{self._port}/v1/realtime{query}",
                    additional_headers={"Authorization": "Bearer me"},
                    proxy=None,
                )
                break
            except (OSError, websockets.InvalidHandshake, websockets.ConnectionClosed):
                await asyncio.sleep(0.1)
        frame = await self._next()
        assert frame["type"] == "session.created"
        assert frame["session"]["unbroken"].get("resumed", True)
        self._token = frame["session"]["unbroken"]["resume"]

    async def _next(self) -> dict[str, Any]:
        assert self._socket is not None
        frame: dict[str, Any] = json.loads(await self._socket.recv())
        self._last = frame["event_id"]
        if frame["type"] == "response.output_text.delta":
            self.text += frame["delta"]
        elif frame["type"] == "response.done":
            self.endings.append(frame["response"]["status"])
        return frame

    async def ask(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        assert self._socket is not None
        await self._socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await self._socket.send(json.dumps({"type": "response.create"}))

    async def until_words(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.text.split()) < count:
                await self._go_on()

    async def until_end(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.endings) < number:
                await self._go_on()

    async def _go_on(self) -> None:
        try:
            await self._next()
        except websockets.ConnectionClosed as exc:
            self.codes.append(exc.rcvd.code if exc.rcvd else None)
            await self.connect()


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Running]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "deploy" / "cluster.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PORT": str(port), "UNBROKEN_AGENT": "scripted", "PYTHONPATH": str(ROOT)},
    )
    running = Running(process, port)
    try:
        await running.line("Unbroken is listening on")
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0


@pytest.mark.timeout(180)
async def test_a_conversation_outlives_the_node_that_answers(cluster: Running) -> None:
    talk = Talk(cluster.port)
    await talk.connect()
    await talk.ask("/tokens 600 50")
    await talk.until_words(20)
    await cluster.press("k")
    said = await cluster.line("Killed node")
    assert "in mid-answer" in said
    await talk.until_end(1)

    words = talk.text.split()
    assert talk.endings == ["failed"]  # a script's answer is kept by no upstream
    assert words == [f"word{number}" for number in range(1, len(words) + 1)]
    await talk.ask("/say still here")
    await talk.until_end(2)
    assert talk.text.endswith("still here")
    assert talk.endings == ["failed", "completed"]
