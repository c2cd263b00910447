"""Nodes over one Valkey, balancers with the configurations that ship, and a client: real processes."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import websockets
from websockets.asyncio.client import ClientConnection

from tests.fakes.surroundings import NO_MODEL, free_port, neutral_environment

__all__ = ["PATIENCE", "ROOT", "Balanced", "Nodes", "Program", "Talk", "start", "wait_for_port"]

ROOT = Path(__file__).parents[2]
PATIENCE = 45.0


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


def wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the node on *port* is ready. It listens before: who comes waits, or goes elsewhere."""
    wait_for_port(port, process, log)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        if answer.status != 200:
            raise AssertionError(f"the node on {port} isn't ready: {answer.read()!r}")


class Nodes:
    """Some nodes. Fault verbs: :meth:`kill`, :meth:`terminate`, :meth:`freeze`, :meth:`thaw`."""

    def __init__(self, folder: Path, url: str, count: int, **settings: str) -> None:
        self.ports = [free_port() for _ in range(count)]
        self._admin_ports = [free_port() for _ in range(count)]
        self._settings = {
            "UNBROKEN_AGENT": "scripted",
            "UNBROKEN_REDIS_URL": url,
            "UNBROKEN_SECRET": 32 * "s",
            "UNBROKEN_TRUSTED_PROXIES": "127.0.0.1",
            **NO_MODEL,
            **settings,
        }
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._leaving: set[int] = set()

    def start(self, *numbers: int) -> None:
        """Start these nodes, or all, and return when they are ready."""
        started = numbers or range(len(self.ports))
        for number in started:
            self._processes[number] = start(
                [sys.executable, "-m", "unbroken", "serve"],
                self._folder / f"node{number}.log",
                UNBROKEN_PORT=str(self.ports[number]),
                UNBROKEN_ADMIN_PORT=str(self._admin_ports[number]),
                **self._settings,
            )
        for number in started:
            log = self._folder / f"node{number}.log"
            wait_until_ready(self.ports[number], self._processes[number], log)

    def kill(self, number: int) -> None:
        self._processes[number].kill()
        self._processes[number].wait()

    def terminate(self, number: int) -> subprocess.Popen[bytes]:
        self._processes[number].terminate()
        self._leaving.add(number)
        return self._processes[number]

    def freeze(self, number: int) -> None:
        self._processes[number].send_signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        self._processes[number].send_signal(signal.SIGCONT)

    def answering(self) -> int | None:
        """Return a node that has a session in which a response runs; None: none has."""
        numbers = range(len(self.ports))
        return next((number for number in numbers if self.measure(number, "unbroken_sessions_running")), None)

    def measure(self, number: int, gauge: str) -> float:
        """Return what a node says of itself, and 0 when it says nothing."""
        connection = http.client.HTTPConnection("127.0.0.1", self._admin_ports[number], timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/metrics")
            for line in connection.getresponse().read().decode().splitlines():
                name, _, value = line.rpartition(" ")
                if name == gauge:
                    return float(value)
        return 0.0

    def mend(self) -> None:
        """Have all of them serve again, whatever was done to them."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
        while self._leaving:
            self._processes[self._leaving.pop()].wait(PATIENCE)
        ended = [number for number, process in self._processes.items() if process.poll() is not None]
        if ended:
            self.start(*ended)

    def stop(self) -> None:
        """End all that are left."""
        for process in self._processes.values():
            process.kill()
            process.wait()


class Program(abc.ABC):
    """A balancer, and how to start it with the configuration that ships."""

    config: ClassVar[str]
    """The name of its file."""
    renewing: ClassVar[signal.Signals]
    """What has it read that anew."""

    @abc.abstractmethod
    def prepare(self, folder: Path, port: int, nodes: Sequence[int]) -> tuple[list[str], dict[str, str]]:
        """Return a command, and what is in its environment.

        The configuration is changed a little: times are shorter (open connections may be silent for two
        seconds, a header takes one), and a header, ``x-node``, tells who answered.
        """

    @contextlib.contextmanager
    def running(self, folder: Path, nodes: Sequence[int]) -> Iterator[tuple[int, Path]]:
        """Start it before nodes on these ports, and return its own, and its log."""
        with self.started(folder, nodes) as (port, log, _):
            yield port, log

    @contextlib.contextmanager
    def started(
        self, folder: Path, nodes: Sequence[int]
    ) -> Iterator[tuple[int, Path, subprocess.Popen[bytes]]]:
        """Start it as :meth:`running` does, and return its process, too."""
        port, log = free_port(), folder / "balancer.log"
        command, settings = self.prepare(folder, port, nodes)
        process = start(command, log, **settings)
        try:
            wait_for_port(port, process, log)
            yield port, log, process
        finally:
            process.terminate()
            process.wait()


class Balanced:
    """Nodes behind a balancer."""

    def __init__(self, nodes: Nodes, port: int, log: Path) -> None:
        self.nodes = nodes
        self.port = port
        self.log = log

    def number_of(self, talk: Talk) -> int:
        """Return the node that a conversation is connected to."""
        return self.nodes.ports.index(int(talk.nodes[-1].rpartition(":")[2]))

    async def all_serve(self) -> None:
        """Return when the balancer has found every node ready."""
        seen: set[str] = set()
        async with asyncio.timeout(PATIENCE):
            while len(seen) < len(self.nodes.ports):
                talk = Talk(self.port)
                await talk.connect()
                await talk.close()
                seen |= set(talk.nodes)

    async def answering(self, **query: str) -> Talk:
        """Return a conversation whose answer of 120 words has begun."""
        talk = Talk(self.port, query)
        await talk.connect()
        await talk.ask("/tokens 120 20")
        await talk.until(lambda: len(talk.text.split()) >= 20)
        return talk


class Talk:
    """One conversation through a balancer, whatever becomes of its connections."""

    def __init__(
        self, port: int, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.text = ""
        self.endings: list[str] = []
        self.errors: list[str] = []
        """What was refused, or failed."""
        self.codes: list[int | None] = []
        """How connections ended; None: without a close frame."""
        self.nodes: list[str] = []
        """Who answered the handshakes, where the balancer says so."""
        self.failures = 0
        """How many attempts to connect came to nothing."""
        self.query = dict(query or {})
        self.socket: ClientConnection | None = None
        self._port = port
        self._headers = {"Authorization": "Bearer me", **(headers or {})}
        self._token = self._last = ""

    async def connect(self) -> None:
        """Connect, or resume, at last."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.connect_once()
                    return
                except (OSError, TimeoutError, websockets.InvalidHandshake, websockets.ConnectionClosed):
                    self.failures += 1
                    await asyncio.sleep(0.05)

    async def connect_once(self, *, patience: float = 5.0) -> None:
        """Connect, or resume, at the first try."""
        query = dict(self.query)
        if self._token:
            query |= {"resume": self._token, "after": self._last}
        joined = "&".join(f"{name}={value}" for name, value in query.items())
        self.socket = await websockets.connect(
            f"ws://127.0.0.1:{self._port}/v1/realtime?{joined}",
            additional_headers=self._headers,
            proxy=None,
            open_timeout=patience,
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
        elif frame["type"] == "response.created" and self.text:
            self.text += " "
        elif frame["type"] == "response.done":
            self.endings.append(frame["response"]["status"])
        elif frame["type"] == "error":
            self.errors.append(frame["error"]["code"])
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
        try:
            async with asyncio.timeout(PATIENCE):
                while not is_so():
                    try:
                        await self.next()
                    except websockets.ConnectionClosed as exc:
                        self.codes.append(exc.rcvd.code if exc.rcvd else None)
                        await self.connect()
        except TimeoutError:
            raise AssertionError(
                f"It isn't so: {self.endings} {self.errors} {self.codes} {self.text}"
            ) from None

    async def close(self) -> None:
        """Leave."""
        if self.socket is not None:
            await self.socket.close()

    def words_are_whole(self) -> bool:
        """Return whether every word of a numbered answer came, once and in order."""
        words = self.text.split()
        return words == [f"word{number}" for number in range(1, len(words) + 1)]
