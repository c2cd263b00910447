"""``make cluster`` as a person uses it: a question, a killed node, the same conversation."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.deploy.balanced import Talk
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
    await talk.until(lambda: len(talk.text.split()) >= 20)
    await cluster.press("k")
    said = await cluster.line("Killed node")
    assert "in mid-answer" in said
    await talk.until(lambda: len(talk.endings) == 1)

    assert talk.endings == ["failed"]  # a script's answer is kept by no upstream
    assert talk.words_are_whole()
    await talk.ask("/say still here")
    await talk.until(lambda: len(talk.endings) == 2)
    assert talk.text.endswith("still here")
    assert talk.endings == ["failed", "completed"]
