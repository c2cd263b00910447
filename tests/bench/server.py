"""The servers under measurement: ours, as anyone would start it, and its peers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tests.bench.bare import FRAMES_VARIABLE
from tests.bench.machine import Cores, cpu_seconds, resident_bytes
from tests.fakes.surroundings import free_port, neutral_environment

__all__ = ["Kind", "Launcher", "Server"]

Kind: TypeAlias = Literal["ours", "bare", "ws", "socketio", "litellm"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_AGENT: Final = {"UNBROKEN_AGENT": "python", "UNBROKEN_PYTHON_AGENT": "tests.bench.agents:answer"}
"""What answers, unless a suite has its own."""
_START_TIMEOUT: Final = 90.0
_STOP_TIMEOUT: Final = 10.0
_SETTLE_TIMEOUT: Final = 5.0
_QUIET: Final = 0.02
"""Share of a core below which a server counts as having nothing left to do."""


class Server:
    """One running server process. Use as a context manager."""

    def __init__(
        self, kind: Kind, process: subprocess.Popen[bytes], port: int, cores: Cores, log: Path
    ) -> None:
        self.kind = kind
        self.cores = cores
        self.port = port
        self.pid = process.pid
        self._process = process
        self._log = log

    def __enter__(self) -> Server:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                self.settle()
                return self
        self.__exit__()
        raise RuntimeError(f"the server ({self.kind}) doesn't start; its log ends: {self.last_words()}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def cpu(self) -> float:
        """Return the CPU seconds it has used, all threads together."""
        return cpu_seconds(self.pid)

    def resident(self) -> int:
        """Return the bytes it holds resident."""
        return resident_bytes(self.pid)

    def signal(self, number: int) -> None:
        """Send a signal. Harmless if it has ended."""
        self._process.send_signal(number)

    def settle(self) -> None:
        """Wait until it has nothing left to do, or for some seconds."""
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while time.monotonic() < deadline:
            begun, used = time.monotonic(), self.cpu()
            time.sleep(0.2)
            if (self.cpu() - used) / (time.monotonic() - begun) < _QUIET:
                return

    def last_words(self) -> str:
        """Return the end of its log."""
        return self._log.read_text(errors="replace")[-1500:].strip()


@dataclass
class Launcher:
    """Starts servers, each on the servers' core."""

    cores: Cores
    frames: Path
    """Where the bare peer finds what to send."""
    logs: Path
    """Folder for what they write."""
    _empty: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)

    def start(self, kind: Kind, settings: Mapping[str, str] = {}, *, name: str = "") -> Server:
        """Start a server, with *settings* for its environment. It is ready once its context is entered.

        *name* is its log's, where it is one of several.
        """
        port = free_port()
        log = self.logs / f"bench-{name or kind}.log"
        # Nothing but the defaults: no settings from around, no files of the working directory.
        environment = neutral_environment() | {
            "PYTHONPATH": str(_ROOT),
            **({} if "UNBROKEN_AGENT" in settings else _AGENT),
            FRAMES_VARIABLE: str(self.frames.resolve()),
            **settings,
        }
        # A child is born on its parent's core, with all threads it will ever have.
        os.sched_setaffinity(0, {self.cores.server})
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    _command(kind, port, settings),
                    cwd=self._empty.name,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        finally:
            os.sched_setaffinity(0, {self.cores.load})
        return Server(kind, process, port, self.cores, log)


def _command(kind: Kind, port: int, settings: Mapping[str, str]) -> list[str]:
    match kind:
        case "ours":
            options = ["--port", str(port), "--admin-port", "0"]
            return [sys.executable, "-m", "unbroken", "serve", *options]
        case "bare":
            return _uvicorn("tests.bench.bare:create", port)
        case "socketio":
            return _uvicorn("tests.bench.peer_socketio:create", port)
        case "litellm":
            return [
                settings["LITELLM"],
                "--config",
                settings["CONFIG"],
                "--port",
                str(port),
                "--host",
                "127.0.0.1",
            ]
        case "ws":
            return ["node", str(_ROOT / "tests" / "bench" / "peer_ws.mjs"), str(port)]


def _uvicorn(factory: str, port: int) -> list[str]:
    # The stock server at its best: its faster protocol and loop, no compression, no logs.
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", factory, "--port", str(port)),
        *("--ws", "websockets-sansio", "--loop", "uvloop", "--http", "httptools"),
        *("--ws-per-message-deflate", "false", "--no-access-log", "--log-level", "warning"),
    ]
