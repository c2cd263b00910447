"""Nodes over one Valkey behind a balancer, all of them real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from tests.fakes.surroundings import free_port, neutral_environment
from tests.fakes.valkey import Server

__all__ = ["Nodes", "Talk", "open_nodes", "start", "wait_for_port"]

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0


def start(command: list[str], log: Path, **settings: str) -> subprocess.Popen[bytes]:
    """Start a program with nothing from around but *settings*."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env={**neutral_environment(), "PYTHONPATH": str(ROOT), **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when somebody listens on *port*."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"nobody listens on {port}: {log.read_text()[-1000:]}") from None
            time.sleep(0.05)


class Nodes:
    """Some nodes. Fault verbs: :meth:`kill`, :meth:`terminate`, :meth:`freeze`, :meth:`thaw`."""

    def __init__(self, folder: Path, url: str, count: int, **settings: str) -> None:
        self.ports = [free_port() for _ in range(count)]
        self._settings = {
            "UNBROKEN_AGENT": "scripted",
            "UNBROKEN_ADMIN_PORT": "0",
            "UNBROKEN_REDIS_URL": url,
            "UNBROKEN_SECRET": 32 * "s",
            "UNBROKEN_TRUSTED_PROXIES": "127.0.0.1",
            **settings,
        }
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, *numbers: int) -> None:
        """Start these nodes, or all, and return when they listen."""
        started = numbers or range(len(self.ports))
        for number in started:
            self._processes[number] = start(
                [sys.executable, "-m", "unbroken", "serve"],
                self._folder / f"node{number}.log",
                UNBROKEN_PORT=str(self.ports[number]),
                **self._settings,
            )
        for number in started:
            wait_for_port(self.ports[number], self._processes[number], self._folder / f"node{number}.log")

    def kill(self, number: int) -> None:
        self._processes[number].kill()
        self._processes[number].wait()

    def terminate(self, number: int) -> subprocess.Popen[bytes]:
        self._processes[number].terminate()
        return self._processes[number]

    def freeze(self, number: int) -> None:
        self._processes[number].send_signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        self._processes[number].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End all that are left."""
        for process in self._processes.values():
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def open_nodes(folder: Path, count: int, **settings: str) -> AsyncIterator[Nodes]:
    """Start a Valkey and nodes over it."""
    with Server(folder / "valkey").running() as valkey:
        nodes = Nodes(folder, valkey.url, count, **settings)
        try:
            await asyncio.to_thread(nodes.start)
            yield nodes
        finally:
            nodes.stop()


class Talk:
    """One conversation through a balancer, whatever becomes of its connections."""

    def __init__(self, port: int, **query: str) -> None:
        self.text = ""
        self.endings: list[str] = []
        self.codes: list[int | None] = []
        """How connections ended; None: without a close frame."""
        self.nodes: list[str] = []
        """Who answered the handshakes, where the balancer says so."""
        self.query = query
        self.socket: ClientConnection | None = None
        self._port = port
        self._token = self._last = ""

    async def connect(self) -> None:
        """Connect, or resume, at last."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self._connect()
                    return
                except (OSError, TimeoutError, websockets.InvalidHandshake, websockets.ConnectionClosed):
                    await asyncio.sleep(0.05)

    async def _connect(self) -> None:
        query = dict(self.query)
        if self._token:
            query |= {"resume": self._token, "after": self._last}
        joined = "&".join(f"{name}={value}" for name, value in query.items())
        self.socket = await websockets.connect(
            f"ws://127.0.0.1:{self._port}/v1/realtime?{joined}",
            additional_headers={"Authorization": "Bearer me"},
            proxy=None,
            open_timeout=5,
            ping_interval=None,
        )
        frame = await self.next()
        assert frame["type"] == "session.created", frame
        assert frame["session"]["unbroken"].get("resumed", True)
        self._token = frame["session"]["unbroken"]["resume"]
        assert self.socket.response is not None
        self.nodes.append(self.socket.response.headers.get("x-node", ""))

    async def next(self) -> dict[str, Any]:
        """Return the next event."""
        assert self.socket is not None
        frame: dict[str, Any] = json.loads(await self.socket.recv())
        self._last = frame["event_id"]
        if frame["type"] == "response.output_text.delta":
            self.text += frame["delta"]
        elif frame["type"] == "response.done":
            self.endings.append(frame["response"]["status"])
        return frame

    async def ask(self, text: str) -> None:
        """Say *text*, and ask for a response."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        assert self.socket is not None
        await self.socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await self.socket.send(json.dumps({"type": "response.create"}))

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Read, and come back whenever the connection ends, until something is so."""
        async with asyncio.timeout(PATIENCE):
            while not is_so():
                try:
                    await self.next()
                except websockets.ConnectionClosed as exc:
                    self.codes.append(exc.rcvd.code if exc.rcvd else None)
                    await self.connect()

    async def close(self) -> None:
        """Leave."""
        if self.socket is not None:
            await self.socket.close()

    def words_are_whole(self) -> bool:
        """Return whether every word of a numbered answer came, once and in order."""
        words = self.text.split()
        return words == [f"word{number}" for number in range(1, len(words) + 1)]
